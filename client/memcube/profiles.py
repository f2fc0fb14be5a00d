"""Named mount profiles: which cubes a person mounts in one of their roles, and how (config.toml).

    [profile.work]
    cubes = ["acme/handbook:2", { cube = "alice/notes", priority = 3, filters = ["kind=plaintext"] }]
    budget_tokens = 800
    sensitivity = "internal"
    use = ["commercial"]

A cube that no profile names is never mounted by one: roles do not see each other's memories.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Self

from memcube_protocol.errors import InvalidError, InvalidSettingError
from memcube_protocol.fields import Fields, snake_case
from memcube_protocol.governance import SENSITIVITIES, USES
from memcube_protocol.reference import Reference
from memcube_protocol.selection import Selection
from memcube_protocol.values import frozen

PROFILES: Final = 256
CUBES: Final = 256
BUDGET_TOKENS: Final = 10_000_000
MOST_PRIORITY: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_USE: Final = re.compile("|".join(USES))


@frozen
class ProfileCube:
    """One cube of a profile. `priority` is its share among them, 1 to 100; None: by its publisher's word.

    `filters` are written as for `--filter`; the profile's are used where a cube has none.
    """

    reference: Reference
    priority: int | None = None
    filters: tuple[str, ...] = ()


@frozen
class Profile:
    """A role's memories, in the order in which the user wrote them.

    `budget_tokens` is what all of them may take in a prompt. `sensitivity` is the highest that is
    mounted and `uses` what for; None: as the settings say.
    """

    name: str
    cubes: tuple[ProfileCube, ...]
    budget_tokens: int | None = None
    sensitivity: str | None = None
    uses: frozenset[str] | None = None

    @classmethod
    def from_table(cls, name: str, table: object) -> Self:
        """The profile `name` that a table of config.toml describes.

        Raises:
            InvalidSettingError: names the field that is unknown, missing or wrong.
        """
        what = f"profile.{name[:80]}"
        try:
            if not _NAME.fullmatch(name):
                raise InvalidError("its name is not one of letters, digits, - and _")
            return cls._read(name, Fields(table, what, spelling=snake_case))
        except InvalidSettingError:
            raise
        except InvalidError as error:
            raise InvalidSettingError(
                f"setting {what!r} is refused: {error}",
                hint="docs/guide/mount-profiles.md shows a profile with every field",
            ) from None

    @classmethod
    def _read(cls, name: str, fields: Fields) -> Self:
        filters = _filters(fields)
        cubes = _cubes(fields, filters)
        profile = cls(
            name,
            cubes,
            fields.integer("budgetTokens", least=1, most=BUDGET_TOKENS),
            fields.choice("sensitivity", SENSITIVITIES, "") if fields.has("sensitivity") else None,
            frozenset(fields.texts("use", pattern=_USE)) if fields.has("use") else None,
        )
        fields.finish()
        return profile


def profiles_of(value: object) -> dict[str, Profile]:
    """The profiles below `[profile.…]` in config.toml, by name.

    Raises:
        InvalidSettingError: one of them is wrong.
    """
    if not isinstance(value, Mapping) or len(value) > PROFILES:
        raise InvalidSettingError(
            f"setting 'profile' is refused: it is not up to {PROFILES} tables [profile.NAME]",
            hint="docs/guide/mount-profiles.md shows a profile with every field",
        )
    return {str(name): Profile.from_table(str(name), table) for name, table in value.items()}


def _cubes(fields: Fields, filters: tuple[str, ...]) -> tuple[ProfileCube, ...]:
    entries: Any = fields.take("cubes")
    if not isinstance(entries, list) or not 1 <= len(entries) <= CUBES:
        raise fields.refuse("cubes", f"is not a list of 1 to {CUBES} cubes")
    cubes = tuple(_cube(entry, f"cubes of {fields.what}", filters) for entry in entries)
    if len({cube.reference for cube in cubes}) != len(cubes):
        raise fields.refuse("cubes", "names a cube twice")
    return cubes


def _cube(entry: object, what: str, filters: tuple[str, ...]) -> ProfileCube:
    if isinstance(entry, str):
        return ProfileCube(Reference.parse(entry), filters=filters)
    fields = Fields(entry, what, spelling=snake_case)
    cube = ProfileCube(
        Reference.parse(fields.text("cube", chars=1024)),
        fields.integer("priority", least=1, most=MOST_PRIORITY),
        _filters(fields) or filters,
    )
    fields.finish()
    return cube


def _filters(fields: Fields) -> tuple[str, ...]:
    filters = fields.texts("filters", chars=500)
    Selection.parse(filters)
    return filters
