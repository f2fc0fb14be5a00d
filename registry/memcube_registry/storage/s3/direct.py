"""Direct writes to S3: presigned `PutObject` and `UploadPart` (Signature Version 4).

A signature covers `content-length` and, where the body is known, `x-amz-checksum-sha256`; a whole object's
also `if-none-match: *`. Stores differ in what they make of these, so `guarantees` tries them out:

| seen | a whole object in one PUT | parts |
|---|---|---|
| another body or part than that of the checksum is refused, and no copy takes its place | with its checksum | each with its checksum |
| it is taken, but parts are over once joined | no: in parts | with their length alone |
| neither | no direct writes | no direct writes |

OpenStack Swift, for one, takes parts of an upload that has been completed, and changes the object.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from botocore.exceptions import ClientError
from memcube_protocol.errors import ConflictError, NotFoundError, StorageError

from memcube_registry.storage.direct import Body, Guarantees, HeldPart, SignedPut
from memcube_registry.storage.s3.failures import code_of, is_gone, status_of, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_REPLACED: Final = frozenset({"InvalidPart", "InvalidPartOrder", "NoSuchUpload"})
_MISMATCHES: Final = frozenset(
    {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
)
_UNSIGNED: Final = frozenset({"AccessDenied", "SignatureDoesNotMatch"})
_PROBE: Final = b"memcube"


class S3Direct:
    """See `DirectWrites`. `at` says bucket and key of a location, as boto3 wants them.

    `signer` speaks to the address by which clients reach the store, `client` to this server's own.
    """

    def __init__(self, client: S3Client, signer: S3Client, at: Callable[[str], Any]) -> None:
        self._client = client
        self._signer = signer
        self._at = at
        self._lock = threading.Lock()
        self._seen: Guarantees | None = None

    def sign_whole(self, location: str, body: Body, *, life_s: int) -> SignedPut:
        """See `Signer.sign_whole`."""
        headers = {"if-none-match": "*", **_checksum_header(body)}
        parameters = {"IfNoneMatch": "*", **self._bound(location, body)}
        return self._signed("put_object", parameters, headers, life_s)

    def sign_part(
        self, location: str, parts_id: str, number: int, body: Body, *, life_s: int
    ) -> SignedPut:
        """See `Signer.sign_part`."""
        parameters = {
            "UploadId": parts_id,
            "PartNumber": number,
            **self._bound(location, body),
        }
        return self._signed("upload_part", parameters, _checksum_header(body), life_s)

    def begin(self, location: str, *, checked: bool) -> str:
        """See `Assembler.begin`."""
        algorithm: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if checked else {}
        with translated("an upload"):
            begun = self._client.create_multipart_upload(**self._at(location), **algorithm)
        return begun["UploadId"]

    def held(self, location: str, parts_id: str) -> Sequence[HeldPart] | None:
        """See `Assembler.held`."""
        pages: Any = self._client.get_paginator("list_parts")
        with translated("the parts of an upload"):
            try:
                return [
                    HeldPart(part["PartNumber"], part["Size"], part["ETag"], _checksum_of(part))
                    for page in pages.paginate(**self._at(location), UploadId=parts_id)
                    for part in page.get("Parts", ())
                ]
            except ClientError as error:
                if not is_gone(error):
                    raise
                return None

    def join(self, location: str, parts_id: str, parts: Sequence[HeldPart]) -> None:
        """See `Assembler.join`."""
        named: Any = [_named(part) for part in parts]
        with translated("the parts of an upload"):
            try:
                self._client.complete_multipart_upload(
                    **self._at(location), UploadId=parts_id, MultipartUpload={"Parts": named}
                )
            except ClientError as error:
                if code_of(error) not in _REPLACED:
                    raise
                raise ConflictError(
                    f"the parts changed while they were joined ({code_of(error)})",
                    hint="ask for the upload's state and go on from there",
                ) from error

    def occupy(self, location: str) -> None:
        """See `DirectWrites.occupy`."""
        with translated(f"object {location}"):
            self._client.put_object(**self._at(location), Body=b"")

    def arrived(self, location: str) -> int | None:
        """See `DirectWrites.arrived`."""
        try:
            with translated(f"object {location}"):
                return self._client.head_object(**self._at(location))["ContentLength"]
        except NotFoundError:
            return None

    def guarantees(self) -> Guarantees:
        """See `DirectWrites.guarantees`: about a dozen requests, once a process."""
        with self._lock:
            if self._seen is None:
                checks = self._checks_bodies()
                self._seen = Guarantees(checks, not checks and self._ends_uploads())
            return self._seen

    def _checks_bodies(self) -> bool:
        """Whether the store takes a body of the right checksum, and none of another one: no part or copy either."""
        put = self._client.put_object
        with self._probe() as (location, right):
            refusal = self._refusal_of(put, {**right, "Body": _PROBE[::-1]})
            if refusal not in _MISMATCHES or self._refusal_of(put, right):
                return False
            if self.arrived(location) != len(_PROBE):
                return False
            return self._checks_parts() and not self._copies_unasked(location)

    def _checks_parts(self) -> bool:
        """Whether the store refuses a part of another checksum."""
        with self._probe() as (location, right):
            parts_id = self.begin(location, checked=True)
            wrong = {**right, "UploadId": parts_id, "PartNumber": 1, "Body": _PROBE[::-1]}
            try:
                return self._refusal_of(self._client.upload_part, wrong) in _MISMATCHES
            finally:
                with translated("a test of the bucket"):
                    self._client.abort_multipart_upload(**self._at(location), UploadId=parts_id)

    def _copies_unasked(self, source: str) -> bool:
        """Whether a header that its signature does not cover turns a request into a copy of another object."""
        with self._probe() as (location, _):

            def slip_in(request: Any, **_: Any) -> None:
                if location in request.url:  # other requests of this client pass here, too
                    request.headers["x-amz-copy-source"] = "{Bucket}/{Key}".format_map(
                        self._at(source)
                    )

            events, name = self._client.meta.events, "before-send.s3.PutObject"
            events.register(name, slip_in, unique_id=location)
            try:
                put = {**self._at(location), "Body": b""}
                self._refusal_of(self._client.put_object, put, _UNSIGNED)
            finally:
                events.unregister(name, slip_in, unique_id=location)
            return self.arrived(location) == len(_PROBE)

    def _ends_uploads(self) -> bool:
        """Whether a part of an upload that has been completed is refused."""
        with self._probe() as (location, _):
            parts_id = self.begin(location, checked=False)
            part = {**self._at(location), "UploadId": parts_id, "PartNumber": 1, "Body": _PROBE}
            with translated("a test of the bucket"):
                self._client.upload_part(**part)
            self.join(location, parts_id, self.held(location, parts_id) or ())
            with translated("a test of the bucket"):
                try:
                    self._client.upload_part(**part)
                except ClientError as error:
                    # Any other failure may be one of the moment: it says nothing about the next part.
                    if not is_gone(error):
                        raise
                    return True
            return False

    @contextmanager
    def _probe(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """A location for one trial, what puts `_PROBE` there, and its removal afterwards."""
        location = uuid.uuid4().hex
        body = Body(len(_PROBE), hashlib.sha256(_PROBE).hexdigest())
        try:
            yield location, {"Body": _PROBE, **self._bound(location, body)}
        finally:
            with translated("a test of the bucket"):
                self._client.delete_object(**self._at(location))

    def _refusal_of(
        self, send: Callable[..., Any], put: dict[str, Any], known: frozenset[str] = frozenset()
    ) -> str:
        """The code with which the store refuses what `send` puts, empty if it takes it.

        Codes `known` are a refusal, whatever status comes with them.

        Raises:
            StorageError, UnavailableError: the registry may not write, or the store cannot answer now.
        """
        with translated("a test of the bucket"):
            try:
                send(**put)
            except ClientError as error:
                status, code = status_of(error), code_of(error)
                momentary = status in (403, 408, 429) or (status >= 500 and status != 501)
                if momentary and code not in known:
                    raise
                return code or "unknown"
        return ""

    def _signed(
        self, operation: str, parameters: dict[str, Any], headers: dict[str, str], life_s: int
    ) -> SignedPut:
        url = self._signer.generate_presigned_url(
            operation, Params=parameters, ExpiresIn=life_s, HttpMethod="PUT"
        )
        bound = parse_qs(urlsplit(url).query).get("X-Amz-SignedHeaders", [""])[0].split(";")
        if not {"host", "content-length", *headers} <= set(bound):
            # Signature Version 2, for one, binds neither: any body could be put then.
            raise StorageError(
                "requests to the store are signed in a way that binds too little",
                hint="let boto3 sign with Signature Version 4",
            )
        return SignedPut(url, headers)

    def _bound(self, location: str, body: Body) -> dict[str, Any]:
        bound: dict[str, Any] = {**self._at(location), "ContentLength": body.size}
        if body.sha256:
            bound["ChecksumSHA256"] = _base64(body.sha256)
        return bound


def _checksum_header(body: Body) -> dict[str, str]:
    return {"x-amz-checksum-sha256": _base64(body.sha256)} if body.sha256 else {}


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _checksum_of(part: Any) -> str | None:
    checksum: str | None = part.get("ChecksumSHA256")
    return checksum


def _named(part: HeldPart) -> dict[str, Any]:
    """A part as `CompleteMultipartUpload` names it."""
    named: dict[str, Any] = {"PartNumber": part.number, "ETag": part.etag}
    return named | ({"ChecksumSHA256": part.checksum} if part.checksum else {})
