"""What happens in each round of a run: it follows from the seed, the profile and the round's number.

How far a client comes before a kill, and which of two requests is first, is left to the machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from chaos.contents import KIB


class Profile(StrEnum):
    """What the registry runs on."""

    SQLITE = "sqlite-files"
    POSTGRES = "postgres-s3"


class Fault(StrEnum):
    """What the monkey does."""

    WORKER = "registry worker"
    PARENT = "registry parent"
    REGISTRY = "whole registry"
    DATABASE = "PostgreSQL"
    STORE = "S3 server"
    CLIENT = "client"
    DISK = "full disk"
    CLOCK = "moved clock"

    @property
    def is_kill(self) -> bool:
        return self not in (Fault.DISK, Fault.CLOCK)


@dataclass(frozen=True)
class Strike:
    """A fault `at_s` seconds after the round began, that lasts `lasts_s`; `choice` picks the victim.

    `shift_s` is by how much the clock moves.
    """

    at_s: float
    fault: Fault
    choice: int = 0
    lasts_s: float = 0.0
    shift_s: int = 0


@dataclass(frozen=True)
class Action:
    """Something that a client does in one or several requests."""

    kind: str
    repository: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CubeCommand:
    """One `memcube` process; killed `kill_after_s` after its start where that is not None."""

    words: tuple[str, ...]
    version: str = ""
    kill_after_s: float | None = None


@dataclass(frozen=True)
class Round:
    """`grace_s` and whether the clock is moved decide what may vanish by garbage collection."""

    number: int
    lasts_s: float
    grace_s: int
    strikes: tuple[Strike, ...]
    scripts: tuple[tuple[Action, ...], ...]
    cubes: tuple[tuple[CubeCommand, ...], ...]
    sweeps: bool
    """Whether everything that nothing refers to is collected after the check."""

    @property
    def moves_clock(self) -> bool:
        return any(strike.fault is Fault.CLOCK for strike in self.strikes)

    @property
    def may_collect(self) -> bool:
        """Whether unused content may be collected while the round runs."""
        return self.grace_s < LONG_GRACE_S or self.moves_clock


LONG_GRACE_S = 100_000
"""Longer than any run: nothing is collected."""
SHORT_GRACE_S = 1
REPOSITORIES = ("ada/one", "ada/two", "bob/three")
PUBLIC = "ada/one"
CUBE_ACCOUNTS = ("carol", "dave")
"""Each publishes its own cubes, with a key of its own."""
SHARED_BLOBS = 10
MOVING_TAGS = 3
VERSIONS = 4
_CLOCK_SHIFTS_S = (-36 * 3600, -600, 7200, 36 * 3600)
_ACTIONS = {
    "push": 26,
    "keep": 7,
    "release": 6,
    "retag": 8,
    "delete_tag": 5,
    "delete_manifest": 5,
    "delete_blob": 5,
    "mount": 8,
    "pull": 14,
    "pull_range": 5,
    "refer": 6,
    "index": 4,
    "log": 8,
    "abandon": 4,
    "hang_up": 4,
    "cancel": 2,
}
UPLOADS = {
    Profile.SQLITE: ("monolithic", "post_put", "chunked", "resumed", "streamed"),
    Profile.POSTGRES: ("monolithic", "post_put", "chunked", "resumed", "streamed", "direct"),
}
"""How blobs are sent; `direct`: into the store, past the registry."""


@dataclass(frozen=True)
class Size:
    """How much happens in a round."""

    clients: int = 6
    actions: int = 80
    cube_clients: int = 2
    lasts_s: float = 15.0
    worker_kills: int = 5
    client_kills: int = 8


FULL = Size()
SMALL = Size(clients=3, actions=30, cube_clients=1, lasts_s=4.0, worker_kills=1, client_kills=1)


def plan_round(seed: int, profile: Profile, number: int, size: Size = FULL) -> Round:
    """The round `number`, counted from 0."""
    chance = random.Random(f"{seed}/{profile}/{number}")
    return Round(
        number=number,
        lasts_s=size.lasts_s,
        grace_s=chance.choice((LONG_GRACE_S, SHORT_GRACE_S)),
        strikes=_strikes(chance, profile, number, size),
        scripts=tuple(
            _script(chance, profile, number, client, size) for client in range(size.clients)
        ),
        cubes=_cube_scripts(chance, number, size),
        sweeps=number % 3 == 2,
    )


def _strikes(
    chance: random.Random, profile: Profile, number: int, size: Size
) -> tuple[Strike, ...]:
    def some(fault: Fault, count: int = 1, **more: Any) -> list[Strike]:
        return [
            Strike(_at(chance, size), fault, chance.randrange(1000), **more) for _ in range(count)
        ]

    def lasting(low: float, high: float) -> float:
        return round(chance.uniform(low, high), 2)

    found = some(Fault.WORKER, size.worker_kills)
    if number % 3 != 1:  # else the same registry works all through the round
        for fault in (Fault.PARENT, Fault.REGISTRY):
            found += some(fault, lasts_s=lasting(0, 0.5))
    if profile is Profile.POSTGRES:
        for fault in (Fault.DATABASE, Fault.STORE):
            found += some(fault, lasts_s=lasting(0, 1.5))
    elif number % 4 == 1:
        found += some(Fault.DISK, lasts_s=lasting(0.5, 2.5))
    if number % 4 == 3:
        found += some(Fault.CLOCK, lasts_s=lasting(1, 3), shift_s=chance.choice(_CLOCK_SHIFTS_S))
    # The end of a round is the hardest: nothing that was under way comes to its end.
    last = Strike(size.lasts_s, Fault.REGISTRY, choice=-1)
    return (*sorted(found, key=lambda strike: strike.at_s), last)


def _at(chance: random.Random, size: Size) -> float:
    return round(chance.uniform(0.3, size.lasts_s - 0.3), 2)


def _script(
    chance: random.Random, profile: Profile, number: int, client: int, size: Size
) -> tuple[Action, ...]:
    kinds = chance.choices(list(_ACTIONS), list(_ACTIONS.values()), k=size.actions)
    return tuple(
        Action(
            kind, chance.choice(REPOSITORIES), _arguments(chance, profile, kind, number, client, at)
        )
        for at, kind in enumerate(kinds)
    )


def _arguments(
    chance: random.Random, profile: Profile, kind: str, number: int, client: int, at: int
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": f"{number}.{client}.{at}",
        "size": _size(chance),
        "shared": chance.randrange(SHARED_BLOBS),
        "how": chance.choice(UPLOADS[profile]),
        "again": chance.random() < 0.5,
    }
    for name, value in _SPECIAL.get(kind, lambda _: {})(chance).items():
        found[name] = value
    return found


_SPECIAL: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "push": lambda chance: {"tag": _moving(chance) if chance.random() < 0.7 else None},
    "release": lambda chance: {"tag": f"1.{chance.randrange(VERSIONS)}.0"},
    "retag": lambda chance: {"tag": _moving(chance), "back": chance.randrange(8)},
    "delete_tag": lambda chance: {
        "tag": _moving(chance) if chance.random() < 0.7 else f"1.{chance.randrange(VERSIONS)}.0"
    },
    "delete_manifest": lambda chance: {"back": chance.randrange(8)},
    "mount": lambda chance: {"source": chance.choice(REPOSITORIES)},
    "pull": lambda chance: {"tag": _moving(chance)},
    "pull_range": lambda chance: {"share": chance.random()},
}


def _moving(chance: random.Random) -> str:
    return f"moving-{chance.randrange(MOVING_TAGS)}"


def _size(chance: random.Random) -> int:
    """Mostly small; some are large enough that a kill meets them under way."""
    if chance.random() < 0.1:
        return chance.randrange(1024 * KIB, 5 * 1024 * KIB)
    return chance.randrange(64, 64 * KIB)


def _cube_scripts(
    chance: random.Random, number: int, size: Size
) -> tuple[tuple[CubeCommand, ...], ...]:
    """Each client publishes a version and pulls another's; the first commands are killed."""
    scripts = []
    for client in range(size.cube_clients):
        kills = size.client_kills // size.cube_clients + (
            client < size.client_kills % size.cube_clients
        )
        version = f"1.{number}.0"
        commands = [
            CubeCommand((word,), version, round(chance.uniform(0.3, 2.0), 2))
            for word in chance.choices(("push", "pull"), (3, 1), k=kills)
        ]
        commands += [CubeCommand(("push",), version), CubeCommand(("pull",), version)]
        scripts.append(tuple(commands))
    return tuple(scripts)
