"""What an agent remembers itself, beside the read-only cubes that are mounted: a cube folder of its own.

    with Overlay.open("my-notes", agent="assistant") as overlay:
        overlay.remember("Ada moved the server to Debian 13.", tags=["server"])
        overlay.search("Which Debian?")

`memcube push my-notes` publishes it like any other folder (docs/spec/folder.md).
"""

from memcube.overlay.overlay import Overlay

__all__ = ["Overlay"]
