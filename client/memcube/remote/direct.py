"""Direct uploads (docs/spec/direct-uploads.md): the registry signs requests, the store takes the bytes.

What the registry says of the store is not believed: its address must be one that a redirect may lead to,
the headers it asks for must be harmless, and no credentials of ours go there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from memcube_protocol import canonical_json, limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError, UnsafeRedirectError
from memcube_protocol.values import frozen

from memcube.http import FileBody, Request
from memcube.remote.connection import Connection, nonsense, scope_of

_JSON: Final = {"Content-Type": "application/json"}
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HEADER: Final = re.compile(r"content-type|x-amz-[a-z0-9-]{1,64}")
_VALUE: Final = re.compile(r"[ -~]{0,1024}")
_HEADERS_MAX: Final = 16
_PARTS_MAX: Final = 10_000


@frozen
class DirectUpload:
    """A blob on its way to the store, in parts counted from 1; `received` have arrived.

    `binds_sha256`: the hash of each part has to be told before it can be put.
    """

    id: str
    size_bytes: int
    part_bytes: int
    received: frozenset[int] = frozenset()
    binds_sha256: bool = False

    @property
    def part_count(self) -> int:
        """How many parts it has."""
        return -(-self.size_bytes // self.part_bytes)

    def part(self, number: int) -> tuple[int, int]:
        """First byte and length of part `number`."""
        start = (number - 1) * self.part_bytes
        return start, min(self.part_bytes, self.size_bytes - start)


@frozen
class SignedPut:
    """A request that puts one part, as the registry signed it."""

    url: str
    headers: Mapping[str, str]


class DirectUploads:
    """The direct uploads of one registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def announce(
        self, name: str, digest: Digest, size_bytes: int, *, source: str | None = None
    ) -> DirectUpload | str:
        """The upload of a blob to `name`; or `present` or `mounted`, where nothing need be sent.

        Raises:
            UnsupportedError: the registry's store takes none after all.
            QuotaExceededError, ForbiddenError, UnauthenticatedError …: as it answers.
        """
        wanted: dict[str, Any] = {
            "repository": name,
            "digest": str(digest),
            "sizeBytes": size_bytes,
        }
        if source and source != name:
            wanted["mountFrom"] = source
        answer = self._ask("POST", name, "", wanted, source=source)
        if answer.get("state") in ("present", "mounted"):
            return str(answer["state"])
        return self._upload(answer, size_bytes)

    def look(self, name: str, upload: DirectUpload) -> DirectUpload:
        """The upload as it stands now.

        Raises:
            NotFoundError: it is over.
        """
        return self._upload(self._ask("GET", name, f"/{upload.id}"), upload.size_bytes)

    def sign(self, name: str, upload: DirectUpload, number: int, sha256: str | None) -> SignedPut:
        """The request that puts part `number`, whose bytes have this SHA-256.

        Raises:
            UnsafeRedirectError: it leads where a redirect of this registry may not lead.
            NotFoundError: the upload is over.
        """
        wanted = {"number": number} | ({"sha256": sha256} if sha256 else {})
        answer = self._ask("POST", name, f"/{upload.id}/requests", {"parts": [wanted]})
        try:
            (signed,) = answer["requests"]
            url, method = signed["url"], signed["method"]
            headers = dict(signed["headers"])
        except (KeyError, TypeError, ValueError):
            raise self._nonsense() from None
        if method != "PUT" or not isinstance(url, str) or not _are_harmless(headers):
            raise self._nonsense()
        return SignedPut(self._safe(url), headers)

    def put(self, signed: SignedPut, body: FileBody) -> None:
        """Put one part into the store. It is there as well where the store says that it was before.

        Raises:
            DigestMismatchError: the store got other bytes.
            NotFoundError: the upload is over.
            NetworkError, UnavailableError, ForbiddenError …: as the store answers.
        """
        request = Request(
            "PUT",
            signed.url,
            signed.headers,
            body,
            repeatable=False,  # `transfer` asks for a fresh request each time
            led_from=self._connection.origin,
        )
        self._connection.send(request, 200, 201, 204, 412).close()

    def complete(self, name: str, upload: DirectUpload, digest: Digest) -> int | None:
        """Make it a blob: None. Else how many bytes the registry has read back: ask again in a second.

        Raises:
            ConflictError: parts are missing.
            DigestMismatchError, SizeMismatchError: other bytes came; the upload is over.
            NotFoundError: the upload is over.
        """
        answer = self._ask("POST", name, f"/{upload.id}/completion", {})
        read_back = answer.get("readBackBytes")
        if answer.get("state") == "checking" and type(read_back) is int:
            return read_back
        if answer.get("state") != "complete" or answer.get("digest") != str(digest):
            raise self._nonsense()
        return None

    def cancel(self, name: str, upload: DirectUpload) -> None:
        """Give an upload up."""
        try:
            self._ask("DELETE", name, f"/{upload.id}")
        except NotFoundError:
            return

    def _ask(
        self,
        method: str,
        name: str,
        rest: str,
        value: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
    ) -> dict[str, Any]:
        scopes = {scope_of(name, "pull,push")}
        if source and source != name:
            scopes.add(scope_of(source, "pull"))
        url = f"{self._connection.endpoint.url}/api/v1/uploads{quote(rest)}"
        body = canonical_json.dump(value) if value else None
        headers = _JSON if value else {}
        # Every one of them may be sent twice: the second changes nothing.
        request = Request(method, url, headers, body, frozenset(scopes), repeatable=True)
        with self._connection.send(request, 200, 201, 202, 204) as response:
            content = response.content(limits.MIB)
        return canonical_json.parse_object(content, what="upload") if content else {}

    def _upload(self, answer: Mapping[str, Any], size_bytes: int) -> DirectUpload:
        try:
            upload_id, part_bytes = answer["id"], answer["partBytes"]
            received, count = frozenset(answer["received"]), answer["partCount"]
            fits = type(part_bytes) is int and part_bytes > 0 and answer["state"] == "open"
        except (KeyError, TypeError):
            raise self._nonsense() from None
        if not fits or not isinstance(upload_id, str) or not _ID.fullmatch(upload_id):
            raise self._nonsense()
        binds = answer.get("partSha256") is True
        upload = DirectUpload(upload_id, size_bytes, part_bytes, received, binds)
        if upload.part_count != count or not 1 <= upload.part_count <= _PARTS_MAX:
            raise self._nonsense()
        return upload

    def _safe(self, url: str) -> str:
        """`url`, if a redirect of this registry might lead there."""
        connection = self._connection
        try:
            found, _ = connection.http.lead(connection.origin, connection.endpoint.url, url)
        except UnsafeRedirectError as error:
            raise UnsafeRedirectError(
                f"a direct upload is refused: {error}",
                hint="ask the registry's operator, or send everything through the registry: "
                "MEMCUBE_DIRECT=0",
            ) from None
        return found

    def _nonsense(self) -> Exception:
        return nonsense(self._connection.host, "a malformed direct upload")


def _are_harmless(headers: Mapping[Any, Any]) -> bool:
    """Whether a request with these headers does nothing but put an object."""
    return len(headers) <= _HEADERS_MAX and all(
        isinstance(name, str)
        and isinstance(value, str)
        and (
            (name == "if-none-match" and value == "*")
            or (_HEADER.fullmatch(name) and _VALUE.fullmatch(value))
        )
        for name, value in headers.items()
    )
