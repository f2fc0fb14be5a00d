"""The few things that are asked of a bucket, in memcube's words and with its errors.

Every call is tried a bounded number of times; what still fails raises. All are safe in threads.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from memcube_protocol.errors import NotFoundError, StorageError

from memcube_registry.storage.interface import Object
from memcube_registry.storage.s3.direct import S3Direct
from memcube_registry.storage.s3.failures import code_of, is_gone, status_of, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

_FIRST_REGION: Final = "us-east-1"
"""The one region that S3 does not want to hear of when a bucket is made."""
_NO_BUCKET: Final = frozenset({"404", "NoSuchBucket"})
_CONNECTIONS: Final = 64
_LOCATION_CHARS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which bucket, where, and how patiently to speak to it. Credentials come from boto3's own chain.

    `public_endpoint_url` is the server's address in the URLs that clients are given. Times are seconds:
    `read_timeout_s` is the longest pause inside an answer. `attempts` counts the first one.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    public_endpoint_url: str | None = None
    region: str | None = None
    path_style: bool = False
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    attempts: int = 4


@dataclass(frozen=True, slots=True)
class Multipart:
    """A multipart upload in progress: where its object will lie, and S3's id for it."""

    location: str
    id: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part that S3 holds."""

    etag: str
    size: int


class Bucket:
    """The bucket at `place`.

    Raises:
        StorageError, UnavailableError: of every verb: the server refuses, or does not answer.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        with translated("the bucket"):
            session = boto3.session.Session()
            self._client = _client(session, place, place.endpoint_url, place.attempts)
            self._prober = _client(session, place, place.endpoint_url, 1)
            public = place.public_endpoint_url
            self._signer = _client(session, place, public, 1) if public else self._client

    def put(self, location: str, content: bytes) -> None:
        """Store an object, durable on return."""
        with translated(f"object {location}"):
            self._client.put_object(Body=content, **self._at(location))

    def get(self, location: str, *, start: int, stop: int | None) -> GetObjectOutputTypeDef:
        """The answer to a GET of bytes `start` to `stop`, whose body is still to be read.

        Raises:
            NotFoundError: there is no such object.
            OutsideError: the object ends before `start`.
        """
        wanted = {}
        if start or stop is not None:
            wanted["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        with translated(f"object {location}"):
            try:
                return self._client.get_object(**self._at(location), **wanted)  # type: ignore[arg-type]
            except ClientError as error:
                if status_of(error) == 416:
                    raise OutsideError(f"object {location} ends before byte {start}") from error
                raise

    def size(self, location: str) -> int:
        """How many bytes the object has.

        Raises:
            NotFoundError: there is no such object.
        """
        with translated(f"object {location}"):
            return self._client.head_object(**self._at(location))["ContentLength"]

    def delete(self, location: str) -> None:
        """Remove an object. An absent one is no error."""
        with translated(f"object {location}"):
            self._client.delete_object(**self._at(location))

    def url(self, location: str, *, media_type: str, expiry_s: int) -> str:
        """A URL under which anybody may GET the object for `expiry_s` seconds."""
        wanted = {**self._at(location), "ResponseContentType": media_type}
        with translated("a URL"):
            return self._signer.generate_presigned_url(
                "get_object", Params=wanted, ExpiresIn=expiry_s
            )

    def begin(self, location: str) -> Multipart:
        """A new multipart upload, which will become an object at `location`."""
        with translated("an upload"):
            answer = self._client.create_multipart_upload(**self._at(location))
        return Multipart(location, answer["UploadId"])

    def put_part(self, multipart: Multipart, number: int, content: bytes) -> Part:
        """Store part `number`, in place of one that was there."""
        with translated("an upload"):
            answer = self._client.upload_part(
                **self._at(multipart.location),
                UploadId=multipart.id,
                PartNumber=number,
                Body=content,
            )
        return Part(answer["ETag"], len(content))

    def complete(self, multipart: Multipart, parts: Sequence[Part]) -> None:
        """Make `parts` one object, durable on return. Doing it again is no error.

        Raises:
            StorageError: S3 does not hold these parts (any more).
        """
        listed = [
            {"PartNumber": number, "ETag": part.etag} for number, part in enumerate(parts, start=1)
        ]
        with translated("the parts of an upload"):
            try:
                self._client.complete_multipart_upload(
                    **self._at(multipart.location),
                    UploadId=multipart.id,
                    MultipartUpload={"Parts": listed},  # type: ignore[typeddict-item]
                )
            except ClientError as error:
                # An answer that was lost on its way leaves nothing to complete, but the object.
                if not is_gone(error) or not self._is_made(multipart, parts):
                    raise

    def abort(self, multipart: Multipart) -> None:
        """Drop a multipart upload and its parts. An absent one is no error."""
        with translated("an upload"):
            try:
                self._client.abort_multipart_upload(
                    **self._at(multipart.location), UploadId=multipart.id
                )
            except ClientError as error:
                if not is_gone(error):
                    raise

    def direct(self) -> S3Direct:
        """The bucket as clients write to it."""
        return S3Direct(self._client, self._signer, self._at)

    def objects(self) -> Iterator[list[Object]]:
        """Every object, page by page."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._place.bucket, Prefix=self._key("")
        )
        for page in _pages(pages):
            found = ((self._location(each["Key"]), each) for each in page.get("Contents", ()))
            yield [Object(name, each["LastModified"]) for name, each in found if name]

    def multiparts(self, location: str = "") -> Iterator[tuple[Multipart, datetime]]:
        """Every multipart upload (to `location`, if given) and when it was begun."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._place.bucket, Prefix=self._key(location)
        )
        for page in _pages(pages):
            for each in page.get("Uploads", ()):
                if name := self._location(each["Key"]):
                    yield Multipart(name, each["UploadId"]), each["Initiated"]

    def check(self) -> None:
        """Write a small object, once and without patience."""
        with translated("a test of the bucket"):
            self._prober.put_object(
                Bucket=self._place.bucket, Key=f"{self._place.prefix}check", Body=b"ready\n"
            )

    def make(self) -> bool:
        """Make the bucket; whether it was not there before."""
        region = self._client.meta.region_name
        where: Any = {}
        if region not in (None, _FIRST_REGION, "aws-global"):
            where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with translated("the bucket"):
            try:
                self._client.head_bucket(Bucket=self._place.bucket)
            except ClientError as error:
                if code_of(error) not in _NO_BUCKET:
                    raise
            else:
                return False
            self._client.create_bucket(Bucket=self._place.bucket, **where)
        return True

    def _is_made(self, multipart: Multipart, parts: Sequence[Part]) -> bool:
        try:
            return self.size(multipart.location) == sum(part.size for part in parts)
        except NotFoundError:
            return False

    def _at(self, location: str) -> Any:
        return {"Bucket": self._place.bucket, "Key": self._key(location)}

    def _key(self, location: str) -> str:
        return f"{self._place.prefix}blobs/{location}"

    def _location(self, key: str) -> str | None:
        """The location whose key this is; none for what this registry did not put there."""
        name = key.removeprefix(self._key(""))
        return name if is_location(name) else None


class OutsideError(StorageError):
    """A read that begins behind the end of an object."""


def new_location() -> str:
    """A location that nothing has had."""
    return secrets.token_hex(_LOCATION_CHARS // 2)


def is_location(name: str) -> bool:
    """Whether `new_location` may have made this."""
    return len(name) == _LOCATION_CHARS and all(char in "0123456789abcdef" for char in name)


def _pages(pages: Any) -> Iterator[Any]:
    """Pages of a listing; each step may fail as any call may."""
    steps = iter(pages)
    while True:
        with translated("a list of the bucket"):
            page = next(steps, None)
        if page is None:
            return
        yield page


def _client(
    session: boto3.session.Session, place: Place, endpoint_url: str | None, attempts: int
) -> S3Client:
    return session.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=place.region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if place.path_style else "auto"},
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=place.connect_timeout_s,
            read_timeout=place.read_timeout_s,
            max_pool_connections=_CONNECTIONS,
            tcp_keepalive=True,
            # Blobs are verified by their digests, which a checksum of the transfer cannot replace.
            response_checksum_validation="when_required",
        ),
    )
