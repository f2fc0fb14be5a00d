"""`memcube dump`: write a KV cache or an adapter into a cube folder, with how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command

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
    inputs: tuple[Path, ...],
) -> Answer:
    """Write the memory MEMORY into the cube folder FOLDER: a KV cache of a text or a chat, or an adapter.

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
    from memcube.memories.checkpoint import load_checkpoint
    from memcube.memories.model_identity import checkpoint_identity
    from memcube.settings import Settings
    from memcube.store.checks import CHECKS_FILE, FileChecks

    checks = FileChecks(Settings.load().home / CHECKS_FILE)
    dumper = MemDumper(folder)
    if adapter:
        path = dumper.add_lora(
            adapter,
            memory_id=memory,
            base_identity=checkpoint_identity(model, checks=checks) if model else None,
            inputs={given.name: given for given in inputs},
        )
    else:
        assert model
        prompt = _prompt(text, chat)
        path = dumper.add_kv(
            *load_checkpoint(model), memory_id=memory, keep_text=not without_text, **prompt
        )
    kind = "adapter" if adapter else "KV cache"
    return Answer(
        {"memory": memory, "path": str(path)},
        f"Dumped the {kind} {memory} into {path}\nNext: memcube push {folder}",
        str(path),
    )


def _prompt(text: Path | None, chat: Path | None) -> dict[str, Any]:
    """What the KV cache is computed of, as `dump_kv` takes it."""
    if text:
        return {"text": text.read_text("utf-8")}
    assert chat
    from memcube_protocol import canonical_json

    return {"messages": canonical_json.parse(chat.read_bytes(), what=chat.name)}
