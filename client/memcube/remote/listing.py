"""What a namespace holds: as our registry tells it (`/api/v1`), or by the catalogue of others.

Nothing that a registry lists leads out of the namespace that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

from memcube_protocol import canonical_json, limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ForbiddenError,
    InvalidError,
    MemcubeError,
    NetworkError,
    NotFoundError,
    UnauthenticatedError,
    UnsupportedError,
)
from memcube_protocol.reference import is_name, is_tag
from memcube_signing.authority import carrier

from memcube.http import Request
from memcube.remote import Registry, is_fallback_tag
from memcube.remote.connection import LIST_BYTES, PAGES, nonsense
from memcube.remote.interface import Names

_PAGE: Final = 200
_TAGS: Final = 10_000
"""Tags of an answer that may have another behind it."""
_CLOSED: Final = (UnauthenticatedError, ForbiddenError)


class Listing:
    """What one registry says that it holds."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._is_ours = False

    def cubes(self, namespace: str) -> list[str]:
        """Names of the repositories below `namespace`, in order, without the one of its key documents.

        An empty one means the whole registry. Those travel with the cubes that they are about.

        Raises:
            UnsupportedError: the registry lists nothing.
            UnauthenticatedError, ForbiddenError: not to this user.
        """
        below = f"{namespace}/" if namespace else ""
        names = {name for name in self._names(below) if name.startswith(below)}
        return sorted(name for name in names if name.rpartition("/")[2] != carrier.NAME)

    def tags(self, name: str) -> dict[str, Digest]:
        """The tags of repository `name`, and what they lead to; ask for `cubes` first.

        Raises:
            NotFoundError: there is no such repository.
        """
        if self._is_ours:
            return dict(self._tags_of_ours(name))
        described = {
            tag: self._registry.manifest_descriptor(name, tag)
            for tag in self._registry.tags(name)
            if not is_fallback_tag(tag)
        }
        return {tag: one.digest for tag, one in described.items() if one is not None}

    def tags_as_told(self, name: str) -> dict[str, Digest | None]:
        """The tags of repository `name`, and what they lead to where that costs no request of its own.

        Raises:
            NotFoundError: there is no such repository, or this user may not see it.
            UnauthenticatedError, ForbiddenError: not to this user.
        """
        try:
            return dict(self._tags_of_ours(name))
        except (NotFoundError, UnsupportedError, InvalidError, NetworkError, *_CLOSED):
            pass  # another kind of registry, or one that tells the same by its other list
        told = self._registry.tags(name)
        return {tag: None for tag in told if not is_fallback_tag(tag)}

    @property
    def is_ours(self) -> bool:
        """Whether the registry is one of memcube's; known once `cubes` was asked for."""
        return self._is_ours

    def _names(self, below: str) -> list[str]:
        closed: MemcubeError | None = None
        try:
            if (ours := self._cubes_of_ours(below)) is not None:
                self._is_ours = True
                return ours
        except (NotFoundError, UnsupportedError, InvalidError):
            pass  # another kind of registry
        except _CLOSED as error:
            closed = error
        try:
            return list(self._registry.catalog())
        except (NotFoundError, UnsupportedError):
            raise closed or UnsupportedError(
                f"{self._registry.host} does not list what it holds",
                hint="copy its cubes one by one: memcube cp --all-tags",
            ) from None

    def _cubes_of_ours(self, below: str) -> list[str] | None:
        """The cubes that our registry shows this user; nothing where it is none of ours."""
        names: list[str] = []
        after, size = "", 0
        for _ in range(PAGES):
            query = {"prefix": below, "after": after, "limit": str(_PAGE)}
            page = self._json(f"/api/v1/cubes?{urlencode(query)}", limits.MANIFEST_BYTES)
            if not isinstance(page, dict) or not isinstance(page.get("cubes"), list):
                return None
            found = [name for name in _texts(page["cubes"], "name") if is_name(name)]
            size += sum(map(len, found))
            limits.require_at_most(f"list of the cubes in {below}", size, LIST_BYTES)
            names += found
            following = page.get("next")
            if not isinstance(following, str):
                return names
            after = following
        raise nonsense(self._registry.host, f"more than {PAGES} pages of cubes")

    def _tags_of_ours(self, name: str) -> Iterator[tuple[str, Digest]]:
        after, size = "", 0
        for _ in range(PAGES):
            further = f"?{urlencode({'after': after})}" if after else ""
            page = self._json(f"/api/v1/tags/{name}{further}", LIST_BYTES)
            tags = _texts(page, "name") if isinstance(page, list) else [""]
            digests = _texts(page, "digest") if isinstance(page, list) else [""]
            if not all((*tags, *digests)):
                raise nonsense(self._registry.host, "something else than a list of tags")
            for tag, digest in zip(tags, digests, strict=True):
                if is_tag(tag) and not is_fallback_tag(tag):
                    yield tag, Digest.parse(digest)
            if len(tags) < _TAGS:
                return
            size += sum(map(len, (*tags, *digests)))
            limits.require_at_most(f"list of the tags of {name}", size, LIST_BYTES)
            if tags[-1] == after:
                raise nonsense(self._registry.host, "tags that do not go on")
            after = tags[-1]
        raise nonsense(self._registry.host, f"more than {PAGES} pages of tags")

    def _json(self, path: str, limit: int) -> Any:
        request = Request("GET", f"{self._registry.endpoint.url}{path}")
        with self._registry.http.send(request) as response:
            return canonical_json.parse(response.content(limit))


def tag_names(registry: Names, name: str) -> frozenset[str]:
    """The tags of `name`; none where there is no such repository, or this user may not see it."""
    try:
        return frozenset(registry.tags(name))
    except (NotFoundError, *_CLOSED):
        return frozenset()


def _texts(items: list[Any], key: str) -> list[str]:
    """The text that each of `items` has under `key`; empty where it has none."""
    found = [one.get(key) if isinstance(one, dict) else None for one in items]
    return [one if isinstance(one, str) else "" for one in found]
