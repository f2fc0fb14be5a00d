"""`memcube version`: the versions of memcube and its formats."""

from __future__ import annotations

import platform

from memcube.cli.answer import Answer
from memcube.cli.command import command


@command("version", "memcube version", "memcube version --json")
def version() -> Answer:
    """Print the versions of memcube, of the protocol it speaks and of Python."""
    from memcube_protocol.config import MIP_VERSION

    from memcube.version import VERSION

    python = platform.python_version()
    value = {"memcube": VERSION, "mip": MIP_VERSION, "python": python}
    return Answer(value, f"memcube {VERSION} (MIP {MIP_VERSION}, Python {python})", VERSION)
