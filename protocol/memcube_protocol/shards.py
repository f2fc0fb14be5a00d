"""Record shards: sorted records, cut where a change stays local, each compressed alone (docs/spec/records.md).

A shard is canonical record lines, each ended by a newline, ids ascending by their UTF-8 bytes. It ends

- after a record that is a *cut point*: the first 8 bytes of SHA-256(id), big-endian, lie below
  `2^64 * weight * line bytes / target`, where `weight` is 1/8 while the shard is shorter than the
  target and 8 from then on; never below 64 KiB, or
- before a record that would take it above 8 MiB, or at the end.

So the cuts depend on ids and lengths nearby only, and an edit changes the shards around it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import zstandard

from memcube_protocol import limits, media_types
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidRecordError,
    SizeMismatchError,
)
from memcube_protocol.oci import Descriptor
from memcube_protocol.records import Record, parse_record, write_record
from memcube_protocol.values import frozen

ZSTD_LEVEL: Final = 9
COMPRESSED_MAX_BYTES: Final = limits.SHARD_MAX_BYTES + limits.SHARD_MAX_BYTES // 128
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_HEADER_BYTES: Final = 18
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_SCALE: Final = 1 << 64
_LARGEST_TARGET: Final = limits.SHARD_MAX_BYTES // 2
_HINT: Final = "pull the cube again; if it persists, its publisher has to pack it anew"

Reuse = Callable[[Digest], bytes | None]
"""Compressed bytes kept of an earlier version, by the digest of the uncompressed shard."""


@frozen
class Shard:
    """Uncompressed lines of `count` records with ascending ids."""

    raw: bytes
    count: int

    @property
    def digest(self) -> Digest:
        """SHA-256 digest of the uncompressed bytes."""
        return Digest.of(self.raw)


@frozen
class CompressedShard:
    """A shard as it travels: zstd bytes, and what its layer's annotations say of the content."""

    content: bytes
    uncompressed_digest: Digest
    uncompressed_bytes: int
    count: int

    @property
    def name(self) -> str:
        """File name that stays while the content does."""
        return f"{self.uncompressed_digest.hex[:16]}.jsonl.zst"

    @property
    def annotations(self) -> dict[str, str]:
        """What the layer's annotations say of it (docs/spec/records.md)."""
        return {
            media_types.UNCOMPRESSED_DIGEST: str(self.uncompressed_digest),
            media_types.UNCOMPRESSED_SIZE: str(self.uncompressed_bytes),
            media_types.RECORD_COUNT: str(self.count),
        }

    def descriptor(self, path: str, memory: str) -> Descriptor:
        """The layer's descriptor: file `path` in the cube, part of memory `memory`."""
        named = {
            media_types.TITLE: path,
            media_types.FILEPATH: path,
            media_types.MEMORY: memory,
        }
        return Descriptor.of(media_types.RECORDS, self.content, {**named, **self.annotations})


def target_for(total_bytes: int) -> int:
    """Shard size to aim at for `total_bytes` of record lines.

    A power of two: so small that there are some 200 shards, at most 1 MiB, more only where a
    manifest could not name them all, at most half of what a shard may hold.
    """
    target = limits.SHARD_MIN_BYTES
    while target < limits.SHARD_TARGET_BYTES and target * 256 < total_bytes:
        target *= 2
    while target * (limits.MANIFEST_LAYERS // 2) < total_bytes and target < _LARGEST_TARGET:
        target *= 2
    return target


def cut(records: Iterable[Record], *, target: int = limits.SHARD_TARGET_BYTES) -> Iterator[Shard]:
    """Shards of `records`, which come sorted by id; at most one shard is held in memory.

    Raises:
        InvalidRecordError: ids out of order, or one twice.
        LimitExceededError: a record of more than 1 MiB.
    """
    return cut_lines(((record.id, write_record(record)) for record in records), target=target)


def cut_lines(
    records: Iterable[tuple[str, bytes]], *, target: int = limits.SHARD_TARGET_BYTES
) -> Iterator[Shard]:
    """`cut`, for records that are written already: the id of each, and its canonical line.

    Raises:
        InvalidRecordError: ids out of order, or one twice.
    """
    lines: list[bytes] = []
    size = 0
    last = ""
    for record_id, written in records:
        _require_ascending(last, record_id)
        last = record_id
        line = written + b"\n"
        if size + len(line) > limits.SHARD_MAX_BYTES:
            yield Shard(b"".join(lines), len(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line)
        if size >= limits.SHARD_MIN_BYTES and is_cut_point(record_id, len(line), size, target):
            yield Shard(b"".join(lines), len(lines))
            lines, size = [], 0
    if lines:
        yield Shard(b"".join(lines), len(lines))


def is_cut_point(record_id: str, line_bytes: int, shard_bytes: int, target: int) -> bool:
    """Whether a shard of `shard_bytes` ends after the record `record_id`, whose line is the last."""
    head = int.from_bytes(hashlib.sha256(record_id.encode()).digest()[:8], "big")
    if shard_bytes < target:
        return head * 8 * target < _SCALE * line_bytes
    return head * target < _SCALE * 8 * line_bytes


def compress(shard: Shard, *, reuse: Reuse | None = None) -> CompressedShard:
    """`shard` as one zstd frame, or the bytes that `reuse` still has of the same content.

    Compressors differ between versions: reusing keeps the digest of an unchanged shard.
    """
    digest = shard.digest
    content = reuse(digest) if reuse else None
    if content is None:
        compressor = zstandard.ZstdCompressor(
            level=ZSTD_LEVEL, write_checksum=True, write_content_size=True, write_dict_id=False
        )
        content = compressor.compress(shard.raw)
    return CompressedShard(content, digest, len(shard.raw), shard.count)


def read_shard(content: bytes | Iterable[bytes], descriptor: Descriptor) -> Iterator[Record]:
    """Records of one layer; all of its bytes are checked before the first record is given.

    Raises:
        LimitExceededError: larger than a shard may be.
        SizeMismatchError, DigestMismatchError: other bytes than the descriptor says.
        InvalidRecordError: not one plain zstd frame of canonical, ascending records.
    """
    raw = decompress(content, descriptor)
    lines = raw.split(b"\n")
    if lines.pop() or not lines:
        raise _invalid("its last line has no newline, or it holds no record")
    if str(len(lines)) != descriptor.annotations.get(media_types.RECORD_COUNT):
        raise _invalid("it holds another number of records than its layer says")
    last = ""
    for line in lines:
        record = parse_record(line, canonical=True)
        _require_ascending(last, record.id)
        last = record.id
        yield record


def read_shards(
    layers: Iterable[tuple[bytes | Iterable[bytes], Descriptor]],
) -> Iterator[Record]:
    """Records of several layers in their order, one shard in memory at a time.

    Raises:
        InvalidRecordError: ids do not ascend from layer to layer; and all that `read_shard` raises.
    """
    last = ""
    for content, descriptor in layers:
        for record in read_shard(content, descriptor):
            _require_ascending(last, record.id)
            last = record.id
            yield record


def decompress(content: bytes | Iterable[bytes], descriptor: Descriptor) -> bytes:
    """Uncompressed bytes of one layer, checked against the descriptor and its annotations.

    Raises:
        LimitExceededError, SizeMismatchError, DigestMismatchError, InvalidRecordError: see
            `read_shard`.
    """
    limits.require_at_most("compressed shard", descriptor.size, COMPRESSED_MAX_BYTES)
    compressed = content if isinstance(content, bytes) else _gather(content, descriptor)
    if len(compressed) != descriptor.size:
        raise SizeMismatchError(
            f"shard {descriptor.digest} has {len(compressed)} bytes, {descriptor.size} expected",
            hint=_HINT,
        )
    if Digest.of(compressed, descriptor.digest.algorithm) != descriptor.digest:
        raise DigestMismatchError(f"shard {descriptor.digest} has other content", hint=_HINT)
    expected, size = _promised(descriptor)
    _require_plain_frame(compressed, size)
    try:
        raw = zstandard.ZstdDecompressor().decompress(compressed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _invalid(f"it does not decompress ({str(error)[:120]})") from None
    if (actual := Digest.of(raw, expected.algorithm)) != expected:
        raise DigestMismatchError(
            f"shard {descriptor.digest} decompresses to {actual}, not {expected}", hint=_HINT
        )
    return raw


def announced_bytes(layers: Iterable[Descriptor]) -> int:
    """How long the lines of these layers of records are together, by what each says of itself.

    A layer that says another size than it has is refused when it is read.

    Raises:
        InvalidRecordError: one says no size.
    """
    return sum(_announced(layer) for layer in layers)


def _announced(descriptor: Descriptor) -> int:
    size = descriptor.annotations.get(media_types.UNCOMPRESSED_SIZE, "")
    if not _SIZE.fullmatch(size):
        raise _invalid(f"its annotation {media_types.UNCOMPRESSED_SIZE} is not a number of bytes")
    return int(size)


def _gather(pieces: Iterable[bytes], descriptor: Descriptor) -> bytes:
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > descriptor.size:
            raise SizeMismatchError(
                f"shard {descriptor.digest} is longer than {descriptor.size} bytes", hint=_HINT
            )
    return bytes(content)


def _promised(descriptor: Descriptor) -> tuple[Digest, int]:
    """Digest and size in bytes that the annotations promise of the uncompressed shard."""
    digest = descriptor.annotations.get(media_types.UNCOMPRESSED_DIGEST, "")
    size = _announced(descriptor)
    return Digest.parse(digest), size


def _require_plain_frame(compressed: bytes, size: int) -> None:
    """Refuse what could expand beyond `size` bytes, before anything is allocated for it."""
    limits.require_at_most("uncompressed shard", size, limits.SHARD_MAX_BYTES)
    if not compressed.startswith(_MAGIC):
        raise _invalid("it is not a zstd frame")
    try:
        frame = zstandard.get_frame_parameters(compressed[:_HEADER_BYTES])
    except zstandard.ZstdError as error:
        raise _invalid(f"its frame header is damaged ({str(error)[:120]})") from None
    if frame.dict_id or not frame.has_checksum:
        raise _invalid("its frame wants a dictionary, or has no checksum")
    if frame.window_size > limits.SHARD_MAX_BYTES:
        raise _invalid(f"its frame wants a window of {frame.window_size} bytes")
    if frame.content_size != size:
        raise SizeMismatchError(
            f"a shard of {size} bytes was promised, its frame holds {frame.content_size}",
            hint=_HINT,
        )


def _require_ascending(last: str, record_id: str) -> None:
    if record_id <= last:
        what = "stands twice" if record_id == last else f"comes after {last!r}"
        raise InvalidRecordError(
            f"record {record_id!r} {what}: the records of a shard ascend by id",
            hint="sort the records by id and give each an id of its own",
        )


def _invalid(why: str) -> InvalidRecordError:
    return InvalidRecordError(f"not an acceptable shard: {why}", hint=_HINT)
