"""What a command answers and how it is printed: for people, as JSON, or as one quiet line."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TextIO

from memcube_protocol.errors import MemcubeError, outcome_of
from memcube_protocol.values import frozen

_BIDI_CONTROLS: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


@frozen
class Mode:
    """How to print: `as_json` is stable for programs, `quiet` prints only what matters most."""

    as_json: bool = False
    quiet: bool = False

    @classmethod
    def of_arguments(cls, arguments: Sequence[str]) -> Mode:
        """Mode that the options before any `--` ask for, known before a command is parsed."""
        options = arguments[: arguments.index("--")] if "--" in arguments else arguments
        quiet = "--quiet" in options or "-q" in options
        return cls(as_json="--json" in options, quiet=quiet)


@frozen
class Answer:
    """The result of a command.

    `value` is its stable JSON; `text` what people read; `quiet` the line of `--quiet`: a digest
    where there is one. `exit_code` is for commands whose answer is itself a verdict.
    """

    value: Mapping[str, Any]
    text: str
    quiet: str = ""
    exit_code: int = 0


def print_answer(answer: Answer, mode: Mode) -> None:
    """Write `answer` to stdout in `mode`."""
    if mode.as_json:
        sys.stdout.write(json.dumps(answer.value, indent=2, sort_keys=True) + "\n")
    elif mode.quiet:
        sys.stdout.write(f"{sanitised(answer.quiet)}\n" if answer.quiet else "")
    elif answer.text:
        sys.stdout.write(sanitised(answer.text).rstrip("\n") + "\n")


def print_problem(error: MemcubeError, mode: Mode, *, stream: TextIO | None = None) -> int:
    """Write `error` and its hint to stderr, in JSON mode as a problem (RFC 9457) to stdout.

    Where stdout takes nothing any more, a problem is told on stderr; where neither does, the exit
    code alone tells.

    Returns:
        The exit code of the error.
    """
    outcome = outcome_of(error)
    if mode.as_json and _was_told(problem_of(error)):
        return outcome.exit_code
    hint = f"\n\nhint: {error.hint}" if error.hint else ""
    with suppress(OSError):
        (stream or sys.stderr).write(sanitised(f"error: {error}{hint}") + "\n")
    return outcome.exit_code


def discard_output() -> None:
    """Send the rest of stdout nowhere, which the interpreter would flush at exit, and fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _was_told(problem: Mapping[str, Any]) -> bool:
    """Whether stdout took `problem`."""
    try:
        sys.stdout.write(json.dumps(problem, indent=2, sort_keys=True) + "\n")
        sys.stdout.flush()
    except OSError:
        discard_output()
        return False
    return True


def problem_of(error: MemcubeError) -> dict[str, Any]:
    """`error` as problem details (RFC 9457), with its stable code, hint and exit code."""
    outcome = outcome_of(error)
    return {
        "type": f"urn:memcube:error:{error.code}",
        "title": (type(error).__doc__ or "").partition("\n")[0],
        "status": outcome.http_status,
        "detail": str(error),
        "code": error.code,
        "hint": error.hint,
        "exitCode": outcome.exit_code,
    }


def sanitised(text: str) -> str:
    """`text` without what could steer a terminal or hide words: a cube's text is not ours."""
    return "".join(char if _is_harmless(char) else "\ufffd" for char in text)


def _is_harmless(char: str) -> bool:
    if char in "\n\t":
        return True
    return char not in _BIDI_CONTROLS and unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")
