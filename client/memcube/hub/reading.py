"""Reading a repository of the Hub: branches and tags, and files at one commit, over plain HTTP.

Everything is asked at a commit's full name, so that nothing moves between two requests. The token goes to
the endpoint; signed addresses of the storage behind it, to which large files are redirected, get none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import (
    ForbiddenError,
    InvalidError,
    MemcubeError,
    NetworkError,
    NotFoundError,
    UnauthenticatedError,
    UnsupportedError,
)
from memcube_protocol.reference import DATASETS, is_name
from memcube_protocol.values import frozen

from memcube.http import HttpClient, Origin, Request, Response
from memcube.hub.layout import CARD_TAG, is_commit
from memcube.hub.site import DATASET, MODEL, Site
from memcube.remote.connection import LIST_BYTES, PAGES, next_page

MAIN: Final = "main"
_PAGE: Final = 100
_REFS_BYTES: Final = 16 * limits.MIB
_REFUSALS: Final = (401, 403, 404)


@frozen
class Refs:
    """Branches and tags of a repository at one moment, each with its commit."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def head(self) -> str:
        """The commit that `main` leads to.

        Raises:
            NotFoundError: the repository has no such branch.
        """
        if MAIN not in self.branches:
            raise NotFoundError(
                f"the repository has no branch {MAIN}", hint="see the repository's page on the Hub"
            )
        return self.branches[MAIN]


class HubReader:
    """Reads repositories of one Hub; safe for several threads."""

    def __init__(self, site: Site, http: HttpClient) -> None:
        self._site = site
        self._http = http
        self._origin = Origin.of(site.endpoint.url)

    def refs(self, name: str) -> Refs:
        """Where the branches and tags of `name` lead now, in one request.

        Raises:
            NotFoundError: there is no such repository, or it is hidden from this user.
            NetworkError: no answer, or nonsense.
        """
        with self._send(name, "GET", f"{self._site.api(name)}/refs", {}) as response:
            content, url = response.content(_REFS_BYTES), response.url
        if urlsplit(url).path != urlsplit(self._site.api(name)).path + "/refs":
            raise NotFoundError(
                f"the Hub has no {name} by exactly this name: it leads to {url.partition('?')[0][:200]}",
                hint="write the name as the repository's page does",
            )
        try:
            fields = canonical_json.parse_object(content, what=f"refs of {name}")
            return Refs(_commits(fields["branches"]), _commits(fields["tags"]))
        except (InvalidError, KeyError, TypeError, AttributeError):
            raise self._nonsense("branches and tags that cannot be read") from None

    def is_private(self, name: str) -> bool:
        """Whether only those read `name` whom its owner lets.

        Raises:
            NotFoundError, NetworkError: as `refs`.
        """
        with self._send(name, "GET", f"{self._site.api(name)}?expand=private", {}) as response:
            content = response.content(_REFS_BYTES)
        try:
            private = canonical_json.parse_object(content).get("private")
        except InvalidError:
            private = None
        if not isinstance(private, bool):
            raise self._nonsense("no word on who may read a repository")
        return private

    def cubes(self, owner: str) -> Iterator[str]:
        """Names of the repositories of `owner` whose card says that they are cubes, as references write them.

        Raises:
            NetworkError: no answer, nonsense, or pages without end.
        """
        for kind, middle in ((MODEL, ""), (DATASET, f"{DATASETS}/")):
            for found in self._listed(kind, owner):
                account, _, own = found.partition("/")
                name = f"{account}/{middle}{own}"
                if account == owner and "/" not in own and is_name(name):
                    yield name

    def _listed(self, kind: str, owner: str) -> Iterator[str]:
        query = urlencode({"author": owner, "filter": CARD_TAG, "limit": str(_PAGE)})
        url, size = f"{self._site.endpoint.url}/api/{kind}s?{query}", 0
        for _ in range(PAGES):
            with self._send(owner, "GET", url, {}) as response:
                content, following = response.content(_REFS_BYTES), next_page(response)
            size += len(content)
            limits.require_at_most(f"list of the repositories of {owner}", size, LIST_BYTES)
            try:
                yield from [str(item["id"]) for item in canonical_json.parse(content)]
            except (InvalidError, KeyError, TypeError):
                raise self._nonsense("a list of repositories that cannot be read") from None
            if following is None:
                return
            url = urljoin(url, following)
            if Origin.of(url) != self._origin:
                raise self._nonsense("a next page on another host")
        raise self._nonsense(f"more than {PAGES} pages of repositories")

    def open(
        self,
        name: str,
        commit: str,
        path: str,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> Response:
        """Bytes `start` to `stop` of the file `path` at `commit`, unverified, still to be read.

        The status is 206, or 200 where everything comes from the first byte on.

        Raises:
            NotFoundError: the commit has no such file.
            UnsupportedError: the file can only be had through Xet.
        """
        headers = {}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        response = self._send(name, "GET", self._site.file(name, commit, path), headers)
        begins = response.headers.get("content-range", "").startswith(f"bytes {start}-")
        if response.status == 206 and not (headers and begins):
            response.close()
            raise self._nonsense(f"another range than bytes {start} and on")
        return response

    def read(self, name: str, commit: str, path: str, limit: int) -> bytes:
        """Content of the small file `path` at `commit`, unverified.

        Raises:
            NotFoundError: the commit has no such file.
            LimitExceededError: more than `limit` bytes.
        """
        with self.open(name, commit, path) as response:
            return response.content(limit)

    def size(self, name: str, commit: str, path: str) -> int | None:
        """Size in bytes of the file `path` at `commit`; None: there is none, -1: it is not told."""
        try:
            url = self._site.file(name, commit, path)
            with self._send(name, "HEAD", url, {}) as response:
                return -1 if response.length is None else response.length
        except NotFoundError:
            return None

    def names(self, name: str, commit: str) -> list[str]:
        """Names at the root of the repository at `commit`: the first page of them.

        Raises:
            NotFoundError, NetworkError: as `refs`.
        """
        with self._send(name, "GET", f"{self._site.api(name)}/tree/{commit}", {}) as response:
            content = response.content(_REFS_BYTES)
        try:
            return [str(item["path"]) for item in canonical_json.parse(content)]
        except (InvalidError, KeyError, TypeError):
            raise self._nonsense("a listing that cannot be read") from None

    def _send(self, name: str, method: str, url: str, headers: Mapping[str, str]) -> Response:
        request = Request(
            method,
            url,
            headers,
            led_from=self._origin,
            authorization=self._site.authorization,
        )
        response = self._http.send(request, (200, 206, *_REFUSALS))
        if response.status in _REFUSALS:
            refusal = self._refusal(name, response)
            response.close()
            raise refusal
        return response

    def _refusal(self, name: str, response: Response) -> MemcubeError:
        """What the Hub means (`X-Error-Code`): it says 401 to strangers of what does not exist, too."""
        code, page = response.headers.get("x-error-code"), self._site.page(name)
        if response.headers.get("x-xet-hash"):
            return UnsupportedError(
                f"a file of {page} can only be had through Xet, which memcube does not speak",
                hint="fetch it with hf download, or ask its owner for a copy on a registry",
            )
        if code == "GatedRepo":
            return ForbiddenError(
                f"{page} is gated: its owner decides who may read it",
                hint=f"ask for access at {page}, then set HF_TOKEN",
            )
        if code in ("EntryNotFound", "RevisionNotFound"):
            return NotFoundError(f"{page} has no such file or revision", hint="see its page")
        if response.status == 403:
            return ForbiddenError(f"the Hub does not let you read {page}", hint="see its page")
        if self._site.token is None or response.status == 404:
            advice = "" if self._site.token else "; a private one needs HF_TOKEN, or hf auth login"
            return NotFoundError(
                f"the Hub has no repository {page}, or hides it from you",
                hint=f"check the name, and datasets/ before it{advice}",
            )
        return UnauthenticatedError(
            f"{self._site.endpoint.host} refuses the token",
            hint="set HF_TOKEN to one that is valid, or run: hf auth login",
        )

    def _nonsense(self, what: str) -> NetworkError:
        return NetworkError(
            f"{self._site.endpoint.host} answered with {what}",
            hint="the Hub, or a mirror, is faulty",
        )


def _commits(listed: Any) -> dict[str, str]:
    """Commits by the names of branches or tags.

    Raises:
        KeyError, TypeError: it is no such list.
    """
    found = {str(item["name"]): item["targetCommit"] for item in listed}
    if not all(isinstance(commit, str) and is_commit(commit) for commit in found.values()):
        raise TypeError
    return found
