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

from memcube.memories.plaintext_embedders import LSA

if TYPE_CHECKING:
    from memcube.memories.plaintext_embedders import Matrix

WIDTH: Final = 128
SHARE: Final = 0.25
"""What its vectors count beside BM25, measured (docs/adr/0027)."""
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
        self._rows = {int(term): row for row, term in enumerate(terms)}

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

        counts = _counts_by_subject(records, max(1, total // FITTED_RECORDS))
        holding: Counter[int] = Counter()
        for count in counts:
            holding.update(count.keys())
        shared = [(term, number) for term, number in holding.items() if number > 1]
        shared = sorted(shared, key=lambda pair: (-pair[1], pair[0]))[:VOCABULARY]
        width = min(width, len(counts) - 1, len(shared) - 1)
        if width < 1:
            raise InvalidError(
                f"{len(counts)} texts share {len(shared)} words: too few to fit LSA to",
                hint="search without vectors, or name an embedder that is a model",
            )
        terms = np.array(sorted(term for term, _ in shared), dtype=np.uint32)
        rarity = np.log(len(counts) / np.array([holding[int(term)] for term in terms]))
        directions = _directions(_weighted(counts, terms, rarity), width)
        return cls(terms, (directions * rarity[:, None]).astype(np.float32))

    def texts(self, texts: Sequence[str]) -> Matrix:
        """See `Embedder.texts`."""
        import numpy as np

        return np.stack([self._vector(_counts(one)) for one in texts])

    def query(self, text_: str) -> Matrix:
        """See `Embedder.query`."""
        asked = {text.term_id(term): 1 for term in text.query_weights(text_)}
        return self._vector(asked)[None, :]

    def _vector(self, counts: dict[int, int]) -> Matrix:
        """The unit vector of terms and how often each occurs; zeros where none is known."""
        import numpy as np

        known = [
            (row, n) for term, n in counts.items() if (row := self._rows.get(term)) is not None
        ]
        if not known:
            return np.zeros(self.width, dtype=np.float32)
        rows, often = np.array(known).T
        summed: Matrix = (1 + np.log(often)).astype(np.float32) @ self.weights[rows]
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


def _weighted(counts: list[Counter[int]], terms: Any, rarity: Any) -> Any:
    """The sparse matrix [texts, terms] of log frequency times rarity, each row of length 1."""
    import numpy as np

    sparse = _scipy()
    columns = {int(term): column for column, term in enumerate(terms)}
    data: list[float] = []
    indices: list[int] = []
    starts = [0]
    for count in counts:
        for term, often in count.items():
            if (column := columns.get(term)) is not None:
                indices.append(column)
                data.append(float(often))
        starts.append(len(indices))
    shape = (len(counts), len(terms))
    matrix = sparse.csr_matrix((np.array(data), indices, starts), shape=shape)
    matrix.data = (1 + np.log(matrix.data)) * rarity[matrix.indices]
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    scale = np.repeat(1 / np.maximum(lengths, 1e-12), np.diff(matrix.indptr))
    matrix.data = (matrix.data * scale).astype(np.float32)
    return matrix.astype(np.float32)


def _directions(matrix: Any, width: int) -> Any:
    """The first right singular vectors of `matrix` as columns: randomised, with one power iteration.

    Halko, Martinsson and Tropp, "Finding structure with randomness", algorithms 4.4 and 5.1.
    """
    import numpy as np

    chosen = np.random.default_rng(_SEED)
    probes = min(width + _OVERSAMPLED, *matrix.shape)
    basis, _ = np.linalg.qr(matrix @ chosen.standard_normal((matrix.shape[1], probes), np.float32))
    basis, _ = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ basis)[0])
    _, _, right = np.linalg.svd((matrix.T @ basis).T, full_matrices=False)
    return right[:width].T


def _scipy() -> Any:
    try:
        from scipy import sparse
    except ImportError:
        raise MissingDependencyError(
            "fitting LSA needs scipy, which is not installed",
            hint="pip install 'memcube[plaintext]'",
        ) from None
    return sparse
