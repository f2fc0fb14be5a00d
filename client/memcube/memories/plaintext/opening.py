"""Opening the index of a cube: the one that is there, or one that is built now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidError, StorageError
from memcube_protocol.values import frozen

from memcube.memories.plaintext import place as plaintext_place
from memcube.memories.plaintext.build import Entries, Records, Survey
from memcube.memories.plaintext.embedders import is_alike, probe, refused_embedder
from memcube.memories.plaintext.embedding import Embedding
from memcube.memories.plaintext.engine import Engine, Engines
from memcube.memories.plaintext.lines import Lines
from memcube.memories.plaintext.place import SHARD, Note
from memcube.memories.plaintext.shard import damaged, require_space
from memcube.memories.plaintext.vectors import CarriedVectors, write_vectors
from memcube.store import files

_EMBEDDER: Final = "embedder.safetensors"


@frozen
class Parts:
    """What an open index is made of."""

    engine: Engine
    lines: Lines
    note: Note
    embedding: Embedding
    place: str = ""


@frozen
class Opener:
    """The index of `cube` below the folder `root`, by an engine, with the vectors of `embedding`.

    `records_bytes` are what the lines of its records take on the disk, as far as that is known.
    """

    root: Path
    cube: Digest
    engines: Engines
    embedding: Embedding
    records_bytes: int = 0

    @property
    def name(self) -> str:
        """What the index is called, here and on a server; it ends with the cube's digest in hex."""
        parts = (self.embedding.variant, self.engines.variant, self.cube.algorithm, self.cube.hex)
        return "-".join(filter(None, parts))

    def open(self, records: Records) -> Parts:
        """The index, built from `records` where it is absent.

        Raises:
            DiskFullError: the disk has no room for the records.
            StorageError: the disk refuses, or the folder belongs to somebody else.
            InvalidError: the embedder makes no vectors, or others each time.
            MemcubeError: whatever reading the records or embedding raises; nothing is left then.
        """
        files.make_folder(self.root)
        place = self.root / self.name
        found = self._load(place)
        if found is not None:
            return found
        with plaintext_place.building(self.root, self.name):
            return self._load(place) or self._make(place, records)

    def _load(self, place: Path) -> Parts | None:
        """The index at `place`, or nothing if it is absent, damaged, or of another make."""
        if not plaintext_place.exists(place):
            return None
        plaintext_place.require_own(place)
        note = Note.read(place)
        if note is None or note.cube != str(self.cube):
            return None
        try:
            if note.seal != plaintext_place.seal_of(place):
                return None
            embedding = self._restored(place, note)
            lines = Lines(place)
        except (StorageError, InvalidError):
            return None
        try:
            if len(lines) != note.records:
                raise damaged(f"the index at {place} is damaged")
            engine = self.engines.open(self.name, place / SHARD)
        except StorageError:
            lines.close()
            return None
        except BaseException:
            lines.close()
            raise
        return Parts(engine, lines, note, embedding, self.engines.said)

    def _restored(self, place: Path, note: Note) -> Embedding:
        """The embedding with the embedder that was fitted when the index at `place` was built.

        Raises:
            InvalidError, StorageError: it is damaged, or the embedder named makes other vectors now.
        """
        embedding = self.embedding
        if embedding.is_whole:
            return embedding
        if embedding.fits and not note.width:
            return embedding.without()
        with CarriedVectors(place / _EMBEDDER) as kept:
            fitted, theirs = kept.embedder(), kept.probe()
        if embedding.fits and fitted is not None:
            return replace(embedding, embedder=fitted)
        if theirs is None or embedding.probe is None or not is_alike(theirs, embedding.probe):
            raise damaged(f"the index at {place} is of another embedder")
        return embedding

    def _make(self, place: Path, records: Records) -> Parts:
        if self.embedding.fits and self.engines.variant:
            raise InvalidError(
                "LSA is fitted on each machine anew, and others search on the server with their own",
                hint="embed the cube before it is pushed (`memcube embed`), or search without a server",
            )
        # A small file can announce what fills a disk: whoever reads first stops when it is full.
        require_space(self.root, self.records_bytes)
        survey = Survey.of(records)
        embedding = self.embedding.fitted(records, survey.records)
        with plaintext_place.made_whole(place) as folder:
            width = _width(embedding)
            if embedding.embedder is not None and not embedding.is_whole:
                write_vectors(folder / _EMBEDDER, embedding.embedder, ())
            # What a server has already needs no vectors again, only the lines beside it.
            made = 0 if self.engines.has(self.name) else width
            entries = Entries(records, survey, embedding, folder, made)
            held = self.engines.build(self.name, folder / SHARD, entries, width)
            Note(
                cube=str(self.cube),
                records=survey.records,
                held=held,
                width=width,
                embedded=entries.embedded,
                seal=plaintext_place.seal_of(folder),
            ).write(folder)
        found = self._load(place)
        if found is None:
            raise StorageError(
                f"the index just built at {place} cannot be read",
                hint="look at the disk's health",
            )
        return found


def _width(embedding: Embedding) -> int:
    """How wide the vectors of its embedder are, 0 without one.

    Raises:
        InvalidError: it makes other ones of the probes each time: what is built with it could never be
            known again.
    """
    if embedding.embedder is None:
        return 0
    made = probe(embedding.embedder)
    if embedding.probe is not None and not is_alike(embedding.probe, made):
        raise refused_embedder(
            embedding.embedder.name, "it makes other vectors of the same texts each time"
        )
    return made.shape[1]
