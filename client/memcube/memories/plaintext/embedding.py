"""Which vectors an index is built with: those of the cube, some made here, or none; and it says which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from memcube_protocol.errors import InvalidError
from memcube_protocol.records import Record
from memcube_protocol.values import frozen

from memcube.memories.plaintext.embedders import LSA, Embedder, checked, is_alike, telling_probe
from memcube.memories.plaintext.lsa import LsaEmbedder
from memcube.memories.plaintext.vectors import CarriedVectors

if TYPE_CHECKING:
    from memcube.memories.plaintext.embedders import Matrix

ALONE: Final = "BM25 alone"


@frozen
class Embedding:
    """The embedder of questions, the vectors that the cube carries for it, and what to tell people.

    `fits` asks for an LSA to be fitted to the records, since nothing carries one. `probe` is what an
    embedder that was named makes of the probes.
    """

    said: str
    embedder: Embedder | None = None
    carried: CarriedVectors | None = None
    fits: bool = False
    probe: Matrix | None = None

    @classmethod
    def choose(
        cls, carried: Sequence[CarriedVectors], embedder: Embedder | str | None
    ) -> Embedding:
        """What to search a cube with that carries `carried`, for a consumer who names `embedder`, or none.

        Raises:
            InvalidTensorsError: a file of vectors is damaged.
            MemcubeError: the embedder fails.
        """
        if embedder is None or isinstance(embedder, str):
            for one in carried:
                if (own := one.embedder()) is not None:
                    return cls(f"BM25 and vectors: the cube's own ({own.name})", own, one)
            if embedder == LSA:
                return cls("BM25 and vectors: LSA, fitted here to these records", fits=True)
            return cls(f"{ALONE}: {_lacking(carried)}")
        made = telling_probe(embedder)
        for one in carried:
            theirs = one.probe()
            if theirs is not None and is_alike(theirs, made):
                said = f"BM25 and vectors: the cube's own, by the embedder named ({embedder.name})"
                return cls(said, embedder, one, probe=made)
        why = _others(carried) if carried else "the cube carries none"
        return cls(f"BM25 and vectors by {embedder.name}, made here: {why}", embedder, probe=made)

    @property
    def is_whole(self) -> bool:
        """Whether the cube itself has all that its index needs at the next opening."""
        owned = self.carried is not None and self.carried.file.terms > 0
        return not self.fits and (self.embedder is None or owned)

    @property
    def variant(self) -> str:
        """What tells the index of these vectors from others of the same cube; empty without any."""
        if self.fits:
            return "lsa"
        if self.embedder is None:
            return ""
        origin = self.carried.name if self.carried else ""
        marks = f"{self.embedder.name}\n{origin}\n{_extremes(self.probe)}"
        return sha256(marks.encode()).hexdigest()[:16]

    def fitted(self, records: Callable[[], Iterable[Record]], total: int) -> Embedding:
        """This, with an embedder fitted to `records` where one is asked for, and can be."""
        if not self.fits:
            return self
        try:
            return replace(self, embedder=LsaEmbedder.fit(records(), total=total))
        except InvalidError:
            return self.without()

    def without(self) -> Embedding:
        """This where the records teach LSA nothing."""
        return replace(self, said=f"{ALONE}: the records share too few words to fit LSA to")

    def vectors(
        self, texts: Sequence[str], width: int | None = None
    ) -> tuple[list[Matrix | None], int]:
        """The vector of each of `texts`, None where there is none; and how many were made here.

        Raises:
            InvalidError: what the embedder makes does not fit to `width`, or is not finite.
            InvalidTensorsError: the cube's vectors are not finite.
        """
        found = [self.carried.find(text) if self.carried else None for text in texts]
        missing = [place for place, vector in enumerate(found) if vector is None]
        if self.embedder is not None and missing:
            asked = [texts[place] for place in missing]
            made = checked(self.embedder.texts(asked), len(asked), self.embedder.name, width=width)
            for place, vector in zip(missing, made, strict=True):
                found[place] = vector
        return [None if one is None or not one.any() else one for one in found], len(missing)


def _extremes(probe: Matrix | None) -> str:
    """Where each vector of a probe is largest: the same on every machine, other than its numbers."""
    if probe is None:
        return ""
    places = abs(probe).argmax(1)
    signs = [probe[row, place] < 0 for row, place in enumerate(places)]
    return f"{probe.shape[1]} {places.tolist()} {[bool(sign) for sign in signs]}"


def _lacking(carried: Sequence[CarriedVectors]) -> str:
    if not carried:
        return "the cube carries no vectors, and no embedder is named"
    return f"the cube's vectors are by {_names(carried)}, and that embedder is not named"


def _others(carried: Sequence[CarriedVectors]) -> str:
    return f"the cube's are by {_names(carried)}, which embeds otherwise"


def _names(carried: Sequence[CarriedVectors]) -> str:
    return ", ".join(sorted({one.name for one in carried}))
