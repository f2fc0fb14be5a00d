"""From the process's arguments to its exit code: runs a command, prints its answer or its error."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

import click
from memcube_protocol.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    DiskFullError,
    MemcubeError,
    ReadOnlyError,
    StorageError,
    WrongUsageError,
)

from memcube.cli.answer import Answer, Mode, discard_output, print_answer, print_problem
from memcube.cli.table import LazyGroup

DEBUG_VARIABLE: Final = "MEMCUBE_DEBUG"
_CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main() -> NoReturn:
    """The process: never returns."""
    open_closed_streams()
    code = run(sys.argv[1:])
    # The interpreter's last search for garbage would take a seventh of a short command's time.
    gc.freeze()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and say the exit code (docs/guide/cli.md lists them)."""
    mode = Mode.of_arguments(arguments)
    try:
        answer = group().main(list(arguments), prog_name="memcube", standalone_mode=False, obj=mode)
        if isinstance(answer, Answer):
            print_answer(answer, mode)
        sys.stdout.flush()
    except click.UsageError as error:
        return _usage(error, mode)
    except MemcubeError as error:
        return print_problem(error, mode)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who reads the output has seen enough: nothing more to say, also not at exit.
        discard_output()
        return EXIT_ERROR
    except OSError as error:
        return print_problem(storage_error(error), mode)
    except Exception as error:
        return _unexpected(error, mode)
    if isinstance(answer, Answer):
        return answer.exit_code
    return answer if isinstance(answer, int) else EXIT_OK


def open_closed_streams() -> None:
    """Open the null device for each standard stream that the caller closed (`memcube … 2>&-`).

    Else the first file that a command opens would take the stream's number, and get its output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8")
            setattr(sys, name, stream)


def group() -> click.Group:
    """The command `memcube` with all its commands, none of them loaded."""
    return LazyGroup(
        name="memcube",
        help="Publish, sign, verify and mount memory for language models.",
        epilog="Every command explains itself: memcube push --help. Errors end with a hint.",
        context_settings=_CONTEXT,
    )


def storage_error(error: OSError) -> StorageError:
    """What the operating system's `error` means for a user."""
    where = f" ({error.filename})" if error.filename else ""
    text = f"{error.strerror or error}{where}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(text, hint="free some space, for example with: memcube prune")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ReadOnlyError(text, hint="check the permissions, or set MEMCUBE_HOME elsewhere")
    return StorageError(text, hint="check the path and the disk")


def _usage(error: click.UsageError, mode: Mode) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and not mode.as_json:
        sys.stderr.write(f"{error.format_message()}\n")
        return EXIT_USAGE
    path = error.ctx.command_path if error.ctx else "memcube"
    return print_problem(
        WrongUsageError(error.format_message(), hint=f"{path} --help shows how it is used"), mode
    )


def _unexpected(error: Exception, mode: Mode) -> int:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
    problem = MemcubeError(
        f"unexpected {type(error).__name__}: {error}",
        hint=f"this is a defect of memcube; {DEBUG_VARIABLE}=1 shows where",
    )
    return print_problem(problem, mode)
