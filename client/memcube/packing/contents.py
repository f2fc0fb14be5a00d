"""From the files of a folder to the files and memories of a cube, each checked by its own format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO, Final

import zstandard
from memcube_protocol import limits, media_types, shards
from memcube_protocol.config import ACTIVATION, CUBE_MEMORY, PARAMETRIC, PLAINTEXT, Memory
from memcube_protocol.cube import CubeFile
from memcube_protocol.digest import Digest, new_hasher
from memcube_protocol.errors import ConflictError, InvalidRecordError, MemcubeError
from memcube_protocol.records import Record, read_lines
from memcube_protocol.values import frozen

from memcube.packing.layout import ACTIVATION_FILES, PARAMETRIC_FILES, Layout, require_attachment
from memcube.packing.scan import FoundFile
from memcube.store import Blobs
from memcube.store.files import hash_file

# What sorts records and what reads tensors is loaded by the functions that need it: few cubes hold everything.
if TYPE_CHECKING:
    from memcube.packing.sorting import RecordSorter

_THREADS: Final = max(2, min(4, os.cpu_count() or 1))
"""Files copied at a time. More than there are cores drive each other's pieces out of the caches."""
Kept = Callable[[CubeFile, bool], None]
"""Hears of a file that the store holds now, and whether it was copied there just now; from several threads."""
RecordSource = Callable[["RecordSorter"], None]
"""Adds its records to the sorter."""


@frozen
class Planned:
    """A file that was checked and will be kept, as what and for which memory."""

    found: FoundFile
    media_type: str
    memory: str = CUBE_MEMORY
    details: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Contents:
    """The files and memories of a cube so far; `blobs` takes every content that is added.

    `earlier` holds sizes in bytes by path in earlier versions: a file of the same path and size is
    hashed before it is copied, since it has most likely not changed.
    """

    blobs: Blobs
    titles: Mapping[str, str]
    earlier: Mapping[str, int] = field(default_factory=dict[str, int])
    files: list[CubeFile] = field(default_factory=list[CubeFile])
    memories: list[Memory] = field(default_factory=list[Memory])
    kept: Kept = lambda _file, _copied: None

    def add_folder(self, layout: Layout, reuse: shards.Reuse) -> None:
        """Add everything that `layout` holds; `reuse` finds compressed shards of earlier versions.

        All files are checked before the first one is copied.

        Raises:
            MemcubeError: a file breaks the rules of its format; the error names the file.
            ConflictError: a file has another size than when it was checked.
        """
        card = _card(layout)
        vectors = [_vectors(file, layout.records) for file in layout.vectors]
        bound = [_activation(name, found) for name, found in sorted(layout.activation.items())]
        bound += [_parametric(name, found) for name, found in sorted(layout.parametric.items())]
        attachments = [_attachment(file) for file in layout.attachments]
        self.files += self._keep(card)
        if layout.records:
            self.add_records(lambda sorter: _sort_files(sorter, layout.records), reuse)
            self._add_memory(self.memories.pop(), self._keep(vectors))
        kept = iter(self._keep([planned for _, files in bound for planned in files]))
        for memory, files in bound:
            self._add_memory(memory, [next(kept) for _ in files])
        self.files += self._keep(attachments)

    def add_records(self, source: RecordSource, reuse: shards.Reuse) -> None:
        """Add the records of `source` as the memory `plaintext`, cut into shards.

        Raises:
            InvalidRecordError, InvalidJsonError, LimitExceededError: a record breaks a rule.
        """
        from memcube.packing.sorting import RecordSorter

        with RecordSorter() as sorter:
            source(sorter)
            target = shards.target_for(sorter.size)
            files = [
                self._keep_shard(shards.compress(shard, reuse=reuse))
                for shard in shards.cut_lines(sorter.lines(), target=target)
            ]
            self._add_memory(Memory(PLAINTEXT, PLAINTEXT, (), records=sorter.count), files)

    def add_vectors(self, file: FoundFile) -> None:
        """Add a file of vectors to the memory `plaintext`, whose records are here.

        Raises:
            InvalidTensorsError: it is no such file.
        """
        place = next(at for at, memory in enumerate(self.memories) if memory.id == PLAINTEXT)
        self._add_memory(self.memories.pop(place), self._keep([_vectors(file)]))
        self.memories.insert(place, self.memories.pop())

    def _keep_shard(self, shard: shards.CompressedShard) -> CubeFile:
        digest, size = self.blobs.add(shard.content)
        path = f"{PLAINTEXT}/{shard.name}"
        file = CubeFile(path, media_types.RECORDS, digest, size, PLAINTEXT, shard.annotations)
        self.kept(file, False)
        return file

    def _add_memory(self, memory: Memory, files: list[CubeFile]) -> None:
        """Add `memory` with `files` behind the layers that it has already."""
        self.files += files
        layers = memory.layers + tuple(file.digest for file in files)
        self.memories.append(replace(memory, layers=layers, title=self.titles.get(memory.id)))

    def _keep(self, planned: Sequence[Planned]) -> list[CubeFile]:
        """Copy files into the store, several at a time: hashing and writing use no Python."""
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(self._keep_one, planned))

    def _keep_one(self, planned: Planned) -> CubeFile:
        path = planned.found.path
        with planned.found.open() as stream:
            held = self._held(path, stream)
            digest, size = held or self.blobs.add_copy(stream)
        if size != planned.found.size:
            raise ConflictError(
                f"{path} was changed while it was being packed",
                hint="run it again once nothing writes to it",
            )
        file = CubeFile(path, planned.media_type, digest, size, planned.memory, planned.details)
        self.kept(file, held is None)
        return file

    def _held(self, path: str, stream: BinaryIO) -> tuple[Digest, int] | None:
        """Digest and size of a file that the store holds already."""
        size = os.fstat(stream.fileno()).st_size
        if self.earlier.get(path) != size:
            return None
        hasher = new_hasher()
        size = hash_file(stream.fileno(), hasher)
        digest = Digest.finish("sha256", hasher)
        return (digest, size) if self.blobs.has(digest, size) else None


def _card(layout: Layout) -> list[Planned]:
    if layout.card is None:
        return []
    limits.require_at_most(layout.card.path, layout.card.size, limits.CARD_BYTES)
    return [Planned(layout.card, media_types.CARD)]


def _attachment(file: FoundFile) -> Planned:
    details = {media_types.ATTACHMENT_TYPE: require_attachment(file.path)}
    return Planned(file, media_types.ATTACHMENT, details=details)


def _vectors(file: FoundFile, records: Iterable[FoundFile] = ()) -> Planned:
    from memcube_protocol.vectors import VectorFile

    from memcube.packing.tensor_files import read_header
    from memcube.packing.vectors import require_sound

    header = read_header(file)
    try:
        require_sound(file, VectorFile.of(header), read_files(records))
    except MemcubeError as error:
        error.args = (f"{file.path}: {error}",)
        raise
    return Planned(file, media_types.VECTORS, PLAINTEXT)


def _activation(memory_id: str, found: dict[str, FoundFile]) -> tuple[Memory, list[Planned]]:
    from memcube_protocol import activation

    from memcube.packing.tensor_files import read_start

    manifest, tokens, kv = (found[name] for name in ACTIVATION_FILES)
    parsed = activation.check_folder_files(
        manifest.read(limits.KV_MANIFEST_BYTES),
        tokens.read(4 * limits.KV_TOKENS),
        read_start(kv),
        kv.size,
    )
    shape = {"layers": len(parsed.layers), "tokens": parsed.key.token_count}
    key = parsed.key.to_json()
    files = [
        Planned(manifest, media_types.KV_MANIFEST, memory_id),
        Planned(tokens, media_types.KV_TOKENS, memory_id),
        Planned(kv, media_types.KV, memory_id),
    ]
    return Memory(memory_id, ACTIVATION, (), shape=shape, compatibility=key), files


def _parametric(memory_id: str, found: dict[str, FoundFile]) -> tuple[Memory, list[Planned]]:
    from memcube_protocol import parametric

    from memcube.packing.tensor_files import identify, read_header, require_finite

    config, weights = (found[name] for name in PARAMETRIC_FILES)
    header = read_header(weights)
    adapter = parametric.check(config.read(limits.CONFIG_BYTES), header)
    require_finite(weights, header)
    shape = {"modules": len(adapter.modules), "rank": adapter.config.rank}
    fits = adapter.compatibility(identify(weights, header))
    files = [
        Planned(config, media_types.LORA_CONFIG, memory_id),
        Planned(weights, media_types.LORA, memory_id),
    ]
    return Memory(memory_id, PARAMETRIC, (), shape=shape, compatibility=fits), files


def _sort_files(sorter: RecordSorter, files: Iterable[FoundFile]) -> None:
    for file in files:
        with file.open() as stream:
            sorter.add(_records_of(file, stream), origin=file.path)


def read_files(files: Iterable[FoundFile]) -> Iterator[Record]:
    """The records of `files`, one after the other.

    Raises:
        InvalidRecordError, InvalidJsonError, LimitExceededError: naming the file and the line.
    """
    for file in files:
        with file.open() as stream:
            yield from _records_of(file, stream)


def _records_of(file: FoundFile, stream: BinaryIO) -> Iterator[Record]:
    if not file.path.endswith(".zst"):
        yield from read_lines(stream, what=file.path, unique=False)
        return
    decompressor = zstandard.ZstdDecompressor(max_window_size=limits.SHARD_MAX_BYTES)
    with decompressor.stream_reader(stream, closefd=False) as lines:
        try:
            yield from read_lines(lines, what=file.path, unique=False)
        except zstandard.ZstdError as error:
            raise InvalidRecordError(
                f"{file.path} is not zstd: {error}", hint="compress it anew, or leave it as .jsonl"
            ) from None
