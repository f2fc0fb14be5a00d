"""`memcube mount`: a cube in use, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import (
    offline_option,
    open_client,
    trust_of,
    trust_options,
)
from memcube.cli.words import table_text

if TYPE_CHECKING:
    from memcube.loader import MountedCube


@command(
    "mount",
    'memcube mount alice/notes --ask "How do I test a backup?"',
    'memcube mount alice/coder --model ./Qwen3-0.6B --ask "Which style do we use?"',
)
@click.argument("reference")
@click.option("--model", metavar="FOLDER", help="Mount on the model in this folder.")
@click.option("--ask", "questions", multiple=True, metavar="TEXT", help="Ask this; repeatable.")
@click.option("--max-new-tokens", default=128, show_default=True, help="Length of an answer.")
@click.option(
    "--allow-unverified-base",
    is_flag=True,
    help="Mount an adapter though it does not say which base it was trained on.",
)
@click.option("--rebuild", is_flag=True, help="Compute a KV cache that does not fit anew.")
@click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only kind=… or memory=ID."
)
@offline_option
@trust_options
def mount(
    reference: str,
    model: str | None,
    questions: tuple[str, ...],
    max_new_tokens: int,
    allow_unverified_base: bool,
    rebuild: bool,
    filters: tuple[str, ...],
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Make the memories of the cube REFERENCE usable, say which were mounted and why, and ask.

    Without a model, the text that a prompt would get is printed for each question. With one, LoRA
    and KV caches are mounted too if they fit it exactly, and the model answers.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    loaded, tokenizer = _load(model) if model else (None, None)
    with (
        open_client(offline=offline) as client,
        client.mount(
            reference,
            model=loaded,
            tokenizer=tokenizer,
            filters=filters,
            trust=trust,
            allow_unverified_base=allow_unverified_base,
            rebuild=rebuild,
        ) as memory,
    ):
        answers = [(question, _answer(memory, question, max_new_tokens)) for question in questions]
        return _told(memory, answers)


def _load(folder: str) -> tuple[Any, Any]:
    from memcube.memories.checkpoint import load_checkpoint

    return load_checkpoint(Path(folder))


def _answer(memory: MountedCube, question: str, max_new_tokens: int) -> str:
    if memory.has_model:
        return memory.generate(question, max_new_tokens=max_new_tokens)
    return memory.context(question) or "(no record answers this)"


def _told(memory: MountedCube, answers: list[tuple[str, str]]) -> Answer:
    from memcube.findings import attested_scan, scan_lines

    verified = memory.verified
    found = attested_scan(verified)
    local = [f"Packed here, unsigned: {verified.reference}"]
    value = {
        "reference": str(verified.reference),
        "digest": str(verified.cube.digest),
        "packedHere": verified.is_local,
        "standing": str(verified.verdict.standing),
        "scan": dict(found.to_statement().predicate) if found else None,
        "steps": [
            {"memory": step.memory, "kind": step.kind, "step": str(step.step), "why": step.why}
            for step in memory.steps
        ],
        "answers": [{"question": question, "answer": answer} for question, answer in answers],
    }
    lines = [
        *(local if verified.is_local else scan_lines(found)),
        table_text([(str(s.step), s.kind, s.memory, s.why) for s in memory.steps]),
    ]
    for question, answer in answers:
        lines += ["", f"> {question}", answer]
    return Answer(value, "\n".join(lines), "\n".join(answer for _, answer in answers))
