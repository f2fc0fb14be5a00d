"""What became of each memory of the mounted cubes."""

from __future__ import annotations

from enum import StrEnum

from memcube_protocol.values import frozen


class Step(StrEnum):
    """What became of one memory.

    Of a KV cache the source text may serve instead: `rebuilt`, read by the model now; `prefix`, before
    every prompt; `text`, looked up.
    """

    MOUNTED = "mounted"
    REBUILT = "rebuilt"
    PREFIX = "prefix"
    TEXT = "text"
    REFUSED = "refused"
    SKIPPED = "skipped"


@frozen
class MountStep:
    """What became of one memory of `cube` (its reference's text), and why."""

    memory: str
    kind: str
    step: Step
    why: str
    cube: str
