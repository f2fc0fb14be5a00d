"""`memcube.toml`: what a person writes about a cube before it is packed (docs/spec/folder.md).

name = "alice/notes"
version = "1.0.0"
title = "Notes on the Python language"

[governance]
licence = "CC-BY-4.0"

[memories.plaintext]
title = "Facts and procedures"
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import datetime
from typing import Any, Final

from memcube_protocol import limits
from memcube_protocol.config import CubeConfig, Lineage, Memory
from memcube_protocol.errors import InvalidConfigError
from memcube_protocol.fields import Fields, snake_case
from memcube_protocol.governance import Descriptive, Governance
from memcube_protocol.reference import is_name, tag_of_version
from memcube_protocol.values import frozen

FILE_NAME: Final = "memcube.toml"


@frozen
class Draft:
    """A cube's config without its memories.

    `titles` are those of memories by id; `ignore` holds patterns (as in `fnmatch`) of paths that
    stay out of the cube. `created_at` is None where the packer decides.
    """

    name: str
    version: str
    created_at: datetime | None = None
    title: str | None = None
    summary: str | None = None
    descriptive: Descriptive = field(default_factory=Descriptive)
    governance: Governance = field(default_factory=Governance)
    lineage: Lineage = field(default_factory=Lineage)
    titles: Mapping[str, str] = field(default_factory=dict[str, str])
    ignore: tuple[str, ...] = ()
    extensions: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def parse(cls, content: bytes) -> Draft:
        """Draft written in `memcube.toml`.

        Raises:
            InvalidConfigError: not TOML in UTF-8, or a field is unknown, missing or out of bounds.
            LimitExceededError: more than 1 MiB.
        """
        limits.require_at_most(FILE_NAME, len(content), limits.CONFIG_BYTES)
        try:
            value = tomllib.loads(content.decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise InvalidConfigError(
                f"{FILE_NAME} is not TOML: {error}", hint="see docs/spec/folder.md"
            ) from None
        return cls._read(Fields(value, FILE_NAME, spelling=snake_case))

    @classmethod
    def _read(cls, fields: Fields) -> Draft:
        draft = cls(
            name=_name(fields),
            version=_version(fields),
            created_at=fields.moment("createdAt"),
            title=fields.optional_text("title"),
            summary=fields.optional_text("summary", chars=2000),
            descriptive=Descriptive.from_fields(fields.table("descriptive")),
            governance=Governance.from_fields(fields.table("governance")),
            lineage=Lineage.from_fields(fields.table("lineage")),
            titles=_titles(fields),
            ignore=fields.texts("ignore", count=1000, chars=limits.PATH_BYTES),
            extensions=fields.object("extensions"),
        )
        fields.finish()
        return draft

    def config(self, memories: Iterable[Memory], created_at: datetime) -> CubeConfig:
        """The config of a cube with these memories; `created_at` gives way to the draft's own.

        Raises:
            InvalidConfigError: a title is given to a memory that the cube does not have.
        """
        memories = tuple(memories)
        for memory_id in self.titles.keys() - {memory.id for memory in memories}:
            raise InvalidConfigError(
                f"{FILE_NAME} gives a title to the memory {memory_id!r}, which the folder lacks",
                hint="memories are named after their folders; `plaintext` holds all records",
            )
        return CubeConfig(
            self.name,
            self.version,
            self.created_at or created_at,
            self.title,
            self.summary,
            self.descriptive,
            self.governance,
            self.lineage,
            memories,
            self.extensions,
        )


def _name(fields: Fields) -> str:
    name = fields.text("name", chars=limits.NAME_CHARS)
    if not is_name(name):
        raise fields.refuse(
            "name", f"is {name[:80]!r}, not a name such as alice/notes (lower case, no spaces)"
        )
    return name


def _version(fields: Fields) -> str:
    version = fields.text("version", chars=limits.TAG_CHARS)
    tag_of_version(version)
    return version


def _titles(fields: Fields) -> dict[str, str]:
    titles: dict[str, str] = {}
    for memory_id, value in fields.object("memories").items():
        memory = Fields(value, f"memories.{memory_id} of {FILE_NAME}", spelling=snake_case)
        title = memory.optional_text("title")
        memory.finish()
        if title:
            titles[memory_id] = title
    return titles
