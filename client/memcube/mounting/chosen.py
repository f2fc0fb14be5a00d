"""The cubes that somebody wants mounted, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from memcube_protocol import media_types
from memcube_protocol.config import PLAINTEXT, Memory
from memcube_protocol.cube import CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError
from memcube_protocol.selection import Selection
from memcube_protocol.values import frozen

from memcube.building.holding import HeldBuild
from memcube.consuming.verifying import Verified
from memcube.context import EVERYTHING

PRIORITIES: Final = {"low": 1, "normal": 2, "high": 3}
"""The priority of a cube by the word of its publisher, where the user gives none."""

MOST_PRIORITY: Final = 100


@frozen
class Chosen:
    """A verified cube to mount, those of its memories that `selection` wants.

    `priority` from 1 to 100 is its share of what is found; without one the word in its governance
    decides: low is 1, normal 2, high 3. `builds` are made from it, of which the store holds some.
    """

    verified: Verified
    priority: int | None = None
    selection: Selection = EVERYTHING
    builds: tuple[HeldBuild, ...] = ()

    def __post_init__(self) -> None:
        given = self.priority
        if given is not None and (type(given) is not int or not 1 <= given <= MOST_PRIORITY):
            raise InvalidError(
                f"a priority of {given!r} is none", hint=f"give 1 to {MOST_PRIORITY}"
            )

    @property
    def name(self) -> str:
        """The reference's text."""
        return str(self.verified.reference)

    @property
    def share(self) -> int:
        """The priority that holds."""
        return self.priority or PRIORITIES[self.verified.cube.config.governance.priority]

    def memories(self) -> tuple[Memory, ...]:
        """The memories that are wanted: the cube's own, then those of its builds."""
        own = self.selection.memories_of(self.verified.cube.config)
        built = tuple(one.build.memory for one in self.builds)
        return own + tuple(memory for memory in built if self.selection.wants(memory))

    def memory(self, memory_id: str) -> Memory:
        """The wanted memory of this id."""
        return next(memory for memory in self.memories() if memory.id == memory_id)

    def build_of(self, memory: Memory) -> HeldBuild | None:
        """The build that `memory` is of; None where it is the cube's own."""
        return next((one for one in self.builds if one.build.memory is memory), None)

    def is_spare(self, memory: Memory) -> bool:
        """Whether `memory` is a build of another memory that is wanted too: nobody lacks it then."""
        built = self.build_of(memory)
        made = built.build.made if built else None
        return any(made and made.recipe.source == one.id for one in self.memories())

    def files_of(self, memory: Memory) -> tuple[CubeFile, ...]:
        """The files of `memory` that a mount reads: of records, no attachments."""
        if built := self.build_of(memory):
            return built.build.files
        files = self.verified.cube.files_of(memory.id)
        if memory.kind != PLAINTEXT:
            return files
        return tuple(file for file in files if file.media_type != media_types.ATTACHMENT)


def in_order(cubes: Iterable[Chosen]) -> tuple[Chosen, ...]:
    """`cubes` by priority, then as they were named; one that is named twice counts where it is first."""
    distinct: dict[Digest, Chosen] = {}
    for chosen in cubes:
        distinct.setdefault(chosen.verified.cube.digest, chosen)
    return tuple(sorted(distinct.values(), key=lambda chosen: -chosen.share))
