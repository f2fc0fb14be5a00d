"""`memcube dump`: write a KV cache or an adapter into a cube folder, with how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command

_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@command(
    "dump",
    "memcube dump my-cube handbook --model ./Qwen3-0.6B --text handbook.md",
    "memcube dump my-cube style --adapter ./style-lora --model ./Qwen3-0.6B --input train.jsonl",
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("memory")
@click.option("--text", type=_FILE, metavar="FILE", help="Compute the KV cache of this text.")
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
    adapter: Path | None,
    model: Path | None,
    without_text: bool,
    inputs: tuple[Path, ...],
) -> Answer:
    """Write the memory MEMORY into the cube folder FOLDER: a KV cache of a text, or an adapter.

    What it was made from and with is recorded in it; `memcube push` signs that as build provenance,
    which `memcube provenance` shows.
    """
    if (text is None) == (adapter is None):
        raise click.UsageError("give either --text FILE or --adapter FOLDER")
    if text and (model is None or inputs):
        raise click.UsageError("--text wants --model FOLDER, and no --input: the text is the input")
    from memcube.dumper import MemDumper
    from memcube.memories.checkpoint import load_checkpoint
    from memcube.memories.model_identity import checkpoint_identity
    from memcube.settings import Settings
    from memcube.store.checks import CHECKS_FILE, FileChecks

    checks = FileChecks(Settings.load().home / CHECKS_FILE)
    dumper = MemDumper(folder)
    if text:
        assert model
        loaded, tokenizer = load_checkpoint(model)
        words = text.read_text("utf-8")
        path = dumper.add_kv(
            loaded, tokenizer, memory_id=memory, text=words, keep_text=not without_text
        )
    else:
        path = dumper.add_lora(
            adapter,
            memory_id=memory,
            base_identity=checkpoint_identity(model, checks=checks) if model else None,
            inputs={given.name: given for given in inputs},
        )
    kind = "KV cache" if text else "adapter"
    return Answer(
        {"memory": memory, "path": str(path)},
        f"Dumped the {kind} {memory} into {path}\nNext: memcube push {folder}",
        str(path),
    )
