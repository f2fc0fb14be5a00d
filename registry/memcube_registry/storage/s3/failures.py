"""What S3 refuses or fails to do, as memcube's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from memcube_protocol.errors import (
    DiskFullError,
    MemcubeError,
    NotFoundError,
    StorageError,
    UnavailableError,
)
from urllib3.exceptions import HTTPError

_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NotFound", "404"})
_FULL: Final = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"})
_LATER: Final = frozenset({"SlowDown", "RequestTimeout", "Throttling", "TooManyRequests"})
_RIGHTS: Final = "check the registry's rights on the bucket (docs/guide/cubes-on-s3.md)"
_HINTS: Final = {
    "NoSuchBucket": "make the bucket, or name another one (setting s3_bucket)",
    "AccessDenied": _RIGHTS,
    # A HEAD is refused without a body, so without a code.
    "403": f"check the registry's S3 credentials; {_RIGHTS}",
    "InvalidAccessKeyId": "check the registry's S3 credentials",
    "SignatureDoesNotMatch": "check the registry's S3 credentials and its region",
    "RequestTimeTooSkewed": "set the clock of the registry's machine",
}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns the failures of the S3 client into memcube's errors.

    Raises:
        NotFoundError: there is no such object.
        UnavailableError: the server did not answer, or asks to come back later, after all retries.
        DiskFullError, StorageError: it refuses.
    """
    try:
        yield
    except ClientError as error:
        raise _refusal(what, error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StorageError(
            f"there are no S3 credentials for {what}",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another source that boto3 knows",
        ) from error
    except (BotoCoreError, HTTPError, OSError) as error:
        raise UnavailableError(
            f"the S3 server did not serve {what}: {type(error).__name__}",
            hint="try again in a moment; if it lasts, check the S3 server and the setting s3_endpoint_url",
        ) from error


def code_of(error: ClientError) -> str:
    """The code that S3 gives the refusal, such as `NoSuchKey`; of an answer without one, its status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status of the refusal; 0 if there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_gone(error: ClientError) -> bool:
    """Whether a multipart upload was completed or aborted before."""
    return code_of(error) == "NoSuchUpload"


def _refusal(what: str, error: ClientError) -> MemcubeError:
    code = code_of(error)
    status = status_of(error)
    if code in _ABSENT:
        return NotFoundError(f"the store holds no {what}", hint="push the blob again")
    if code in _FULL or status == 507:
        return DiskFullError(f"the S3 server has no space for {what}", hint="free space there")
    if code in _LATER or status == 429 or status >= 500:
        return UnavailableError(
            f"the S3 server is not able to serve {what} now ({code or status})",
            hint="try again in a moment; if it lasts, check the S3 server",
        )
    hint = _HINTS.get(code, "look at the S3 server's log")
    return StorageError(f"the S3 server refuses {what}: {code or status}", hint=hint)
