"""Fetch only the beginning of a KV memory: its blocks by HTTP Range, each checked by the signed manifest.

    found = fetch_prefix(context, verified, "handbook", 2773)
    mount_kv(found.folder, model, tokenizer, prefix_tokens=found.tokens)

What comes lies in a file with holes, under a name of its own and never in the store: nothing takes it for the
whole memory, and a mount always checks it. Which blocks are there is asked of their hashes, each time: no
list can be wrong after a crash, and a longer prefix fetches only what it adds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from memcube_protocol import activation, limits, media_types, tensors
from memcube_protocol.activation import KvManifest
from memcube_protocol.content import Blocks, read_verified
from memcube_protocol.cube import CubeFile
from memcube_protocol.errors import (
    DigestMismatchError,
    InvalidTensorsError,
    NetworkError,
    NotFoundError,
    SizeMismatchError,
    UnsafeRedirectError,
    UnsupportedError,
)
from memcube_protocol.oci import Descriptor
from memcube_protocol.values import frozen

from memcube.consuming.holdings import FOLDERS, memory_folder
from memcube.memories.activation.files import PARTIAL_FILE
from memcube.remote.interface import Remote
from memcube.store import Store
from memcube.store.files import make_folder, open_file, replace_file, storage_errors, write_all
from memcube.transfer import pull_blobs, read_range
from memcube.transfer.workers import Stop, run

if TYPE_CHECKING:
    from memcube.consuming.verifying import Verified
    from memcube.context import Context

PREFIXES: Final = ".prefixes"
"""Below the folders of a cube: no memory is called so, and pruning takes it with them."""
_PORTION_BYTES: Final = 8 * limits.MIB
"""Bytes that one request asks for at most: they are kept in memory until they are checked."""


@frozen
class FetchedPrefix:
    """The folder of a memory of which at least the first `tokens` tokens are there.

    `fetched_bytes` came over the network just now.
    """

    folder: Path
    tokens: int
    fetched_bytes: int


def fetch_prefix(
    context: Context, verified: Verified, memory_id: str, tokens: int
) -> FetchedPrefix:
    """The first `tokens` tokens of the KV memory `memory_id` of a verified cube, fetched if they are not here.

    A memory that the store holds whole is taken from there.

    Raises:
        NotFoundError: the cube has no such KV memory, or it has fewer tokens.
        UnsupportedError: the registry sends no parts of blobs; pull the whole memory then.
        DigestMismatchError, SizeMismatchError, InvalidTensorsError: other bytes came; none was kept.
        NetworkError, StorageError: it could not be fetched or kept; what has arrived is gone on with.
    """
    files = _kv_files(verified, memory_id)
    if context.store.has(files[media_types.KV].digest, files[media_types.KV].size):
        whole = all(context.store.has(file.digest, file.size) for file in files.values())
        if whole:
            return FetchedPrefix(memory_folder(context, verified, memory_id), tokens, 0)
    folder = context.settings.home / FOLDERS / verified.cube.digest.hex / PREFIXES / memory_id
    return fetch_into(
        context.remote(verified.reference.host),
        verified.reference.name,
        files,
        context.store,
        folder,
        tokens,
        parallel=context.settings.parallel,
    )


def fetch_into(
    remote: Remote,
    name: str,
    files: Mapping[str, CubeFile],
    store: Store,
    folder: Path,
    tokens: int,
    *,
    parallel: int = 4,
) -> FetchedPrefix:
    """`fetch_prefix` of the memory with `files`, by media type, in repository `name`, into `folder`.

    `files` were verified: their digests are those of a signed manifest.

    Raises:
        As `fetch_prefix`.
    """
    small = [files[kind] for kind in (media_types.KV_MANIFEST, media_types.KV_TOKENS)]
    report = pull_blobs(remote, name, [file.descriptor() for file in small], store)
    make_folder(folder)
    manifest = KvManifest.parse(_placed(small[0], store, folder / activation.MANIFEST_FILE))
    _placed(small[1], store, folder / activation.TOKENS_FILE)
    if not 1 <= tokens <= manifest.key.token_count:
        raise NotFoundError(
            f"a prefix of {tokens} tokens of a memory of {manifest.key.token_count}",
            hint="ask for fewer tokens",
        )
    kv = files[media_types.KV]
    partial = folder / PARTIAL_FILE
    is_new = _make_holes(partial, kv.size)
    source = _Source(remote, name, kv.descriptor(), partial)
    moved = source.take_header(manifest)
    moved += sum(run(source, _missing(manifest, partial, tokens, is_new=is_new), parallel))
    return FetchedPrefix(folder, tokens, report.moved_bytes + moved)


@frozen
class _Part:
    """Whole blocks of a tensor that are missing: bytes `start` to `stop` of the file."""

    blocks: Blocks
    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return self.stop - self.start


@frozen
class _Source:
    """Where the bytes of one blob come from, and the file that they go to.

    Threads that were asked to end may still write: each write opens the file by itself.
    """

    remote: Remote
    name: str
    blob: Descriptor
    path: Path

    def __call__(self, part: _Part, stop: Stop) -> int:
        """Fetch `part`, check it and write it, however often the connection breaks; the bytes that came."""
        retry, failures = self.remote.http.retry, 0
        while True:
            try:
                content = read_range(
                    self.remote, self.name, self.blob, part.blocks, part.start, part.stop
                )
            except UnsafeRedirectError:
                raise
            except NetworkError as error:
                stop.check()
                failures += 1
                retry.wait(error, failures)
            else:
                self._write(content, part.start)
                return len(content)

    def take_header(self, manifest: KvManifest) -> int:
        """Fetch what stands before the tensors, unless it is here and right; the bytes that came.

        Raises:
            UnsupportedError: the registry sends whole blobs only.
            InvalidTensorsError: it describes other tensors than `manifest`.
        """
        size = min(blocks.start for blocks in manifest.blocks.values())
        limits.require_at_most("safetensors header", size, limits.SAFETENSORS_HEADER_BYTES)
        try:
            self._require_header(manifest, _read(self.path, 0, size))
        except InvalidTensorsError:
            content = self._begin(size)
            self._require_header(manifest, content)
            self._write(content, 0)
            return size
        return 0

    def _begin(self, size: int) -> bytes:
        with self.remote.open_blob(self.name, self.blob.digest, start=0, stop=size) as opened:
            if opened.status == 200 and opened.length != size:
                raise UnsupportedError(
                    f"{self.remote.host} sends no parts of blobs", hint="pull the whole memory"
                )
            return opened.content(size)

    def _require_header(self, manifest: KvManifest, content: bytes) -> None:
        activation.check_header(manifest, tensors.parse_header(content, self.blob.size))

    def _write(self, content: bytes, start: int) -> None:
        with (
            storage_errors(f"{self.path} cannot be written"),
            os.fdopen(open_file(self.path, os.O_RDWR), "r+b", buffering=0) as file,
        ):
            file.seek(start)
            write_all(file.fileno(), content)


def _kv_files(verified: Verified, memory_id: str) -> dict[str, CubeFile]:
    files = {file.media_type: file for file in verified.cube.files if file.memory == memory_id}
    wanted = (media_types.KV, media_types.KV_TOKENS, media_types.KV_MANIFEST)
    if not files.keys() >= set(wanted):
        raise NotFoundError(
            f"{verified.reference} has no KV memory {memory_id!r}",
            hint="memcube info shows its memories",
        )
    return {kind: files[kind] for kind in wanted}


def _placed(file: CubeFile, store: Store, path: Path) -> bytes:
    """Content of the small `file`, which lies at `path` as well."""
    content = read_verified(store, file.digest, file.size)
    replace_file(path, content)
    return content


def _make_holes(path: Path, size: int) -> bool:
    """Make the file at `path` `size` bytes long, with holes where it has none; whether there was nothing of it."""
    with (
        storage_errors(f"{path} cannot be written"),
        os.fdopen(open_file(path, os.O_RDWR | os.O_CREAT), "r+b", buffering=0) as file,
    ):
        held = os.fstat(file.fileno()).st_size
        if held != size:
            file.truncate(size)
        return not held


def _read(path: Path, start: int, stop: int) -> bytes:
    with (
        storage_errors(f"{path} cannot be read"),
        os.fdopen(open_file(path), "rb", buffering=0) as file,
    ):
        return os.pread(file.fileno(), stop - start, start)


def _missing(manifest: KvManifest, path: Path, tokens: int, *, is_new: bool) -> list[_Part]:
    """The blocks for the first `tokens` tokens that are not at `path`, or not right, in portions."""
    parts: list[_Part] = []
    for blocks in manifest.blocks.values():
        for start, stop in _block_spans(blocks, tokens):
            if not is_new and _is_here(blocks, path, start, stop):
                continue
            last = parts[-1] if parts else None
            joins = last is not None and (last.blocks, last.stop) == (blocks, start)
            if last and joins and stop - last.start <= _PORTION_BYTES:
                parts[-1] = _Part(blocks, last.start, stop)
            else:
                parts.append(_Part(blocks, start, stop))
    return parts


def _is_here(blocks: Blocks, path: Path, start: int, stop: int) -> bool:
    try:
        blocks.verify(_read(path, start, stop), start)
    except (DigestMismatchError, SizeMismatchError):
        return False
    return True


def _span(blocks: Blocks, tokens: int) -> tuple[int, int]:
    """Offsets of the blocks that hold the first `tokens` tokens of a tensor."""
    row = blocks.block_bytes // limits.KV_BLOCK_TOKENS
    return blocks.covering(blocks.start, blocks.start + row * tokens)


def _block_spans(blocks: Blocks, tokens: int) -> Sequence[tuple[int, int]]:
    start, end = _span(blocks, tokens)
    step = blocks.block_bytes
    return [(at, min(at + step, end)) for at in range(start, end, step)]
