"""`memcube build`: make one kind of memory from another, for a model at hand."""

from __future__ import annotations

import os
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import (
    Number,
    offline_option,
    open_client,
    trust_of,
    trust_options,
    watching,
)
from memcube.figures import table_text

if TYPE_CHECKING:
    from memcube_protocol.build import Made
    from memcube_protocol.recipe import Recipe, Training

    from memcube.building.builder import Built
    from memcube.building.planning import Wanted
    from memcube.client import Client
    from memcube.context import Trust

_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_MOMENT: Final = click.DateTime(["%Y-%m-%dT%H:%M:%SZ"])
_KINDS: Final = ("activation", "parametric", "plaintext")
_EVERY: Final = ("memory", "questions", "prompt", "plain", "budget_tokens", "seed", "threads")
_PLANNED: Final = {
    "source": (_KINDS, "--from"),
    **{name: (_KINDS, f"--{name.replace('_', '-')}") for name in (*_EVERY, "as_of")},
    **{name: (("parametric",), f"--{name}") for name in ("steps", "rate", "rank")},
    "confidence": (("plaintext",), "--confidence"),
}
"""Options that make a recipe, by the kinds that they are for, and how they are written."""


@command(
    "build",
    "memcube build alice/notes --for ./Qwen3-0.6B --kind activation",
    "memcube build alice/notes --for ./Qwen3-0.6B --kind parametric --questions questions.jsonl",
    "memcube build alice/style --for ./Qwen3-0.6B --kind plaintext --from style",
    "memcube build alice/notes --for ./Qwen3-0.6B --recipe recipe.json",
    "memcube build alice/notes --for ./Qwen3-0.6B --again sha256:…",
)
@click.argument("reference")
@click.option("--for", "model", type=_FOLDER, metavar="FOLDER", help="The model's checkpoint.")
@click.option(
    "--kind",
    type=click.Choice(_KINDS),
    help="What to make: a KV cache, a LoRA, or records.",
)
@click.option("--from", "source", metavar="ID", help="Make it of this memory of the cube.")
@click.option("--memory", metavar="ID", help="What the new memory is called.")
@click.option("--questions", type=_FILE, metavar="FILE", help="Questions with answers, JSON Lines.")
@click.option(
    "--ask",
    type=click.IntRange(0, 1024),
    default=32,
    show_default=True,
    help="Questions the model asks itself.",
)
@click.option("--prompt", metavar="TEXT", help="How to ask: text with {question}, or chat.")
@click.option("--plain", is_flag=True, help="Records as bare text, without delimiters.")
@click.option("--budget-tokens", type=click.IntRange(1), help="Tokens of records to take.")
@click.option("--unrelated", type=_FILE, metavar="FILE", help="Text that must not suffer.")
@click.option("--steps", type=click.IntRange(1), help="Steps of teaching an adapter.")
@click.option("--rate", type=Number(0, 1), help="Learning rate at the beginning.")
@click.option("--rank", type=click.IntRange(1), help="Rank of the adapter.")
@click.option("--confidence", type=Number(0, 1), help="Least, to keep an answer.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="What chance is drawn from.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads to compute with.")
@click.option("--as-of", type=_MOMENT, metavar="TIME", help="Records valid then. Default: now.")
@click.option("--recipe", type=_FILE, metavar="FILE", help="Do exactly what this recipe says.")
@click.option("--again", metavar="DIGEST", help="Make this build again, and judge it.")
@click.option(
    "--save-recipe",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the recipe into a file.",
)
@click.option("--accept", is_flag=True, help="Keep it though it recalls nothing or does damage.")
@offline_option
@trust_options
def build(reference: str, **options: Any) -> Answer:
    """Make a memory for a model from another memory of the cube REFERENCE, and test it.

    Records become a KV cache or a LoRA; a KV cache or a LoRA becomes records. The model is asked
    the cube's facts with and without the result, and its damage to unrelated text is measured; a
    result that recalls nothing or does damage is refused. `memcube push REF --builds` publishes it,
    `memcube mount` uses it. The same recipe on the same machine gives the same digest.
    """
    trust = trust_of(
        *(
            options[n]
            for n in ("trust_mode", "accept_publisher", "accept_origin", "accept_rollback")
        )
    )
    if sum(bool(options[name]) for name in ("kind", "recipe", "again")) != 1:
        raise click.UsageError("give one of --kind KIND, --recipe FILE and --again DIGEST")
    _require_meant(options)
    if (save := options["save_recipe"]) and not os.access(save.parent, os.W_OK):
        raise click.UsageError(f"--save-recipe: {save.parent} is no folder that can be written to")
    with open_client(offline=options["offline"]) as client, watching() as watch:
        built, compared = _built(client, reference, options, trust, watch)
    if save:
        save.write_bytes(built.made.recipe.write() + b"\n")
    return _told(reference, built, compared)


def _require_meant(options: dict[str, Any]) -> None:
    """Refuse options that would decide nothing: a recipe says it already, or it is of another kind."""
    context = click.get_current_context()
    for name, (kinds, flag) in _PLANNED.items():
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and options["kind"] not in kinds:
            also = f" {kinds[0]}" if len(kinds) == 1 else ""
            why = "" if options["kind"] else ": a recipe says the rest"
            raise click.UsageError(f"{flag} goes with --kind{also}{why}")


def _built(
    client: Client, reference: str, options: dict[str, Any], trust: Trust, watch: Any
) -> tuple[Built, str | None]:
    """The build, and where it was made again, how it compares."""
    from memcube_protocol.digest import Digest

    from memcube.building.planning import Order

    again = Digest.parse(options["again"]) if options["again"] else None
    order = Order(options["unrelated"], options["accept"], options["ask"], watch)
    load = partial(_load, options["model"])
    if again:
        repeated = client.repeat(reference, again, load=load, order=order, trust=trust)
        return repeated.built, repeated.words
    recipe = _recipe(options["recipe"]) if options["recipe"] else None
    model, tokenizer = load()
    plan = recipe or _wanted(options, model)
    how = {"model": model, "tokenizer": tokenizer, "order": order, "trust": trust}
    return client.build(reference, plan, **how), None


def _load(folder: Path | None) -> tuple[Any, Any]:
    if folder is None:
        return None, None
    from memcube.memories.checkpoint import load_checkpoint

    return load_checkpoint(folder)


def _recipe(path: Path) -> Recipe:
    from memcube_protocol import limits
    from memcube_protocol.errors import InvalidConfigError
    from memcube_protocol.recipe import Recipe

    from memcube.memories.reading import read_small

    try:
        return Recipe.parse(read_small(path, limits.CONFIG_BYTES))
    except InvalidConfigError as error:
        raise InvalidConfigError(str(error), hint="give a file that --save-recipe wrote") from None


def _wanted(options: dict[str, Any], model: Any) -> Wanted:
    from memcube_protocol.recipe import FENCED, PLAIN

    from memcube.building.planning import Wanted
    from memcube.building.questions import read_questions
    from memcube.building.unrelated import PASSAGES, read_passages

    asked, unrelated, as_of = options["questions"], options["unrelated"], options["as_of"]
    return Wanted(
        kind=options["kind"],
        source=options["source"],
        memory=options["memory"],
        questions=read_questions(asked) if asked else (),
        prompt=options["prompt"],
        render=PLAIN if options["plain"] else FENCED,
        budget_tokens=options["budget_tokens"],
        passages=read_passages(unrelated) if unrelated else PASSAGES,
        seed=options["seed"],
        threads=options["threads"],
        as_of=_utc(as_of) if as_of else None,
        training=_training(options, model),
        confidence=options["confidence"],
    )


def _utc(moment: datetime) -> datetime:
    from datetime import UTC

    return moment.replace(tzinfo=UTC)


def _training(options: dict[str, Any], model: Any) -> Training | None:
    """The usual training of the model with what was asked for changed; None: the usual one."""
    from dataclasses import replace

    from memcube.building.planning import usual_training

    changes = {n: options[n] for n in ("steps", "rate", "rank") if options[n] is not None}
    if not changes or model is None or options["kind"] != "parametric":
        return None
    if "rank" in changes:
        changes["alpha"] = 2 * changes["rank"]
    return replace(usual_training(model), **changes)


def _told(reference: str, built: Built, compared: str | None) -> Answer:
    build, made = built.build, built.made
    value = {
        "reference": reference,
        "digest": str(build.digest),
        "cube": str(build.subject.digest),
        "memory": build.memory.to_json(),
        "made": made.to_json(),
        "size": sum(file.size for file in build.files),
        "notes": list(built.notes),
        "compared": compared,
    }
    lines = [
        f"Built {build.memory.id} ({build.memory.kind}) of {reference}",
        *(f"  {note}" for note in built.notes),
        *table_of(made),
        *([f"Compared with what was claimed: {compared}"] if compared else []),
        f"Digest: {build.digest}",
        f"Next: memcube push {reference} --builds",
    ]
    return Answer(value, "\n".join(lines), str(build.digest))


def table_of(made: Made) -> list[str]:
    """What was measured, as people read it."""
    found = made.evaluation
    if found is None:
        return []
    held = f", {found.held_out} of them never taught" if found.held_out else ""
    source = "–" if found.source is None else f"{found.source} of {found.asked}"
    rows = [
        ("", "without it", "with it", "with its source"),
        (
            f"right answers{held}",
            f"{found.without} of {found.asked}",
            f"{found.with_memory} of {found.asked}",
            source,
        ),
    ]
    if found.perplexity:
        before, after = found.perplexity
        change = f"{after:g} ({after / before - 1:+.1%})"
        rows.append(("perplexity of unrelated text", f"{before:g}", change, "–"))
    return table_text(rows).splitlines()
