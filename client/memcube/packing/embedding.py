"""Vectors of a cube's records, made before it is published: `memcube embed`, `memcube pack --embed`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol.content import read_verified
from memcube_protocol.errors import InvalidConfigError, NotFoundError
from memcube_protocol.media_types import RECORDS
from memcube_protocol.records import Record
from memcube_protocol.shards import read_shards
from memcube_protocol.values import frozen
from memcube_protocol.vectors import indexed_text

from memcube.packing.draft import Draft
from memcube.packing.scan import FoundFile
from memcube.store.files import storage_errors

if TYPE_CHECKING:
    from memcube.packing.contents import Contents
    from memcube.settings import Settings

VECTORS: Final = "plaintext/vectors"


@frozen
class Embedded:
    """A file of `count` vectors at `path`, made by `embedder`."""

    path: Path
    embedder: str
    count: int


@frozen
class Embedding:
    """What makes the vectors: an embedder, or what `memories.plaintext.plugins.embedder_of` takes."""

    embedder: object
    settings: Settings | None = None

    def write(
        self, folder: Path, draft: Draft, records: Callable[[], Iterable[Record]]
    ) -> Embedded:
        """Embed `records`, which are read more than once; the file is called as the embedder, in `folder`.

        LSA, which needs no model, is fitted to the records and stands in the file beside the vectors.

        Raises:
            NotFoundError: there is no such embedder.
            InvalidError: it makes no vectors; or the records share too few words for LSA.
            MissingDependencyError: what it needs is not installed.
            RuleRefusedError: the texts of `draft` are to stay on this machine, and it is elsewhere.
        """
        from memcube.memories.plaintext.vectors import write_vectors
        from memcube.rules import require_embedding

        made, places = self._made()
        require_embedding(draft.name, draft.governance, places, datetime.now(UTC))
        fitted = made if made is not None else _fitted(records)
        name = "-".join(re.findall(r"[a-z0-9.]+", fitted.name.lower())).strip(".-") or "vectors"
        path = folder / f"{name}.safetensors"
        with storage_errors(f"{path} cannot be written"):
            folder.mkdir(parents=True, exist_ok=True)
        count = write_vectors(path, fitted, map(indexed_text, records()))
        return Embedded(path, fitted.name, count)

    def add_to(self, contents: Contents, draft: Draft) -> str:
        """Embed the records that `contents` holds; says what was made.

        Raises:
            NotFoundError: it holds none; and all that `write` raises.
            InvalidConfigError: the folder brings vectors of this embedder along.
        """
        layers = [file.descriptor() for file in contents.files if file.media_type == RECORDS]
        if not layers:
            raise NotFoundError(f"{draft.name} holds no records to embed", hint="leave --embed out")
        with TemporaryDirectory(prefix="memcube-") as folder:
            made = self.write(
                Path(folder),
                draft,
                lambda: read_shards(
                    (read_verified(contents.blobs, layer.digest), layer) for layer in layers
                ),
            )
            path = f"{VECTORS}/{made.path.name}"
            if any(file.path == path for file in contents.files):
                raise InvalidConfigError(
                    f"the folder holds {path} already",
                    hint="leave --embed out, or remove the file: `memcube embed` writes it anew",
                )
            contents.add_vectors(FoundFile(path, made.path, made.path.stat().st_size))
        return f"embedded {made.count} texts with {made.embedder}"

    def _made(self) -> tuple[Any, tuple[str, ...]]:
        """The embedder, None for LSA; and where texts go."""
        from memcube.memories.plaintext.plugins import embedder_of, places_of

        made = embedder_of(self.embedder, self.settings)
        return (None if made is None or isinstance(made, str) else made), places_of(made)


def _fitted(records: Callable[[], Iterable[Record]]) -> Any:
    from memcube.memories.plaintext.lsa import LsaEmbedder

    return LsaEmbedder.fit(records(), total=sum(1 for _ in records()))
