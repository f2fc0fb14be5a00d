"""`/api/v1/uploads`: blobs that clients put into the store themselves (docs/spec/direct-uploads.md)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidRequestError, UnsupportedError

from memcube_registry.accounts.authentication import principal_of
from memcube_registry.blobs.direct import URL_LIFE_S, Announcement, DirectUploads, Found, OpenDirect
from memcube_registry.blobs.proving import Proof, Proven, Prover
from memcube_registry.database import utc_now
from memcube_registry.services import services_of

Asked = Request[Any, Any, Any]
PARTS_AT_ONCE: Final = 16
_TAGS: Final = ["uploads"]
_Size = Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Body(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A request's body: camelCase names, unknown ones refused."""


class _View(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An answer's body: camelCase names; what does not apply is left out."""


class NewUpload(_Body, frozen=True):
    """A blob that is to be sent to `repository`; `mountFrom` names another that may hold it already."""

    repository: str
    digest: str
    size_bytes: _Size
    mount_from: str | None = None


class WantedPart(_Body, frozen=True):
    """A part for which a request is to be signed, and the SHA-256 of its bytes in hex."""

    number: Annotated[int, msgspec.Meta(ge=1)]
    sha256: _Sha256 | None = None


class WantedParts(_Body, frozen=True):
    """Parts for which requests are to be signed, at most 16."""

    parts: Annotated[list[WantedPart], msgspec.Meta(min_length=1, max_length=PARTS_AT_ONCE)]


class UploadView(_View, frozen=True):
    """Where a blob stands.

    `state`: `present` (the repository holds it), `mounted` (it does now), or `open`: put what `received`
    does not name, part by part, then complete it. `partSha256` says that requests bind each part's hash.
    """

    state: Literal["present", "mounted", "open"]
    id: str | None = None
    size_bytes: int | None = None
    part_bytes: int | None = None
    part_count: int | None = None
    part_sha256: bool | None = msgspec.field(default=None, name="partSha256")
    received: list[int] | None = None


class SignedView(_View, frozen=True):
    """A request that puts one part: `sizeBytes` bytes to `url` with exactly these `headers`."""

    number: int
    method: str
    url: str
    headers: dict[str, str]
    size_bytes: int


class SignedViews(_View, frozen=True):
    """Signed requests, and when they run out."""

    requests: list[SignedView]
    expires_at: datetime


class CompletionView(_View, frozen=True):
    """`complete`: the blob is visible, proven by `proof`. `checking`: ask again, `readBackBytes` are read."""

    state: Literal["complete", "checking"]
    digest: str | None = None
    size_bytes: int | None = None
    proof: Proof | None = None
    read_back_bytes: int | None = None


@post("/uploads", sync_to_thread=True, tags=_TAGS, status_code=200)
def announce(request: Asked, data: JSONBody[NewUpload]) -> UploadView:
    """Announce a blob; the same again answers with the same upload and what has arrived of it."""
    uploads = _prover(request).uploads
    wanted = Announcement(
        data.repository, Digest.parse(data.digest), data.size_bytes, data.mount_from
    )
    found = uploads.announce(principal_of(request), wanted, utc_now())
    return UploadView(found.value) if isinstance(found, Found) else _view(uploads, found)


@get("/uploads/{upload_id:str}", sync_to_thread=True, tags=_TAGS)
def look(request: Asked, upload_id: FromPath[str]) -> UploadView:
    """An upload, and what has arrived of it."""
    uploads = _prover(request).uploads
    return _view(uploads, uploads.resume(principal_of(request), upload_id))


@post("/uploads/{upload_id:str}/requests", sync_to_thread=True, tags=_TAGS, status_code=200)
def sign(request: Asked, upload_id: FromPath[str], data: JSONBody[WantedParts]) -> SignedViews:
    """Requests by which you put parts into the store yourself, without credentials."""
    checksums = {part.number: part.sha256 for part in data.parts}
    if len(checksums) != len(data.parts):
        raise InvalidRequestError("a part is named twice", hint="name each part once")
    uploads, now = _prover(request).uploads, utc_now()
    direct = uploads.resume(principal_of(request), upload_id)
    signed = uploads.sign(direct, checksums, now)
    views = [
        SignedView(number, "PUT", put.url, dict(put.headers), direct.part_size(number))
        for number, put in signed
    ]
    return SignedViews(views, now + timedelta(seconds=URL_LIFE_S))


@post("/uploads/{upload_id:str}/completion", tags=_TAGS, status_code=201)
async def complete(request: Asked, upload_id: FromPath[str]) -> Response[CompletionView]:
    """Prove that all has arrived, and make it a blob: 201; 202 while it is still being read back."""
    found = await _prover(request).complete(principal_of(request), upload_id)
    if not isinstance(found, Proven):
        view = CompletionView("checking", read_back_bytes=found.read_back_bytes)
        return Response(view, status_code=202, headers={"retry-after": "1"})
    read_back_bytes = found.size_bytes if found.proof is Proof.READ_BACK else 0
    view = CompletionView(
        "complete", str(found.digest), found.size_bytes, found.proof, read_back_bytes
    )
    return Response(view)


@delete("/uploads/{upload_id:str}", sync_to_thread=True, tags=_TAGS)
def cancel(request: Asked, upload_id: FromPath[str]) -> None:
    """Forget an upload and whatever came of it."""
    _prover(request).uploads.cancel(principal_of(request), upload_id)


def _prover(request: Asked) -> Prover:
    prover = services_of(request).prover
    if prover is None:
        raise UnsupportedError(
            "this registry's store takes no direct uploads",
            hint="send the blob to /v2/…/blobs/uploads/",
        )
    return prover


def _view(uploads: DirectUploads, direct: OpenDirect) -> UploadView:
    checks_parts = direct.guarantees.checks_bodies and not direct.is_whole
    return UploadView(
        "open",
        direct.upload.id,
        direct.size_bytes,
        direct.part_bytes,
        direct.part_count,
        checks_parts,
        list(uploads.received(direct)),
    )


router: Final = Router("/api/v1", route_handlers=[announce, look, sign, complete, cancel])
