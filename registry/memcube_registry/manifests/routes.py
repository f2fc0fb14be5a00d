"""HTTP of manifests, tags and referrers (distribution specification, "Pushing manifests" and on)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from memcube_protocol import limits, media_types
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidRequestError, MemcubeError
from memcube_protocol.reference import is_tag

from memcube_registry.accounts.authentication import principal_in
from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs.sending import is_known_to
from memcube_registry.database import Database, utc_now
from memcube_registry.delivery.service import Act, Part, require_allowed
from memcube_registry.http.exchange import Answer, Request, Response, serve
from memcube_registry.manifests import referrers, service, tags
from memcube_registry.manifests.service import Push, StoredManifest
from memcube_registry.manifests.tags import Expectation

JSON: Final = b"application/json"
TAGS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class ManifestRoutes:
    """Answers requests for manifests, tags and referrers."""

    database: Database
    countersign: Callable[[int, Digest], None] | None = None
    """Countersigns the release that a manifest attaches, once it is visible."""

    async def get(self, request: Request, name: str, reference: str) -> Response:
        """The manifest, byte for byte; 304 where the client has it already."""
        wanted = parse_reference(reference)
        principal = principal_in(request.scope)

        def get() -> StoredManifest:
            with self.database.glance() as connection:
                return service.get(connection, principal, name, wanted)

        found = await serve(get)
        if request.header(b"if-none-match") and is_known_to(request, found.digest):
            return Answer(304, _headers(found))
        return Answer(200, _headers(found), found.content)

    async def head(self, request: Request, name: str, reference: str) -> Response:
        """The manifest's digest, type and length."""
        wanted = parse_reference(reference)
        principal = principal_in(request.scope)
        found = await serve(service.look, self.database, principal, name, wanted, utc_now())
        return Answer(200, _headers(found), size=found.size_bytes)

    async def put(self, request: Request, name: str, reference: str) -> Response:
        """201 once the manifest, and every tag asked for, is visible."""
        wanted = parse_reference(reference)
        names = _tags_to_point(request, wanted)
        principal = principal_in(request.scope)
        media_type = _media_type(request)
        expected = _expectation(request)
        await self._admit(request, principal, name)
        raw = await request.body(limits.MANIFEST_BYTES, "the manifest")
        digest = wanted if isinstance(wanted, Digest) else None

        def put() -> Push:
            if digest and names and not raw:
                with self.database.read() as session:
                    push = service.push_again(session, principal, name, digest, names, expected)
            else:
                push = service.read_push(raw, media_type, digest, names, expected)
            now = utc_now()
            due = self.database.run(
                lambda session: service.put(session, principal, name, push, now)
            )
            if due is not None and self.countersign:
                self.countersign(due, push.digest)
            return push

        push = await serve(put)
        return Answer(201, _pushed(name, push, by_digest=digest is not None))

    async def _admit(self, request: Request, principal: Principal, name: str) -> None:
        """Refuse whoever may not push here, before 4 MiB are kept and parsed for them."""

        def ask() -> None:
            with self.database.read() as session:
                require_allowed(session, principal, name, Act.WRITE, part=Part.DESCRIPTION)

        try:
            await serve(ask)
        except MemcubeError:
            await request.skip(limits.MANIFEST_BYTES)
            raise

    async def delete(self, request: Request, name: str, reference: str) -> Response:
        """202 once the tag, or the manifest with all its tags, is gone."""
        wanted = parse_reference(reference)
        principal = principal_in(request.scope)
        now = utc_now()
        if isinstance(wanted, Digest):
            await serve(
                self.database.run,
                lambda session: service.delete(session, principal, name, wanted, now),
            )
        else:
            await serve(
                self.database.run,
                lambda session: tags.delete(session, principal, name, wanted, now),
            )
        return Answer(202)

    async def list_tags(self, request: Request, name: str) -> Response:
        """Tags in byte order, `n` of them after `last`."""
        principal = principal_in(request.scope)
        count = _count(request)
        after = request.argument("last") or ""

        def page() -> tags.Page:
            with self.database.read() as session:
                return tags.page(session, principal, name, after=after, count=count)

        found = await serve(page)
        headers = [(b"content-type", JSON)]
        if found.has_more and found.names:
            query = urlencode({"n": count, "last": found.names[-1]})
            headers.append(_next(f"/v2/{name}/tags/list?{query}"))
        return Answer(200, headers, _json({"name": name, "tags": list(found.names)}))

    async def list_referrers(self, request: Request, name: str, subject: str) -> Response:
        """An index of the manifests that refer to `subject`."""
        digest = Digest.parse(subject)
        principal = principal_in(request.scope)
        kind = request.argument("artifactType")
        after = _number(request.argument("last") or "0", "last")

        def page() -> referrers.Page:
            with self.database.read() as session:
                return referrers.page(
                    session, principal, name, digest, artifact_type=kind, after=after
                )

        found = await serve(page)
        headers = [(b"content-type", media_types.OCI_INDEX.encode())]
        if kind is not None:
            headers.append((b"oci-filters-applied", b"artifactType"))
        if found.next_after is not None:
            query = urlencode({"last": found.next_after} | ({"artifactType": kind} if kind else {}))
            headers.append(_next(f"/v2/{name}/referrers/{digest}?{query}"))
        index = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": list(found.descriptors),
        }
        return Answer(200, headers, _json(index))


def parse_reference(text: str) -> Digest | str:
    """The digest or tag at the end of a manifest's path.

    Raises:
        InvalidDigestError: a malformed digest.
        InvalidRequestError: neither a digest nor a tag.
    """
    if ":" in text:
        return Digest.parse(text)
    if not is_tag(text):
        raise InvalidRequestError(
            f"{text[:140]!r} is neither a tag nor a digest",
            hint="a tag has up to 128 letters, digits and . _ -",
        )
    return text


def _tags_to_point(request: Request, reference: Digest | str) -> list[str]:
    """The tag in the path, or those in the query of a push by digest."""
    asked = request.query.get("tag", [])
    if isinstance(reference, str):
        if asked:
            raise InvalidRequestError(
                "tags in the query go with a digest in the path",
                hint="push to manifests/<digest>?tag=…",
            )
        return [reference]
    if len(asked) > TAGS_AT_ONCE:
        raise InvalidRequestError(
            f"{len(asked)} tags at once are more than {TAGS_AT_ONCE}", hint="push them in turns"
        )
    for tag in asked:
        if not is_tag(tag):
            raise InvalidRequestError(
                f"{tag[:140]!r} is not a tag", hint="see docs/spec/references.md"
            )
    return asked


def _media_type(request: Request) -> str | None:
    header = request.header(b"content-type")
    return header.partition(";")[0].strip() or None if header else None


def _expectation(request: Request) -> Expectation:
    """What `If-Match` and `If-None-Match` say about where the tag points now."""
    absent = request.header(b"if-none-match")
    present = request.header(b"if-match")
    if absent not in (None, "*"):
        raise InvalidRequestError(
            "If-None-Match of a push can only be *", hint="use If-Match with a digest"
        )
    digest = Digest.parse(present.strip().strip('"')) if present else None
    return Expectation(digest, absent == "*")


def _headers(manifest: StoredManifest) -> list[tuple[bytes, bytes]]:
    digest = manifest.digest.encode()
    return [
        (b"content-type", manifest.media_type.encode()),
        (b"docker-content-digest", digest),
        (b"etag", b'"' + digest + b'"'),
        (b"x-content-type-options", b"nosniff"),
    ]


def _pushed(name: str, push: Push, *, by_digest: bool) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"location", f"/v2/{name}/manifests/{push.digest}".encode()),
        (b"docker-content-digest", str(push.digest).encode()),
    ]
    if push.subject:
        headers.append((b"oci-subject", str(push.subject).encode()))
    if by_digest:
        headers.append((b"memcube-tags-without-body", b"true"))
        headers += [(b"oci-tag", tag.encode()) for tag in push.tag_names]
    return headers


def _count(request: Request) -> int:
    text = request.argument("n")
    return tags.PAGE if text is None else min(_number(text, "n"), tags.PAGE)


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequestError(
            f"{name}={text[:40]!r} is not a number", hint=f"send {name} as digits"
        )
    return int(text)


def _next(path: str) -> tuple[bytes, bytes]:
    return b"link", f'<{quote(path, safe="/?=&%:+")}>; rel="next"'.encode()


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
