"""How a record is named outside: a citation that says which cube it is of, and its address.

acme/cardiology:1.4#m-17          the id that tools give and take
memcube://record/acme%2Fcardiology%3A1.4/m-17
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self
from urllib.parse import quote, unquote

from memcube_protocol.errors import InvalidError, NotFoundError
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen

CITATION_CHARS: Final = 1500
"""A reference and a record's id, each at its limit, and some."""

_RECORD: Final = "memcube://record/"
_CUBE: Final = "memcube://cube/"


@frozen
class Citation:
    """A record `record_id` of the mounted cube `cube`; None where the cube was not said."""

    record_id: str
    cube: str | None = None

    @classmethod
    def parse(cls, text: str, cubes: Iterable[str]) -> Self:
        """The record that `text` names: as cited, by its address, or by its bare id.

        Ids may hold a `#`: one divides cube and id behind the name of one of `cubes`, and behind any
        other reference of one version, or a record would be read for one of a cube that is not here.
        """
        if text.startswith(_RECORD):
            cube, _, record_id = text.removeprefix(_RECORD).partition("/")
            return cls(unquote(record_id), unquote(cube))
        cube, divider, record_id = text.partition("#")
        if divider and (cube in set(cubes) or _is_pinned(cube)):
            return cls(record_id, cube)
        return cls(text)

    def __str__(self) -> str:
        return f"{self.cube}#{self.record_id}" if self.cube else self.record_id

    @property
    def address(self) -> str:
        """The address of its resource."""
        return f"{_RECORD}{quote(self.cube or '', safe='')}/{quote(self.record_id, safe='')}"


def _is_pinned(text: str) -> bool:
    """Whether `text` is the reference of one version, as every mounted cube is called."""
    try:
        reference = Reference.parse(text)
    except InvalidError:
        return False
    return reference.tag is not None or reference.digest is not None


def cube_address(cube: str) -> str:
    """The address of the resource that describes `cube`."""
    return _CUBE + quote(cube, safe="")


def cube_of_address(address: str) -> str:
    """The cube that `cube_address` gave `address`.

    Raises:
        NotFoundError: it is the address of something else.
    """
    if not address.startswith(_CUBE):
        raise NotFoundError(
            f"there is no resource {address[:200]!r}",
            hint=f"resources are {_CUBE}CUBE and {_RECORD}CUBE/ID, each part percent-encoded",
        )
    return unquote(address.removeprefix(_CUBE))


RECORD_TEMPLATE: Final = _RECORD + "{cube}/{id}"
"""RFC 6570; a client that expands it encodes both parts."""
