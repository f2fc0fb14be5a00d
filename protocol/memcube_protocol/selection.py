"""Which files of a cube somebody wants: by kind, by memory, by the model they should fit.

Written `kind=plaintext,card`, `memory=facts`, `model=<name or base identity>`; several of one key
are alternatives, several keys must all agree. The card is always wanted: it says what one holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, Self

from memcube_protocol import media_types
from memcube_protocol.config import ACTIVATION, CUBE_MEMORY, KINDS, PLAINTEXT, CubeConfig, Memory
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.errors import InvalidRequestError, NotFoundError
from memcube_protocol.values import frozen

ATTACHMENT: Final = "attachment"
CARD: Final = "card"
FILTER_KINDS: Final = (*KINDS, ATTACHMENT, CARD)
_KEYS: Final = ("kind", "memory", "model")


@frozen
class Selection:
    """A choice of files; an empty set leaves its key open, an empty selection wants everything."""

    kinds: frozenset[str] = frozenset()
    memories: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """Selection written as `key=value[,value…]`, once or several times.

        Raises:
            InvalidRequestError: an unknown key or kind, or no value.
        """
        chosen: dict[str, set[str]] = defaultdict(set)
        for text in texts:
            key, equals, values = text.partition("=")
            names = [name.strip() for name in values.split(",") if name.strip()]
            if not equals or key not in _KEYS or not names:
                raise _invalid(f"{text[:100]!r} is not a filter")
            if key == "kind" and (unknown := set(names) - set(FILTER_KINDS)):
                raise _invalid(f"{min(unknown)[:60]!r} is no kind: {', '.join(FILTER_KINDS)}")
            chosen[key] |= set(names)
        return cls(*(frozenset(chosen[key]) for key in _KEYS))

    @property
    def is_everything(self) -> bool:
        """Whether it leaves nothing out."""
        return not (self.kinds or self.memories or self.models)

    def of(self, cube: Cube) -> tuple[CubeFile, ...]:
        """The files of `cube` that are wanted.

        Raises:
            NotFoundError: the cube has no memory of a name that is asked for.
        """
        known = {memory.id for memory in cube.config.memories}
        if absent := self.memories - known:
            raise NotFoundError(
                f"the cube has no memory {min(absent)[:80]!r}",
                hint=f"it has: {', '.join(sorted(known)) or 'none'}",
            )
        wanted = {memory.id for memory in cube.config.memories if self.wants(memory)}
        return tuple(file for file in cube.files if self._wants_file(file, wanted))

    def memories_of(self, config: CubeConfig) -> tuple[Memory, ...]:
        """The memories of `config` that are wanted."""
        return tuple(memory for memory in config.memories if self.wants(memory))

    def wants(self, memory: Memory) -> bool:
        """Whether `memory`, of a cube or of a build, is wanted."""
        kind = not self.kinds or memory.kind in self.kinds
        name = not self.memories or memory.id in self.memories
        fits = not self.models or memory.kind == PLAINTEXT or bool(self.models & bases_of(memory))
        return kind and name and fits

    def _wants_file(self, file: CubeFile, memories: set[str]) -> bool:
        if file.media_type == media_types.CARD:
            return True
        if file.memory == CUBE_MEMORY:
            return self.is_everything or ATTACHMENT in self.kinds
        return file.memory in memories


def bases_of(memory: Memory) -> frozenset[str]:
    """By what names the model that `memory` fits may be asked for."""
    fits: Mapping[str, object] = memory.compatibility
    if memory.kind == ACTIVATION:
        names = {fits.get("baseIdentity"), memory.shape.get("model")}
    else:
        base = fits.get("base")
        base = base if isinstance(base, Mapping) else {}
        model, revision = base.get("model"), base.get("revision")
        names = {base.get("identity"), model, f"{model}@{revision}" if revision else None}
    return frozenset(name for name in names if isinstance(name, str))


def _invalid(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        why, hint="write kind=plaintext, memory=ID or model=NAME, with commas between values"
    )
