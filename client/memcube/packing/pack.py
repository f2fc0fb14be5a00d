"""Packing: a folder becomes a cube in the local store, and the same folder the same bytes.

Times come from `memcube.toml` or SOURCE_DATE_EPOCH, else from the earlier pack of the same name and
version if nothing else has changed, else from the clock: an unchanged folder keeps its digest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from memcube_protocol import media_types, oci
from memcube_protocol.content import read_verified
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidConfigError,
    InvalidSettingError,
    MemcubeError,
    NotFoundError,
)
from memcube_protocol.reference import Reference, tag_of_version
from memcube_protocol.values import frozen

from memcube.packing.contents import Contents, Kept
from memcube.packing.draft import Draft
from memcube.packing.kinds import Folder, open_folder
from memcube.store import Store

if TYPE_CHECKING:
    from memcube.packing.embedding import Embedding

EPOCH_VARIABLE: Final = "SOURCE_DATE_EPOCH"
_NAMED: Final = 10


@frozen
class Packed:
    """A cube in the local store, under `reference` (without a host).

    `unchanged` says that an earlier pack had the same digest; `notes` are for the user: files left
    out, secrets dropped.
    """

    cube: Cube
    reference: Reference
    unchanged: bool
    notes: tuple[str, ...] = ()


def pack_folder(
    folder: Path,
    store: Store,
    *,
    name: str | None = None,
    version: str | None = None,
    environ: Mapping[str, str] | None = None,
    embedding: Embedding | None = None,
    kept: Kept = lambda _file, _copied: None,
    known: Store | None = None,
) -> Packed:
    """Pack `folder` into `store`; `name` and `version` win over those of `memcube.toml`. See `pack_opened`.

    Raises:
        NotFoundError: there is no such folder.
        MemcubeError: as `pack_opened`.
    """
    opened = open_folder(folder, name=name, version=version)
    return pack_opened(
        folder, opened, store, environ=environ, embedding=embedding, kept=kept, known=known
    )


def pack_opened(
    folder: Path,
    opened: Folder,
    store: Store,
    *,
    environ: Mapping[str, str] | None = None,
    embedding: Embedding | None = None,
    kept: Kept = lambda _file, _copied: None,
    known: Store | None = None,
) -> Packed:
    """Pack `folder`, as it was when it was `opened`, into `store`.

    `embedding` adds vectors of its records, which the folder does not hold. `kept` hears of the card and
    the records before it hears of attachments and tensors. Earlier packs are looked for in the
    store `known`, by default in `store` itself.

    Raises:
        NotFoundError: a file is gone since.
        InvalidError, LimitExceededError: a file breaks a rule; the error names it.
        MemcubeError: whatever `Embedding.add_to` raises.
        StorageError: the store cannot be written, or a file not be read.
    """
    reference = local_reference(opened.draft)
    known = known or store
    earlier = EarlierPacks.of(known, opened.draft.name)
    previous = earlier.cube_of(reference)
    fixed = _fixed_time(os.environ if environ is None else environ)
    with known.session(), store.session():
        contents = Contents(store.blobs, opened.draft.titles, earlier.sizes, kept=kept)
        opened.fill(contents, earlier.compressed)
        _require_memory(folder, opened, contents)
        notes = (embedding.add_to(contents, opened.draft),) if embedding else ()
        cube = _assemble(opened, contents, fixed, previous)
        keep_cube(store, cube)
        store.put_ref(reference, cube.digest, kept=True)
    unchanged = previous is not None and previous.digest == cube.digest
    return Packed(cube, reference, unchanged, (*opened.notes(), *notes))


def _require_memory(folder: Path, opened: Folder, contents: Contents) -> None:
    """Refuse a cube of which nobody could remember anything; the error says what was skipped."""
    if all(memory.records == 0 for memory in contents.memories):
        why = "".join(f"; {note}" for note in opened.notes()[:_NAMED])
        raise InvalidConfigError(
            f"{folder} yields no memory: no record was found{why}",
            hint="write notes as text in UTF-8 (.md, .txt) or records into plaintext/records.jsonl",
        )


def local_reference(draft: Draft) -> Reference:
    """The name of a pack in the local store: no host, the version as its tag."""
    return Reference("", draft.name, tag_of_version(draft.version))


def keep_cube(store: Store, cube: Cube) -> None:
    """Write the config and the manifest of `cube` into `store`; its layers lie there already."""
    store.blobs.add(cube.config.write())
    store.blobs.add(cube.manifest.raw)


def read_cube(store: Store, digest: Digest) -> Cube:
    """The cube whose manifest is `digest`, from `store`, both manifest and config verified.

    Raises:
        NotFoundError: the store lacks the manifest or the config.
        IntegrityError, InvalidError: they are damaged, or not a cube's.
    """
    manifest = oci.parse_manifest(read_verified(store, digest))
    if manifest.config is None:
        raise NotFoundError(f"{digest} has no config", hint="it is not a cube")
    return Cube.read(manifest, read_verified(store, manifest.config.digest))


@frozen
class EarlierPacks:
    """What the store holds of earlier versions: compressed shards to use again, times to keep.

    `sizes` are the bytes of the files by their paths.
    """

    store: Store
    shards: Mapping[Digest, Digest]
    sizes: Mapping[str, int]

    @classmethod
    def of(cls, store: Store, name: str) -> EarlierPacks:
        """Earlier packs and pulled versions called `name`, at any host."""
        known: dict[Digest, Digest] = {}
        sizes: dict[str, int] = {}
        for ref in store.refs():
            if ref.reference.name != name:
                continue
            try:
                manifest = oci.parse_manifest(read_verified(store, ref.digest))
            except MemcubeError:
                continue  # what is damaged or no cube saves no compression, and that is all
            for layer in manifest.layers:
                sizes[layer.annotations.get(media_types.TITLE, "")] = layer.size
                text = layer.annotations.get(media_types.UNCOMPRESSED_DIGEST)
                if text and layer.media_type == media_types.RECORDS:
                    known[Digest.parse(text)] = layer.digest
        return cls(store, known, sizes)

    def compressed(self, uncompressed: Digest) -> bytes | None:
        """See `shards.Reuse`."""
        digest = self.shards.get(uncompressed)
        if digest is None or not self.store.has(digest):
            return None
        return read_verified(self.store, digest)

    def cube_of(self, reference: Reference) -> Cube | None:
        """The earlier pack of this name and version."""
        ref = self.store.ref(reference)
        try:
            return read_cube(self.store, ref.digest) if ref else None
        except MemcubeError:
            return None  # a damaged pack is written anew


def _assemble(
    opened: Folder, contents: Contents, fixed: datetime | None, previous: Cube | None
) -> Cube:
    draft = opened.draft
    if fixed is None and previous is not None:
        again = Cube.write(
            draft.config(contents.memories, previous.config.created_at), contents.files
        )
        if again.digest == previous.digest:
            return again
    now = fixed or datetime.now(UTC).replace(microsecond=0)
    return Cube.write(draft.config(contents.memories, now), contents.files)


def _fixed_time(environ: Mapping[str, str]) -> datetime | None:
    text = environ.get(EPOCH_VARIABLE)
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 11:
        raise InvalidSettingError(
            f"{EPOCH_VARIABLE} is {text[:40]!r}, not a number of seconds",
            hint="set it to the seconds since 1970, or unset it",
        )
    return datetime.fromtimestamp(int(text), UTC)
