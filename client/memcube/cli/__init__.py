"""The command line: `memcube`. Commands are loaded when they are used, so that `--help` is instant."""

from memcube.cli.run import main

__all__ = ["main"]
