"""Latent semantic analysis: an embedder that needs no model, fitted to a cube's own records.

Texts become weighted terms (log frequency times rarity, TF-IDF) and then the directions in which the
terms of the cube occur together (truncated singular value decomposition). It knows the cube's words and
nothing else: it finds `directory` for `folder` where the records use both alike, and never by knowledge of
the language. Records that share a subject are fitted as one text, so that a page and its translation
teach it pairs of words.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self
from zlib import crc32

from memcube_protocol import text
from memcube_protocol.errors import InvalidError, MissingDependencyError
from memcube_protocol.records import Record
from memcube_protocol.vectors import indexed_text

from memcube.memories.plaintext.embedders import LSA

if TYPE_CHECKING:
    from memcube.memories.plaintext.embedders import Matrix

WIDTH: Final = 128
SHARE: Final = 0.25
"""What its vectors count beside BM25, measured (docs/adr/0034)."""
VOCABULARY: Final = 50_000
"""Most terms that are kept: those that the most texts hold."""
FITTED_RECORDS: Final = 20_000
"""About as many records are fitted at most, whole subjects at a time: more cost time and teach little."""
_OVERSAMPLED: Final = 16
_SEED: Final = 0


class LsaEmbedder:
    """`weights` [terms, width] of the terms whose numbers are `terms`, ascending."""

    name: str = LSA
    share: float = SHARE
    remote: bool = False

    def __init__(self, terms: Any, weights: Matrix) -> None:
        self.terms = terms
        self.weights = weights

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return int(self.weights.shape[1])

    @classmethod
    def fit(cls, records: Iterable[Record], *, total: int = 0, width: int = WIDTH) -> Self:
        """The embedder of `records`. The same records give the same one on the same machine.

        Of `total` records, if that is known, a part is taken where there are very many.

        Raises:
            InvalidError: the records share too few words: there is nothing to learn.
            MissingDependencyError: scipy is not installed.
        """
        import numpy as np

        rows = _counts_by_subject(records, -(-total // FITTED_RECORDS) or 1)
        found = np.concatenate(
            [np.fromiter(row, np.uint32, len(row)) for row in rows] or [np.zeros(0, np.uint32)]
        )
        terms, holding = np.unique(found, return_counts=True)
        kept = np.flatnonzero(holding > 1)
        kept = np.sort(kept[np.argsort(-holding[kept], kind="stable")[:VOCABULARY]])
        width = min(width, len(rows) - 1, len(kept) - 1)
        if width < 1:
            raise InvalidError(
                f"{len(rows)} texts share {len(kept)} words: too few to fit LSA to",
                hint="search without vectors, or name an embedder that is a model",
            )
        terms, rarity = terms[kept].astype(np.uint32), np.log(len(rows) / holding[kept])
        directions = _directions(_weighted(rows, terms, rarity), width)
        return cls(terms, (directions * rarity[:, None]).astype(np.float32))

    def texts(self, texts: Sequence[str]) -> Matrix:
        """See `Embedder.texts`."""
        import numpy as np

        return np.stack([self._vector(_counts(one)) for one in texts])

    def query(self, text_: str) -> Matrix:
        """See `Embedder.query`."""
        asked = dict.fromkeys(map(text.term_id, text.query_weights(text_)), 1)
        return self._vector(Counter(asked))[None, :]

    def _vector(self, counts: Counter[int]) -> Matrix:
        """The unit vector of terms and how often each occurs; zeros where none is known."""
        import numpy as np

        places, often = _known(counts, self.terms)
        if not len(places):
            return np.zeros(self.width, dtype=np.float32)
        summed: Matrix = (1 + np.log(often)).astype(np.float32) @ self.weights[places]
        length = float(np.linalg.norm(summed))
        return summed / length if length else summed


def _counts(text_: str) -> Counter[int]:
    return Counter(map(text.term_id, text.terms(text_)))


def _counts_by_subject(records: Iterable[Record], one_of: int) -> list[Counter[int]]:
    """How often each term occurs in each text that is fitted: a record, or all of one subject."""
    alone: list[Counter[int]] = []
    together: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for record in records:
        if crc32((record.subject or record.id).encode()) % one_of:
            continue
        counts = _counts(indexed_text(record))
        if record.subject is None:
            alone.append(counts)
        else:
            together[record.subject].update(counts)
    return alone + list(together.values())


def _known(counts: Counter[int], terms: Any) -> tuple[Any, Any]:
    """Where the terms of `counts` stand in `terms`, which ascend, and how often each occurs."""
    import numpy as np

    found = np.fromiter(counts.keys(), np.uint32, len(counts))
    often = np.fromiter(counts.values(), np.float64, len(counts))
    places = np.minimum(np.searchsorted(terms, found), len(terms) - 1)
    known = terms[places] == found
    return places[known], often[known]


def _weighted(rows: list[Counter[int]], terms: Any, rarity: Any) -> Any:
    """The sparse matrix [texts, terms] of log frequency times rarity, each row of length 1."""
    import numpy as np

    known = [_known(row, terms) for row in rows]
    starts = np.cumsum([0, *(len(places) for places, _ in known)])
    columns = np.concatenate([places for places, _ in known])
    data = (1 + np.log(np.concatenate([often for _, often in known]))) * rarity[columns]
    squares = np.add.reduceat(np.append(data * data, 0.0), starts[:-1])
    lengths = np.where(np.diff(starts) > 0, np.sqrt(squares), 1.0)
    data /= np.repeat(np.maximum(lengths, 1e-12), np.diff(starts))
    shape = (len(rows), len(terms))
    return _sparse().csr_matrix((data.astype(np.float32), columns, starts), shape=shape)


def _directions(matrix: Any, width: int) -> Any:
    """The first right singular vectors of `matrix` as columns: randomised, with one power iteration.

    Halko, Martinsson and Tropp, "Finding structure with randomness", algorithms 4.3 and 5.1.
    """
    import numpy as np

    chosen = np.random.default_rng(_SEED)
    probes = min(width + _OVERSAMPLED, *matrix.shape)
    guess = matrix @ chosen.standard_normal((matrix.shape[1], probes), np.float32)
    basis, _ = np.linalg.qr(matrix @ (matrix.T @ guess))
    small = (matrix.T @ basis).astype(np.float64)
    squares, left = np.linalg.eigh(small.T @ small)
    first = slice(None, -width - 1, -1)
    return small @ left[:, first] / np.sqrt(np.maximum(squares[first], 1e-12))


def _sparse() -> Any:
    try:
        from scipy import sparse
    except ImportError:
        raise MissingDependencyError(
            "fitting LSA needs scipy, which is not installed",
            hint="pip install 'memcube[plaintext]'",
        ) from None
    return sparse
