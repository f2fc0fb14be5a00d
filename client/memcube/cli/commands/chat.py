"""`memcube chat`: a look at what a model makes of mounted memories."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from memcube_protocol.errors import MemcubeError

from memcube.cli.answer import Answer, Mode, print_problem, sanitised
from memcube.cli.command import command
from memcube.cli.mount_options import MountOptions, fit_options, mount_options
from memcube.cli.options import Number, open_client
from memcube.figures import table_text

if TYPE_CHECKING:
    from memcube.mounting import MountedMemory
    from memcube.mounting.chat import Conversation
    from memcube.mounting.choosing import Asked

_HELP: Final = """\
/context        show the records that were given with the last question
/memory         show what is mounted
/new            begin a new conversation
/remember TEXT  keep TEXT in the overlay
/quit           end; so does Ctrl-D
Ctrl-C stops an answer."""


@command(
    "chat",
    "memcube chat alice/notes --model ./Qwen3-0.6B",
    'echo "Which backups are there?" | memcube chat alice/notes --model ./Qwen3-0.6B',
)
@click.argument("references", nargs=-1, metavar="[REFERENCE…]")
@mount_options()
@click.option("--model", required=True, metavar="FOLDER", help="The model in this folder.")
@fit_options
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    help="Length of an answer. Default: 512, or half of what the model reads.",
)
@click.option(
    "--temperature",
    type=Number(0, 5),
    help="Draw words by chance; 0, or left out: never.",
)
def chat(
    wanted: MountOptions,
    *,
    fit: Asked,
    model: str,
    max_new_tokens: int | None,
    temperature: float | None,
) -> Answer:
    """Talk with a model that has the memories of cubes, or of a profile's: adapters, KV cache and records.

    On a terminal, /help lists the commands. From a pipe, each line is a question; answers are
    printed one after another, or with --json as one object at the end.
    """
    from memcube.memories.checkpoint import load_checkpoint
    from memcube.mounting.chat import Conversation

    wanted.require_something()
    loaded, tokenizer = load_checkpoint(Path(model))
    options = {"do_sample": True, "temperature": temperature} if temperature else {}
    on: Any = {"model": loaded, "tokenizer": tokenizer, **wanted.asked, **fit}
    with open_client(offline=wanted.offline) as client:
        memory = client.mount(wanted.cubes, overlay=wanted.overlay, **on)
    # The client's progress bars are gone by now: the terminal belongs to the dialogue.
    mode = click.get_current_context().find_object(Mode) or Mode()
    with memory:
        talk = Conversation(
            memory, loaded, tokenizer, max_new_tokens=max_new_tokens, options=options
        )
        Dialogue(memory, talk, mode).run()
        value = {
            "memories": [
                {"step": step, "kind": kind, "memory": name, "why": why}
                for step, kind, name, why in _rows(memory)
            ],
            "turns": [{"question": turn.question, "answer": turn.answer} for turn in talk.turns],
        }
    return Answer(value, "")


class Dialogue:
    """Questions from the input, answers to the output, until there are no more."""

    def __init__(self, memory: MountedMemory, talk: Conversation, mode: Mode) -> None:
        self._memory = memory
        self._talk = talk
        self._mode = mode
        self._interactive = sys.stdin.isatty() and sys.stdout.isatty() and not mode.as_json

    def run(self) -> None:
        """Until /quit or the end of the input."""
        if self._interactive and not self._mode.quiet:
            _say(f"{table_text(_rows(self._memory))}\n")
            without = (
                "" if self._talk.has_template else "No chat template: each question stands alone. "
            )
            _say(f"{without}/help lists the commands.\n")
        for line in self._lines():
            if line == "/quit":
                return
            if line.startswith("/") and self._interactive:
                self._obey(line)
            elif line:
                self._answer(line)

    def _lines(self) -> Iterator[str]:
        if not self._interactive:
            yield from map(str.strip, sys.stdin)
            return
        with suppress(ImportError):
            import readline  # noqa: F401 - loaded, it lets lines be edited and called back
        while True:
            try:
                yield input("> ").strip()
            except EOFError:
                _say("\n")
                return
            except KeyboardInterrupt:
                _say("\n/quit or Ctrl-D ends.\n")

    def _answer(self, question: str) -> None:
        """Say the answer; an interrupted one, or one that fails, leaves the dialogue as it was.

        Raises:
            MemcubeError: it fails, and nobody is there to ask something else.
            KeyboardInterrupt: it was interrupted, and nobody is there.
        """
        try:
            self._talk.ask(question, _unheard if self._mode.as_json else _say)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            _say("\n(stopped)")
        except MemcubeError as error:
            if not self._interactive:
                raise
            print_problem(error, Mode())
        if not self._mode.as_json:
            _say("\n")

    def _obey(self, line: str) -> None:
        word, _, text = line.partition(" ")
        if line == "/new":
            self._talk.forget()
        elif word == "/remember":
            self._remember(text.strip())
        elif line == "/context":
            _say(f"{self._talk.context or '(no records)'}\n")
        elif line == "/memory":
            _say(f"{table_text(_rows(self._memory))}\n")
        else:
            _say(f"{_HELP}\n")

    def _remember(self, text: str) -> None:
        try:
            record = self._memory.remember(text)
        except MemcubeError as error:
            print_problem(error, Mode())
        else:
            _say(f"kept as {record.id}\n")


def _rows(memory: MountedMemory) -> list[tuple[str, str, str, str]]:
    return [(str(step.step), step.kind, step.memory, step.why) for step in memory.steps]


def _say(text: str) -> None:
    sys.stdout.write(sanitised(text))
    sys.stdout.flush()


def _unheard(_: str) -> None:
    """Nobody listens: the answers are told at the end."""
