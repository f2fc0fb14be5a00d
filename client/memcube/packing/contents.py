"""From the files of a folder to the files and memories of a cube, each checked by its own format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import zstandard
from memcube_protocol import activation, limits, media_types, parametric, shards
from memcube_protocol.config import ACTIVATION, PARAMETRIC, PLAINTEXT, Memory
from memcube_protocol.cube import CubeFile
from memcube_protocol.errors import InvalidRecordError
from memcube_protocol.records import Record, read_lines

from memcube.packing.layout import ACTIVATION_FILES, PARAMETRIC_FILES, Layout, require_attachment
from memcube.packing.scan import FoundFile
from memcube.packing.sorting import RecordSorter
from memcube.packing.tensor_files import identify, read_header, read_start
from memcube.store import Blobs

_PIECE_BYTES: Final = 1024 * 1024
RecordSource = Callable[[RecordSorter], None]
"""Adds its records to the sorter."""


@dataclass(slots=True)
class Contents:
    """The files and memories of a cube so far; `blobs` takes every content that is added."""

    blobs: Blobs
    titles: dict[str, str]
    files: list[CubeFile] = field(default_factory=list[CubeFile])
    memories: list[Memory] = field(default_factory=list[Memory])

    def add_folder(self, layout: Layout, reuse: shards.Reuse) -> None:
        """Add everything that `layout` holds; `reuse` finds compressed shards of earlier versions.

        Raises:
            MemcubeError: a file breaks the rules of its format; the error names the file.
        """
        if layout.card:
            limits.require_at_most(layout.card.path, layout.card.size, limits.CARD_BYTES)
            self.files.append(self._keep(layout.card, media_types.CARD))
        if layout.records:
            self.add_records(lambda sorter: _sort_files(sorter, layout.records), reuse)
            self._add_vectors(layout.vectors)
        for memory_id, found in sorted(layout.activation.items()):
            self._add_activation(memory_id, found)
        for memory_id, found in sorted(layout.parametric.items()):
            self._add_parametric(memory_id, found)
        for file in layout.attachments:
            details = {media_types.ATTACHMENT_TYPE: require_attachment(file.path)}
            self.files.append(self._keep(file, media_types.ATTACHMENT, details=details))

    def add_records(self, source: RecordSource, reuse: shards.Reuse) -> None:
        """Add the records of `source` as the memory `plaintext`, cut into shards.

        Raises:
            InvalidRecordError, InvalidJsonError, LimitExceededError: a record breaks a rule.
        """
        with RecordSorter() as sorter:
            source(sorter)
            target = shards.target_for(sorter.size)
            files = [
                self._keep_shard(shards.compress(shard, reuse=reuse))
                for shard in shards.cut(sorter.records(), target=target)
            ]
            self._add_memory(Memory(PLAINTEXT, PLAINTEXT, (), records=sorter.count), files)

    def _keep_shard(self, shard: shards.CompressedShard) -> CubeFile:
        digest, size = self.blobs.add(shard.content)
        path = f"{PLAINTEXT}/{shard.name}"
        return CubeFile(path, media_types.RECORDS, digest, size, PLAINTEXT, shard.annotations)

    def _add_vectors(self, found: Iterable[FoundFile]) -> None:
        files = []
        for file in found:
            read_header(file)
            files.append(self._keep(file, media_types.VECTORS, PLAINTEXT))
        if files:
            self._add_memory(self.memories.pop(), files)

    def _add_activation(self, memory_id: str, found: dict[str, FoundFile]) -> None:
        manifest, tokens, kv = (found[name] for name in ACTIVATION_FILES)
        parsed = activation.check_folder_files(
            manifest.read(limits.KV_MANIFEST_BYTES),
            tokens.read(4 * limits.KV_TOKENS),
            read_start(kv),
            kv.size,
        )
        files = [
            self._keep(manifest, media_types.KV_MANIFEST, memory_id),
            self._keep(tokens, media_types.KV_TOKENS, memory_id),
            self._keep(kv, media_types.KV, memory_id),
        ]
        shape = {"layers": len(parsed.layers), "tokens": parsed.key.token_count}
        key = parsed.key.to_json()
        self._add_memory(Memory(memory_id, ACTIVATION, (), shape=shape, compatibility=key), files)

    def _add_parametric(self, memory_id: str, found: dict[str, FoundFile]) -> None:
        config, weights = (found[name] for name in PARAMETRIC_FILES)
        header = read_header(weights)
        adapter = parametric.check(config.read(limits.CONFIG_BYTES), header)
        files = [
            self._keep(config, media_types.LORA_CONFIG, memory_id),
            self._keep(weights, media_types.LORA, memory_id),
        ]
        shape = {"modules": len(adapter.modules), "rank": adapter.config.rank}
        fits = adapter.compatibility(identify(weights, header))
        self._add_memory(Memory(memory_id, PARAMETRIC, (), shape=shape, compatibility=fits), files)

    def _add_memory(self, memory: Memory, files: list[CubeFile]) -> None:
        """Add `memory` with `files` behind the layers that it has already."""
        self.files += files
        self.memories.append(
            Memory(
                memory.id,
                memory.kind,
                memory.layers + tuple(file.digest for file in files),
                self.titles.get(memory.id),
                memory.records,
                memory.shape,
                memory.compatibility,
            )
        )

    def _keep(
        self,
        file: FoundFile,
        media_type: str,
        memory_id: str | None = None,
        details: dict[str, str] | None = None,
    ) -> CubeFile:
        with file.open() as stream:
            digest, size = self.blobs.add(iter(lambda: stream.read(_PIECE_BYTES), b""))
        extra = {"memory": memory_id} if memory_id else {}
        return CubeFile(file.path, media_type, digest, size, **extra, details=details or {})


def _sort_files(sorter: RecordSorter, files: Iterable[FoundFile]) -> None:
    for file in files:
        with file.open() as stream:
            sorter.add(_records_of(file, stream), origin=file.path)


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
