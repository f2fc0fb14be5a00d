"""Tiles of C2SP tlog-tiles: their paths, their hashes, and bundles of entries.

A tile of level L, number N holds up to 256 hashes of the tree's level 8·L. A full tile never changes;
the last one of a level is partial and named with its width. An entry bundle holds the entries of the
tile of level 0 with the same number, each after its length in two bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from memcube_protocol.errors import InvalidRequestError, InvalidStatementError, NotFoundError
from memcube_protocol.values import frozen

from memcube_signing.transparency import merkle

WIDTH: Final = 256
HEIGHT: Final = 8
LEVELS: Final = 8
ENTRIES: Final = "entries"
_PATH: Final = re.compile(
    r"(?P<level>entries|names|[0-7])/(?P<number>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)

Key: TypeAlias = tuple[int, int]
ReadTile: TypeAlias = Callable[[int, int], bytes]


@frozen
class Tile:
    """What a path names: `level` is None for another kind than hashes, which `kind` names."""

    level: int | None
    number: int
    width: int = WIDTH
    kind: str = "tile"

    @property
    def path(self) -> str:
        """The path below the log's address and `tile/`."""
        level = self.kind if self.level is None else str(self.level)
        partial = f".p/{self.width}" if self.width != WIDTH else ""
        return f"{level}/{number_path(self.number)}{partial}"


def number_path(number: int) -> str:
    """`x001/x234/067` for 1234067: groups of three digits, all but the last marked."""
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def parse_path(path: str) -> Tile:
    """The tile that `path` names; only its one canonical form is accepted.

    Raises:
        InvalidRequestError: another form.
    """
    match = _PATH.fullmatch(path)
    tile = None
    if match:
        number = int(match["number"].replace("/", "").replace("x", ""))
        level = int(match["level"]) if match["level"].isdigit() else None
        kind = "tile" if level is not None else match["level"]
        tile = Tile(level, number, int(match["width"] or WIDTH), kind)
    if tile is None or tile.path != path:
        raise InvalidRequestError(
            f"{path[:80]!r} is not the path of a tile", hint="see docs/spec/log.md, Tiles"
        )
    return tile


def width_at(level: int, number: int, size: int) -> int:
    """How many hashes tile `number` of `level` holds in a tree over `size` leaves."""
    return max(0, min(WIDTH, (size >> HEIGHT * level) - number * WIDTH))


def encode_entries(entries: Iterable[bytes]) -> bytes:
    """An entry bundle."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_entries(content: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle.

    Raises:
        InvalidStatementError: cut off, or more than 256 entries.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(content):
        end = at + 2 + int.from_bytes(content[at : at + 2], "big")
        if end > len(content) or at + 2 > len(content) or len(entries) == WIDTH:
            raise InvalidStatementError(
                "not an acceptable entry bundle: it is cut off or too long",
                hint="see docs/spec/log.md, Tiles",
                reason="malformed-log-entry",
            )
        entries.append(content[at + 2 : end])
        at = end
    return tuple(entries)


def hashes_of(tile: bytes) -> list[bytes]:
    """The whole hashes that a tile holds."""
    step = merkle.HASH_BYTES
    return [tile[at : at + step] for at in range(0, len(tile) - step + 1, step)]


def reader(size: int, read: ReadTile) -> merkle.HashAt:
    """Hashes of a tree over `size` leaves from its tiles; `read(level, number)` may hold more hashes.

    Raises, when called:
        NotFoundError: a tile is shorter than `size` demands.
    """
    kept: dict[Key, list[list[bytes]]] = {}

    def hash_at(level: int, index: int) -> bytes:
        tile_level, depth = divmod(level, HEIGHT)
        number, at = divmod(index << depth, WIDTH)
        levels = kept.get((tile_level, number))
        if levels is None:
            levels = kept[tile_level, number] = [hashes_of(read(tile_level, number))]
        while len(levels) <= depth:
            levels.append(_pairs(levels[-1]))
        if (index + 1) << level > size or at >> depth >= len(levels[depth]):
            raise NotFoundError(
                f"the log lacks hashes of tile {tile_level}/{number}",
                hint="the log is damaged or still being written: try again, or tell its operator",
            )
        return levels[depth][at >> depth]

    return hash_at


def _pairs(hashes: Sequence[bytes]) -> list[bytes]:
    """The complete nodes above `hashes`: those of a tile are made together, since a proof needs many."""
    return [merkle.node_hash(hashes[at - 1], hashes[at]) for at in range(1, len(hashes), 2)]


def appended(
    size: int, edge: Mapping[Key, bytes], leaves: Sequence[bytes]
) -> tuple[dict[Key, bytes], merkle.HashAt]:
    """The tiles that change when leaf hashes join a tree over `size`, and the new tree's hashes.

    `edge` holds the partial tiles of the tree, as `edge_keys` names them.
    """
    changed: dict[Key, bytes] = {}
    _extend(changed, edge, 0, size, leaves)

    def read(level: int, number: int) -> bytes:
        found = changed.get((level, number)) or edge.get((level, number))
        if found is None:
            raise NotFoundError("a tile is missing", hint="give every partial tile as `edge`")
        return found

    return changed, reader(size + len(leaves), read)


def edge_keys(size: int) -> tuple[Key, ...]:
    """The last tile of each level of a tree over `size` leaves, where it is not full."""
    return tuple(
        (level, (size >> HEIGHT * level) // WIDTH)
        for level in range(LEVELS)
        if (size >> HEIGHT * level) % WIDTH
    )


def _extend(
    changed: dict[Key, bytes],
    edge: Mapping[Key, bytes],
    level: int,
    count: int,
    new: Sequence[bytes],
) -> None:
    """Add the hashes `new` to a level that has `count`, and the roots of filled tiles to the next."""
    roots: list[bytes] = []
    at = 0
    while at < len(new):
        number, filled = divmod(count + at, WIDTH)
        part = new[at : at + WIDTH - filled]
        before = edge[level, number] if filled else b""
        changed[level, number] = before + b"".join(part)
        at += len(part)
        if filled + len(part) == WIDTH:
            roots.append(merkle.complete_root(hashes_of(changed[level, number])))
    if roots:
        _extend(changed, edge, level + 1, count // WIDTH, roots)
