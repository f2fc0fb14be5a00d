"""Opening the index of a cube: the one that is there, or one that is built now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError, StorageError

from memcube.memories import plaintext_edge, plaintext_place
from memcube.memories.plaintext_build import Entries, Records, Survey
from memcube.memories.plaintext_embedders import LSA, is_alike, probe
from memcube.memories.plaintext_embedding import Embedding
from memcube.memories.plaintext_engine import Engine
from memcube.memories.plaintext_lines import Lines
from memcube.memories.plaintext_place import SHARD, Note
from memcube.memories.plaintext_plugins import embedder_of
from memcube.memories.plaintext_vectors import CarriedVectors, write_vectors
from memcube.store import files

_EMBEDDER: Final = "embedder.safetensors"


@dataclass(frozen=True, slots=True)
class Parts:
    """What an open index is made of."""

    engine: Engine
    lines: Lines
    note: Note
    embedding: Embedding


def open_parts(
    root: Path,
    cube: Digest,
    records: Records,
    carried: Sequence[CarriedVectors],
    embedder: object,
) -> Parts:
    """The index of `cube` below the folder `root`, built from `records` where it is absent.

    Raises:
        MissingDependencyError: qdrant-edge-py, or what the embedder needs, is not installed.
        StorageError: the disk refuses, or the folder belongs to somebody else.
        MemcubeError: whatever reading the records or embedding raises; nothing is left behind then.
    """
    plaintext_edge.engine()
    embedding = Embedding.choose(
        carried, None if embedder is None else LSA if embedder == LSA else embedder_of(embedder)
    )
    files.make_folder(root)
    name = "-".join(filter(None, (cube.algorithm, cube.hex, embedding.variant)))
    place = root / name
    found = _load(place, cube, embedding)
    if found is not None:
        return found
    with plaintext_place.building(root, name):
        return _load(place, cube, embedding) or _make(place, cube, records, embedding)


def _load(place: Path, cube: Digest, embedding: Embedding) -> Parts | None:
    """The index at `place`, or nothing if it is absent, damaged, or of another make."""
    if not plaintext_place.exists(place):
        return None
    plaintext_place.require_own(place)
    note = Note.read(place)
    if note is None or note.cube != str(cube):
        return None
    try:
        embedding = _restored(place, embedding)
        lines = Lines(place)
    except (StorageError, InvalidError):
        return None
    try:
        if len(lines) != note.records:
            raise plaintext_edge.damaged(f"the index at {place} is damaged")
        return Parts(plaintext_edge.EdgeEngine(place / SHARD), lines, note, embedding)
    except StorageError:
        lines.close()
        return None


def _restored(place: Path, embedding: Embedding) -> Embedding:
    """`embedding` with the embedder that was fitted when the index at `place` was built.

    Raises:
        InvalidError, StorageError: it is damaged, or the embedder named makes other vectors by now.
    """
    if embedding.is_whole:
        return embedding
    with CarriedVectors(place / _EMBEDDER) as kept:
        if embedding.fits:
            return replace(embedding, embedder=kept.embedder())
        theirs = kept.probe()
    if (
        embedding.embedder is None
        or theirs is None
        or not is_alike(theirs, probe(embedding.embedder))
    ):
        raise plaintext_edge.damaged(f"the index at {place} is of another embedder")
    return embedding


def _make(place: Path, cube: Digest, records: Records, embedding: Embedding) -> Parts:
    survey = Survey.of(records)
    embedding = embedding.fitted(records, survey.records)
    with plaintext_place.made_whole(place) as folder:
        width = 0 if embedding.embedder is None else probe(embedding.embedder).shape[1]
        if embedding.embedder is not None and not embedding.is_whole:
            write_vectors(folder / _EMBEDDER, embedding.embedder, ())
        entries = Entries(records, survey, embedding, folder, width)
        held = plaintext_edge.build(folder / SHARD, entries, width=width)
        Note(
            cube=str(cube),
            records=survey.records,
            held=held,
            width=width,
            embedded=entries.embedded,
        ).write(folder)
    made = _load(place, cube, embedding)
    if made is None:
        raise StorageError(
            f"the index just built at {place} cannot be read", hint="look at the disk's health"
        )
    return made
