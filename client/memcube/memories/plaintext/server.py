"""A Qdrant server that a team shares, through qdrant-client.

The server keeps numbers of terms, vectors, and the fields that filters ask for (tags, subjects, sources,
times); no text and no id. Records are shown from the verified cube on this machine, and checked against
the filters again, so a server that errs or lies can change the order of what is found, and hide records,
and nothing else. Who may reach the server can see and change what it holds.

A collection is filled under a name of its own; then an alias is set, which is what clients look for. One
that was not finished is never seen.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from memcube_protocol.errors import (
    InvalidSettingError,
    MissingDependencyError,
    NetworkError,
    StorageError,
)

from memcube.memories.plaintext.engine import Engine, Entry, Match, SparseVector, batches
from memcube.memories.plaintext.filters import (
    NAMES,
    SENSITIVITY,
    TIMES,
    AtMost,
    Condition,
    Conditions,
    OneOf,
)
from memcube.settings import Settings

TOKEN_VARIABLE: Final = "MEMCUBE_QDRANT_TOKEN"
TERMS: Final = "bm25"
VECTOR: Final = "dense"
_PREFIX: Final = "memcube-"
_BATCH: Final = 500
_TIMEOUT_S: Final = 30


class ServerEngines:
    """Makes and opens indexes on one server; `place` is its address for people.

    A client that is `owned` is closed with the index that was opened with it.
    """

    def __init__(self, client: Any, place: str, *, owned: bool = False) -> None:
        self._client = client
        self._owned = owned
        self.variant = f"server-{sha256(place.encode()).hexdigest()[:8]}"
        self.said = f"; searched on the Qdrant server {place}, which others share"

    @classmethod
    def at(cls, url: str, settings: Settings | None = None) -> ServerEngines:
        """The server at `url`; MEMCUBE_QDRANT_TOKEN is its API key, if it wants one.

        Raises:
            InvalidSettingError: it would be asked unencrypted, or is not an address.
            MissingDependencyError: qdrant-client is not installed.
        """
        parts, settings = urlsplit(url), settings or Settings.load()
        plain = parts.scheme == "http" and settings.allows_plain_http(parts.netloc)
        if not parts.hostname or parts.username or not (plain or parts.scheme == "https"):
            raise InvalidSettingError(
                f"the Qdrant server {parts.hostname or ''!r} is refused: not https://host[:port]",
                hint="plain http is for this machine and for hosts under `insecure` in config.toml",
            )
        if settings.offline:
            raise NetworkError(
                f"the Qdrant server {parts.netloc} needs the network, and memcube is offline",
                hint="run it without --offline (or MEMCUBE_OFFLINE)",
            )
        try:
            from qdrant_client import QdrantClient
        except ImportError:
            raise MissingDependencyError(
                "a Qdrant server needs qdrant-client, which is not installed",
                hint="pip install 'memcube[plaintext]'",
            ) from None
        token = os.environ.get(TOKEN_VARIABLE) or None
        client = QdrantClient(url=url, api_key=token, timeout=_TIMEOUT_S, check_compatibility=False)
        return cls(client, parts.netloc, owned=True)

    def has(self, name: str) -> bool:
        """Whether somebody has built the index `name` there."""
        with server_failures():
            aliases = self._client.get_aliases().aliases
        return _PREFIX + name in {alias.alias_name for alias in aliases}

    def build(
        self,
        name: str,
        folder: Path,  # noqa: ARG002
        entries: Iterable[Entry],
        width: int,
    ) -> frozenset[str]:
        """Make the index `name` of `entries` there, unless it is there; says which fields they have.

        Raises:
            NetworkError: the server does not answer, or refuses.
        """
        if self.has(name):
            return frozenset(field for entry in entries for field in entry.fields)
        collection = f"{_PREFIX}{name}-{secrets.token_hex(8)}"
        with server_failures():
            self._client.create_collection(collection, **_collection(width))
        try:
            held = self._fill(collection, entries)
            with server_failures():
                self._client.update_collection_aliases([_alias(_PREFIX + name, collection)])
        except BaseException:
            with server_failures():
                self._client.delete_collection(collection)
            raise
        return held

    def open(self, name: str, folder: Path) -> Engine:  # noqa: ARG002
        """The index `name`.

        Raises:
            StorageError: it is not there.
            NetworkError: the server does not answer.
        """
        if not self.has(name):
            raise StorageError(
                f"the Qdrant server has no index {name}", hint="mount again: it is built anew"
            )
        return ServerEngine(self._client, _PREFIX + name, owned=self._owned)

    def _fill(self, collection: str, entries: Iterable[Entry]) -> frozenset[str]:
        held: set[str] = set()
        for batch in batches(entries, _BATCH):
            held.update(field for entry in batch for field in entry.fields)
            points = [_point(entry) for entry in batch]
            with server_failures():
                self._client.upsert(collection, points=points, wait=True)
        for field, kind in _kinds().items():
            if field in held:
                # The library's own local mode, which tests use, warns that it needs no index.
                with server_failures(), warnings.catch_warnings(action="ignore"):
                    self._client.create_payload_index(collection, field, kind, wait=True)
        return frozenset(held)


class ServerEngine:
    """One index on a server. A client that is `owned` is closed with it."""

    def __init__(self, client: Any, collection: str, *, owned: bool = False) -> None:
        self._client = client
        self._owned = owned
        self._collection = collection

    def by_terms(self, terms: SparseVector, conditions: Conditions, limit: int) -> list[Match]:
        """See `Engine.by_terms`; raises NetworkError."""
        from qdrant_client import models

        asked = models.SparseVector(indices=terms.dimensions, values=terms.values)
        return self._nearest(asked, TERMS, conditions, limit)

    def by_vector(self, vector: list[float], conditions: Conditions, limit: int) -> list[Match]:
        """See `Engine.by_vector`; raises NetworkError."""
        return self._nearest(vector, VECTOR, conditions, limit)

    def holding(self, conditions: Conditions, limit: int) -> list[int]:
        """See `Engine.holding`; raises NetworkError."""
        with server_failures():
            points, _ = self._client.scroll(
                self._collection, _filter(conditions), limit, with_payload=False
            )
        return sorted(int(point.id) for point in points)

    def close(self) -> None:
        """Close the connections, unless the client may serve further indexes."""
        if self._owned:
            self._client.close()

    def _nearest(self, asked: Any, using: str, conditions: Conditions, limit: int) -> list[Match]:
        with server_failures():
            answer = self._client.query_points(
                self._collection,
                query=asked,
                using=using,
                query_filter=_filter(conditions),
                limit=limit,
                with_payload=False,
            )
        return [Match(int(point.id), float(point.score)) for point in answer.points]


@contextmanager
def server_failures() -> Iterator[None]:
    """Turns what qdrant-client raises into our error.

    Raises:
        NetworkError: the server does not answer, refuses, or answers nonsense.
    """
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, ValueError, RuntimeError) as error:
        raise NetworkError(
            f"the Qdrant server does not do what is asked: {str(error)[:200]}",
            hint="see that it runs and lets you in (MEMCUBE_QDRANT_TOKEN); or search without it",
        ) from error


def _collection(width: int) -> dict[str, Any]:
    from qdrant_client import models

    dense = {VECTOR: models.VectorParams(size=width, distance=models.Distance.COSINE)}
    return {
        "vectors_config": dense if width else {},
        "sparse_vectors_config": {TERMS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
    }


def _alias(alias: str, collection: str) -> Any:
    from qdrant_client import models

    return models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
    )


def _point(entry: Entry) -> Any:
    from qdrant_client import models

    terms = models.SparseVector(indices=entry.terms.dimensions, values=entry.terms.values)
    vectors: dict[str, Any] = {TERMS: terms}
    if entry.vector is not None:
        vectors[VECTOR] = entry.vector
    return models.PointStruct(id=entry.number, vector=vectors, payload=entry.fields)


def _kinds() -> dict[str, Any]:
    from qdrant_client import models

    kind = models.PayloadSchemaType
    return {
        **dict.fromkeys(NAMES, kind.KEYWORD),
        **dict.fromkeys(TIMES, kind.FLOAT),
        SENSITIVITY: kind.INTEGER,
    }


def _filter(conditions: Conditions) -> Any:
    from qdrant_client import models

    if not conditions.must and not conditions.must_not:
        return None
    return models.Filter(
        must=[_condition(one) for one in conditions.must],
        must_not=[_condition(one) for one in conditions.must_not],
    )


def _condition(condition: Condition) -> Any:
    from qdrant_client import models

    if isinstance(condition, OneOf):
        match = models.MatchAny(any=list(condition.values))
        return models.FieldCondition(key=condition.field, match=match)
    bounds = {"lte" if isinstance(condition, AtMost) else "gt": condition.value}
    return models.FieldCondition(key=condition.field, range=models.Range(**bounds))
