"""Opening the desk: the cubes mounted as their own rules allow, and the overlay beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Unpack

from memcube.client import Client
from memcube.mcp.desk import Desk
from memcube.mounting.choosing import Asked, Names
from memcube.overlay import Overlay

ELSEWHERE: Final = ("the machine of the agent's model",)
"""Where content goes that an agent reads, as far as anybody here knows."""


@contextmanager
def open_desk(
    client: Client,
    references: Names = (),
    *,
    overlay: Path | None = None,
    model_is_here: bool = False,
    **asked: Unpack[Asked],
) -> Iterator[Desk]:
    """The desk over the cubes `references`, or those of a mount profile, and the folder `overlay`.

    What else may be asked of the mount: `mounting.Asked`.

    `model_is_here`: the agent's model runs on this machine, so that nothing leaves it.

    Raises:
        RuleRefusedError: a cube's own rules forbid it, such as that its content stays here.
        MemcubeError: whatever mounting raises.
    """
    own = Overlay.open(overlay, store=client.context.store) if overlay else None
    asked["leaves_to"] = () if model_is_here else ELSEWHERE
    with client.mount(references, overlay=own, **asked) as memory:
        yield Desk(memory, own)
