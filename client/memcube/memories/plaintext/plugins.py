"""Which embedder a consumer names.

"lsa"                              fitted to the cube's own records when its index is built
"/models/bge-small-zh-v1.5"        a folder of sentence-transformers
"https://host/v1#model"            an endpoint of OpenAI's form; MEMCUBE_EMBEDDER_TOKEN is its token
"acme" or "acme:large"             the entry point `acme` of the group `memcube.embedders`
a function of texts                or any object that is an `Embedder`
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from memcube_protocol.errors import MissingDependencyError, NotFoundError

from memcube.memories.plaintext.embedders import LSA, Embedder, FunctionEmbedder, refused_embedder
from memcube.settings import Settings

GROUP: Final = "memcube.embedders"
_ADDRESSES: Final = ("http://", "https://")


def embedder_of(given: object, settings: Settings | None = None) -> Embedder | str | None:
    """The embedder that `given` names or is; nothing for nothing, and "lsa" as it is: it is fitted later.

    Raises:
        NotFoundError: no folder, entry point or address of that name.
        MissingDependencyError: sentence-transformers is not installed.
        InvalidError: it is nothing of the kind.
    """
    if given is None:
        return None
    if given == LSA:
        return LSA
    if isinstance(given, Embedder):
        return given
    if callable(given):
        return FunctionEmbedder(given)
    if isinstance(given, Path):
        return _sentence_transformer(given)
    if not isinstance(given, str):
        raise refused_embedder(
            type(given).__name__, "it is neither an embedder nor the name of one"
        )
    if given.startswith(_ADDRESSES):
        from memcube.memories.plaintext.endpoint import EndpointEmbedder

        return EndpointEmbedder(given, settings)
    if "/" in given:
        return _sentence_transformer(Path(given))
    return _contributed(given)


def reached(given: object, settings: Settings | None = None) -> object:
    """`given` as far as it has to be made to say where texts go: all but the folder of a model.

    That takes seconds to load, and sends nothing anywhere.

    Raises:
        As `embedder_of`.
    """
    is_folder = isinstance(given, Path) or (
        isinstance(given, str) and "/" in given and not given.startswith(_ADDRESSES)
    )
    return given if is_folder else embedder_of(given, settings)


def places_of(given: object, settings: Settings | None = None) -> tuple[str, ...]:
    """Where but to this machine texts go to be embedded by what `given` is or names: for a cube's rules.

    Raises:
        As `embedder_of`.
    """
    made = reached(given, settings)
    return (f"the embedder {made.name}",) if isinstance(made, Embedder) and made.remote else ()


def _sentence_transformer(folder: Path) -> Embedder:
    """The model of sentence-transformers in `folder`, with its own prompts; nothing is downloaded."""
    if not folder.is_dir():
        raise NotFoundError(
            f"no folder {folder}", hint="name the folder of a model, such as ./model"
        )
    try:
        from sentence_transformers import (  # pyright: ignore[reportMissingImports]
            SentenceTransformer,
        )
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
    from importlib.metadata import entry_points

    wanted, colon, argument = name.partition(":")
    found = next((entry for entry in entry_points(group=GROUP) if entry.name == wanted), None)
    if found is None:
        raise NotFoundError(
            f"no embedder {name[:200]!r}: neither a folder nor an installed plug-in",
            hint="name the folder of a sentence-transformers model, http(s)://host/v1#model, or lsa",
        )
    made = found.load()(argument) if colon else found.load()()
    if not isinstance(made, Embedder):
        raise refused_embedder(name, "its entry point makes no embedder")
    return made
