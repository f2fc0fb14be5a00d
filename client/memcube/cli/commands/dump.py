"""`memcube dump`: write a KV cache or an adapter into a cube folder, with how it was made."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command

if TYPE_CHECKING:
    from memcube.dumper import MemDumper

_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@command(
    "dump",
    "memcube dump my-cube handbook --model ./Qwen3-0.6B --text handbook.md",
    "memcube dump my-cube monday --model ./Qwen3-0.6B --chat monday.json",
    "memcube dump my-cube style --adapter ./style-lora --model ./Qwen3-0.6B --input train.jsonl",
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("memory")
@click.option("--text", type=_FILE, metavar="FILE", help="Compute the KV cache of this text.")
@click.option(
    "--chat",
    type=_FILE,
    metavar="FILE",
    help="Compute the KV cache of this chat, a JSON list of messages, in the model's template.",
)
@click.option("--adapter", type=_FOLDER, metavar="FOLDER", help="Take this PEFT adapter.")
@click.option("--model", type=_FOLDER, metavar="FOLDER", help="The model, or the adapter's base.")
@click.option(
    "--without-text", is_flag=True, help="Keep only the digest of the text: the cache is opaque."
)
@click.option(
    "--control-tokens",
    is_flag=True,
    help="The text was written by a chat template: keep the model's control tokens in it.",
)
@click.option(
    "--model-alone",
    is_flag=True,
    help="Compute the KV cache without the adapters of FOLDER that fit the model.",
)
@click.option(
    "--input",
    "inputs",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="What the adapter was trained on, recorded by its digest; repeatable.",
)
def dump(
    folder: Path,
    memory: str,
    text: Path | None,
    chat: Path | None,
    adapter: Path | None,
    model: Path | None,
    without_text: bool,
    control_tokens: bool,
    model_alone: bool,
    inputs: tuple[Path, ...],
) -> Answer:
    """Write the memory MEMORY into the cube folder FOLDER: a KV cache of a text or a chat, or an adapter.

    A KV cache is computed under the adapters of FOLDER that fit the model, as a mount puts them on first.
    What it was made from and with is recorded in it; `memcube push` signs that as build provenance,
    which `memcube provenance` shows.
    """
    if sum(given is not None for given in (text, chat, adapter)) != 1:
        raise click.UsageError("give one of --text FILE, --chat FILE and --adapter FOLDER")
    if not adapter and (model is None or inputs):
        raise click.UsageError(
            "a KV cache wants --model FOLDER, and no --input: the text or chat is the input"
        )
    from memcube.dumper import MemDumper

    dumper = MemDumper(folder)
    notes: list[str] = []
    if adapter:
        path = _add_adapter(dumper, adapter, memory, model, inputs)
    else:
        assert model
        prompt = {**_prompt(text, chat), "keep_text": not without_text}
        prompt["control_tokens"] = control_tokens
        path = _add_cache(dumper, memory, model, prompt, notes, alone=model_alone)
    kind = "adapter" if adapter else "KV cache"
    told = (
        f"Dumped the {kind} {memory} into {path}",
        *(f"  {note}" for note in notes),
        f"Next: memcube push {folder}",
    )
    value = {"memory": memory, "path": str(path), "notes": notes}
    return Answer(value, "\n".join(told), str(path))


def _add_adapter(
    dumper: MemDumper, adapter: Path, memory: str, base: Path | None, inputs: tuple[Path, ...]
) -> Path:
    from memcube.memories.model_identity import checkpoint_identity
    from memcube.settings import Settings
    from memcube.store.checks import CHECKS_FILE, FileChecks

    checks = FileChecks(Settings.load().home / CHECKS_FILE)
    return dumper.add_lora(
        adapter,
        memory_id=memory,
        base_identity=checkpoint_identity(base, checks=checks) if base else None,
        inputs={given.name: given for given in inputs},
    )


def _add_cache(
    dumper: MemDumper,
    memory: str,
    checkpoint: Path,
    prompt: dict[str, Any],
    notes: list[str],
    *,
    alone: bool,
) -> Path:
    """The folder of a KV cache of `prompt`, made as a mount of this cube would use it; `notes` say how."""
    from memcube.memories.checkpoint import load_checkpoint
    from memcube.memories.known_identity import known_identity
    from memcube.memories.parametric.dump import FOLDER
    from memcube.memories.parametric.mount import mount_fitting

    model, tokenizer = load_checkpoint(checkpoint)
    base = known_identity(model)
    places = () if alone else sorted((dumper.folder / FOLDER).glob("[!.]*/"))
    folders = {place.name: partial(Path, place) for place in places}
    with ExitStack() as undo:
        mounted, passed_over = mount_fitting(folders, model, undo, base_identity=base)
        notes += [f"made under the adapter {name}" for name in mounted]
        notes += passed_over
        return dumper.add_kv(
            model,
            tokenizer,
            memory_id=memory,
            base_identity=base,
            cube_adapters=mounted,
            **prompt,
        )


def _prompt(text: Path | None, chat: Path | None) -> dict[str, Any]:
    """What the KV cache is computed of, as `dump_kv` takes it."""
    if text:
        return {"text": text.read_text("utf-8")}
    assert chat
    from memcube_protocol import canonical_json

    return {"messages": canonical_json.parse(chat.read_bytes(), what=chat.name)}
