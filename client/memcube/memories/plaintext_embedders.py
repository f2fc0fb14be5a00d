"""Embedders: what makes vectors of texts, behind one small interface, and how to name one.

"lsa"                              fitted to the cube's own records when its index is built
"/models/bge-small-zh-v1.5"        a folder of sentence-transformers
"https://host/v1#model"            an endpoint of OpenAI's form; MEMCUBE_EMBEDDER_TOKEN is its token
"acme" or "acme:large"             the entry point `acme` of the group `memcube.embedders`
a function of texts                or any object that is an `Embedder`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from memcube_protocol.errors import InvalidError, MissingDependencyError, NotFoundError
from memcube_protocol.vectors import LIKENESS, NAME_CHARS, PROBES, WIDTH

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray

    from memcube.settings import Settings

    Matrix = NDArray[float32]
    """Vectors as rows."""

LSA: Final = "lsa"
GROUP: Final = "memcube.embedders"
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

    def query(self, text: str) -> Matrix:
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
            raise _refused(self.name, "its vectors differ in width")
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
        rows: Matrix = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise _refused(name, "what it returned are not vectors of numbers of one width") from error
    if rows.ndim != 2 or len(rows) != count or not 1 <= rows.shape[1] <= WIDTH:
        raise _refused(name, f"it returned an array of shape {rows.shape} for {count} texts")
    if width is not None and rows.shape[1] != width:
        raise _refused(
            name, f"its vectors have {rows.shape[1]} numbers, those of the index {width}"
        )
    if not np.isfinite(rows).all():
        raise _refused(name, "a vector holds NaN or infinity")
    return rows


def is_alike(one: Matrix, other: Matrix) -> bool:
    """Whether two embedders made the same of the probes: every pair of rows points the same way."""
    import numpy as np

    if one.shape != other.shape:
        return False
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    products = np.einsum("ij,ij->i", one, other)
    return bool((lengths > 0).all() and (products >= LIKENESS * lengths).all())


def probe(embedder: Embedder) -> Matrix:
    """What `embedder` makes of the probes.

    Raises:
        InvalidError: it makes no vectors.
    """
    return checked(embedder.texts(PROBES), len(PROBES), embedder.name)


def embedder_of(given: object, settings: Settings | None = None) -> Embedder:
    """The embedder that `given` names or is; "lsa" names one that is fitted, and none that is.

    Raises:
        NotFoundError: no folder, entry point or address of that name.
        MissingDependencyError: sentence-transformers is not installed.
        InvalidError: it is nothing of the kind.
    """
    if isinstance(given, Embedder):
        return given
    if callable(given):
        return FunctionEmbedder(given)
    if isinstance(given, Path):
        given = str(given)
    if not isinstance(given, str):
        raise _refused(type(given).__name__, "it is neither an embedder nor the name of one")
    if given.startswith(("http://", "https://")):
        from memcube.memories.plaintext_endpoint import EndpointEmbedder

        return EndpointEmbedder(given, settings)
    if Path(given).is_dir():
        return _sentence_transformer(Path(given))
    return _contributed(given)


def _sentence_transformer(folder: Path) -> Embedder:
    """The model of sentence-transformers in `folder`, with its own prompts; nothing is downloaded."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise MissingDependencyError(
            "embedding with a model's folder needs sentence-transformers, which is not installed",
            hint="pip install sentence-transformers, or serve the model: embedder='http://…/v1#name'",
        ) from None
    model = SentenceTransformer(
        str(folder.absolute()), local_files_only=True, trust_remote_code=False
    )
    return FunctionEmbedder(model.encode_document, name=folder.name, query=model.encode_query)


def _contributed(name: str) -> Embedder:
    """The embedder of an entry point: a factory, called with what stands behind the colon."""
    wanted, colon, argument = name.partition(":")
    found = next((entry for entry in entry_points(group=GROUP) if entry.name == wanted), None)
    if found is None:
        raise NotFoundError(
            f"no embedder {name[:200]!r}: neither a folder nor an installed plug-in",
            hint="name the folder of a sentence-transformers model, http(s)://host/v1#model, or lsa",
        )
    made = found.load()(argument) if colon else found.load()()
    if not isinstance(made, Embedder):
        raise _refused(name, "its entry point makes no embedder")
    return made


def _refused(name: str, why: str) -> InvalidError:
    return InvalidError(
        f"the embedder {name[:80]!r} is refused: {why}",
        hint="docs/guide/search.md says what an embedder is",
    )
