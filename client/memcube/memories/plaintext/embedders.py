"""Embedders: what makes vectors of texts, behind one small interface, and how two are told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from memcube_protocol.errors import InvalidError
from memcube_protocol.vectors import LIKENESS, NAME_CHARS, PROBES, WIDTH

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    Matrix = NDArray[float32]
    """Vectors as rows."""

LSA: Final = "lsa"
BATCH: Final = 64
SHARE: Final = 0.5
"""What vectors count beside BM25 where nothing was measured: as much as words."""


@runtime_checkable
class Embedder(Protocol):
    """Makes vectors of texts, all of one width; texts with one meaning lie close by the cosine."""

    @property
    def name(self) -> str:
        """What people call it; it decides nothing."""
        ...

    @property
    def share(self) -> float:
        """What its vectors count in a search, from 0 (nothing) to 1 (all; words count nothing)."""
        ...

    @property
    def remote(self) -> bool:
        """Whether texts leave this machine to be embedded."""
        ...

    def texts(self, texts: Sequence[str]) -> Matrix:
        """One row for each of `texts`; zeros where it can make nothing of one."""
        ...

    def query(self, text: str, /) -> Matrix:
        """The vector of a question, as one row."""
        ...


class FunctionEmbedder:
    """A function from texts to one vector each as an embedder; `query` is another one for questions."""

    def __init__(
        self,
        function: Callable[[Sequence[str]], Any],
        *,
        name: str = "",
        query: Callable[[Sequence[str]], Any] | None = None,
        share: float = SHARE,
        remote: bool = False,
    ) -> None:
        self._function = function
        self._query = query or function
        self.name = name or getattr(function, "__qualname__", type(function).__qualname__)
        self.share = share
        self.remote = remote
        if not 0 <= share <= 1 or len(self.name) > NAME_CHARS or not self.name.isprintable():
            raise InvalidError(
                f"embedder {self.name[:80]!r} with a share of {share} is refused",
                hint=f"name it in at most {NAME_CHARS} characters; its share lies between 0 and 1",
            )

    def texts(self, texts: Sequence[str]) -> Matrix:
        """See `Embedder.texts`.

        Raises:
            InvalidError: what comes back is not one finite vector for each text.
        """
        import numpy as np

        parts = [
            checked(self._function(batch), len(batch), self.name)
            for batch in (texts[at : at + BATCH] for at in range(0, len(texts), BATCH))
        ]
        if len({part.shape[1] for part in parts}) > 1:
            raise refused_embedder(self.name, "its vectors differ in width")
        return np.concatenate(parts)

    def query(self, text: str) -> Matrix:
        """See `Embedder.query`; raises as `texts`."""
        return checked(self._query([text]), 1, self.name)


def checked(vectors: Any, count: int, name: str, *, width: int | None = None) -> Matrix:
    """`vectors` as `count` rows of finite numbers, `width` each, by the embedder `name`.

    Raises:
        InvalidError: they are something else.
    """
    import numpy as np

    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinity, which is refused
            rows: Matrix = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise refused_embedder(
            name, "what it returned are not vectors of numbers of one width"
        ) from error
    if rows.ndim != 2 or len(rows) != count or not 1 <= rows.shape[1] <= WIDTH:
        raise refused_embedder(
            name, f"it returned an array of shape {rows.shape} for {count} texts"
        )
    if width is not None and rows.shape[1] != width:
        raise refused_embedder(
            name, f"its vectors have {rows.shape[1]} numbers, those of the index {width}"
        )
    if not np.isfinite(rows).all():
        raise refused_embedder(name, "a vector holds NaN or infinity")
    return rows


def is_alike(one: Matrix, other: Matrix) -> bool:
    """Whether two embedders made the same of the probes: every pair of rows points the same way.

    A text of which both make nothing decides nothing; one at least has to decide.
    """
    import numpy as np

    if one.shape != other.shape:
        return False
    wide = one.astype(np.float64), other.astype(np.float64)  # squares of large numbers fit
    lengths = [np.linalg.norm(rows, axis=1) for rows in wide]
    decides = lengths[0] + lengths[1] > 0
    products = np.einsum("ij,ij->i", *wide)[decides]
    least = LIKENESS * (lengths[0] * lengths[1])[decides]
    return bool(decides.any() and (least > 0).all() and (products >= least).all())


def probe(embedder: Embedder) -> Matrix:
    """What `embedder` makes of the probes.

    Raises:
        InvalidError: it makes no vectors.
    """
    return checked(embedder.texts(PROBES), len(PROBES), embedder.name)


def telling_probe(embedder: Embedder) -> Matrix:
    """As `probe`, of an embedder that is told from others by it.

    Raises:
        InvalidError: it makes no vectors, or none of any of the probes.
    """
    made = probe(embedder)
    if not made.any():
        raise refused_embedder(embedder.name, "it makes zeros of every text that it is tried with")
    return made


def refused_embedder(name: str, why: str) -> InvalidError:
    """The error of an embedder that cannot be used."""
    return InvalidError(
        f"the embedder {name[:80]!r} is refused: {why}",
        hint="docs/guide/finding-records.md says what an embedder is",
    )
