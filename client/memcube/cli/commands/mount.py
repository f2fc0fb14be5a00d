"""`memcube mount`: a cube in use, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from memcube_protocol.config import PLAINTEXT

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.mount_options import MountOptions, fit_options, mount_options
from memcube.cli.options import open_client
from memcube.figures import bytes_text, seconds_text, table_text

if TYPE_CHECKING:
    from memcube.client import Client
    from memcube.mounting import MountedCube, MountedMemory, MountStep, Plan
    from memcube.mounting.choosing import Asked

_OWN: Final = "your own overlay, searched by words"


@command(
    "mount",
    'memcube mount alice/notes --ask "How do I test a backup?"',
    'memcube mount alice/coder --model ./Qwen3-0.6B --ask "Which style do we use?"',
    'memcube mount alice/notes acme/handbook --priority alice/notes=3 --ask "Who is on call?"',
    "memcube mount alice/coder --model ./Qwen3-0.6B --dry-run",
    'memcube mount --profile work --ask "Who is on call?"',
)
@click.argument("references", nargs=-1, metavar="REFERENCE…")
@mount_options()
@click.option("--model", metavar="FOLDER", help="Mount on the model in this folder.")
@fit_options
@click.option("--ask", "questions", multiple=True, metavar="TEXT", help="Ask this; repeatable.")
@click.option(
    "--max-new-tokens",
    default=128,
    show_default=True,
    type=click.IntRange(1),
    help="Length of an answer.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what would be mounted, what not, and why, with bytes and seconds.",
)
def mount(
    wanted: MountOptions,
    *,
    fit: Asked,
    model: str | None,
    questions: tuple[str, ...],
    max_new_tokens: int,
    dry_run: bool,
) -> Answer:
    """Mount the memories of each cube REFERENCE, or of a profile, say which and why, and ask.

    Without a model, the text that a prompt would get is printed for each question. With one, LoRA
    and KV caches are mounted too if they fit it exactly, and the model answers.
    """
    wanted.require_something()
    overlay = wanted.read_overlay
    loaded, tokenizer = _load(model) if model else (None, None)
    on: Any = {"model": loaded, "tokenizer": tokenizer, **wanted.asked, **fit}
    with open_client(offline=wanted.offline) as client:
        if dry_run:
            return _planned(_plan(client, wanted, on), overlay)
        with client.mount(wanted.cubes, overlay=overlay, **on) as memory:
            asked = [
                (question, _answer(memory, question, max_new_tokens)) for question in questions
            ]
            return _told(memory, asked)


def _plan(client: Client, wanted: MountOptions, on: dict[str, Any]) -> Plan:
    """What a mount would do with the cubes; nothing where an overlay alone is named."""
    from memcube.mounting import Plan

    if wanted.cubes or wanted.profile is not None:
        return client.plan(wanted.cubes, **on)
    return Plan(())


def _load(folder: str) -> tuple[Any, Any]:
    from memcube.memories.checkpoint import load_checkpoint

    return load_checkpoint(Path(folder))


def _answer(memory: MountedMemory, question: str, max_new_tokens: int) -> str:
    if memory.has_model:
        return memory.generate(question, max_new_tokens=max_new_tokens)
    text = "\n\n".join(filter(None, (memory.prefix_text, memory.context(question))))
    return text or "(no record answers this)"


def _planned(plan: Plan, overlay: Path | None) -> Answer:
    """What a plan says, the user's own overlay before it; its totals last."""
    several = len({choice.offer.cube for choice in plan.choices}) + (overlay is not None) > 1
    told = [
        (str(choice.act), choice.offer.kind, choice.offer.cube, choice.offer.memory, choice.why)
        for choice in plan.choices
    ]
    if overlay is not None:
        told.insert(0, ("retrieve", PLAINTEXT, str(overlay), PLAINTEXT, _OWN))
    rows = [row if several else (*row[:2], *row[3:]) for row in told]
    took = (
        "a time not measured yet" if plan.seconds is None else f"about {seconds_text(plan.seconds)}"
    )
    total = f"would fetch {bytes_text(plan.fetch_bytes)} and take {took}"
    value = {
        "choices": [choice.to_json() for choice in plan.choices],
        "fetchBytes": plan.fetch_bytes,
        "seconds": plan.seconds,
        "refusedKinds": list(plan.refused_kinds),
        "refusedCubes": list(plan.refused_cubes),
    }
    refused = [
        f"a mount would be refused: the rules of {cube} forbid it" for cube in plan.refused_cubes
    ]
    refused += [
        f"a mount would be refused: no {kind} memory fits (--filter chooses what is mounted)"
        for kind in plan.refused_kinds
    ]
    lines = [*([table_text(rows)] if rows else []), total, *refused]
    return Answer(value, "\n".join(lines), total)


def _told(memory: MountedMemory, answers: list[tuple[str, str]]) -> Answer:
    value = {
        "cubes": [_cube_value(cube) for cube in memory.cubes],
        "steps": [_step_value(step) for step in memory.steps],
        "answers": [{"question": question, "answer": answer} for question, answer in answers],
    }
    several = len({step.cube for step in memory.steps}) > 1
    lines = [line for cube in memory.cubes for line in _cube_lines(cube, named=several)]
    rows = [
        (str(s.step), s.kind, *([s.cube] if several else []), s.memory, s.why) for s in memory.steps
    ]
    lines += [table_text(rows)]
    for question, answer in answers:
        lines += ["", f"> {question}", answer]
    return Answer(value, "\n".join(lines), "\n".join(answer for _, answer in answers))


def _cube_value(cube: MountedCube) -> dict[str, Any]:
    return {
        "reference": cube.name,
        "digest": str(cube.verified.cube.digest),
        "priority": cube.priority,
        "packedHere": cube.verified.is_local,
        "standing": str(cube.verified.verdict.standing),
        "scan": dict(found.to_statement().predicate) if (found := cube.scan) else None,
    }


def _step_value(step: MountStep) -> dict[str, Any]:
    return {
        "cube": step.cube,
        "memory": step.memory,
        "kind": step.kind,
        "step": str(step.step),
        "why": step.why,
    }


def _cube_lines(cube: MountedCube, *, named: bool) -> list[str]:
    from memcube.scanning.findings import scan_lines

    if cube.verified.is_local:
        return [f"Packed here, unsigned: {cube.name}"]
    name = f"{cube.name}: " if named else ""
    return [f"{name}{line}" for line in scan_lines(cube.scan)]
