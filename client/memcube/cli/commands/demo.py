"""`memcube demo`: the whole journey of a cube on this machine."""

from __future__ import annotations

from memcube.cli.command import command


@command("demo", "memcube demo")
def demo() -> object:
    """Publish, sign, pull, verify and mount a cube on this machine, and break one on purpose.

    Needs the optional parts: pip install 'memcube[registry,torch,plaintext]'.
    """
    from memcube.demo.journey import run

    return run()
