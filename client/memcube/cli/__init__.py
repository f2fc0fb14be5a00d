"""The command line: `memcube`. Commands are loaded when they are used, so that `--help` is instant."""

from __future__ import annotations

import gc

__all__ = ["main"]

_COLLECT_EVERY = 50_000
"""New objects between two searches for garbage: what is loaded stays, and looking through it takes a twentieth of a push."""

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than all that is needed here

if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """The process: never returns.

    A Ctrl-C while its code is still being loaded ends it as one does later, and shows no traceback.
    """
    gc.set_threshold(_COLLECT_EVERY)
    try:
        from memcube.cli import run
    except KeyboardInterrupt:
        import os

        os.write(2, b"interrupted\n")
        os._exit(130)
    run.main()
