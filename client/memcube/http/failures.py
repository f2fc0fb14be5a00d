"""What a failed answer becomes: our error, with the server's own words made harmless.

Understood are problem details (RFC 9457) with our `code`, the OCI error list, and what S3 stores answer,
to which registries lead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from math import ceil
from typing import Any, Final

from memcube_protocol import canonical_json, errors
from memcube_protocol.errors import MemcubeError

ERROR_BODY_BYTES: Final = 64 * 1024
_MESSAGE_CHARS: Final = 500
_S3: Final = re.compile(
    rb"<Error>[^<]*<Code>([A-Za-z0-9]{1,64})</Code>[^<]*(?:<Message>([^<]{1,500})</Message>)?"
)

_BY_STATUS: Final[dict[int, tuple[type[MemcubeError], str]]] = {
    400: (errors.InvalidRequestError, "the registry does not accept what was sent"),
    401: (errors.UnauthenticatedError, "log in: memcube login"),
    402: (errors.PaymentRequiredError, "buy the cube first"),
    403: (errors.ForbiddenError, "log in as somebody who may, or ask the owner"),
    404: (errors.NotFoundError, "check the reference; a private cube needs a login: memcube login"),
    405: (errors.UnsupportedError, "this registry cannot do that"),
    408: (errors.NetworkError, "try again"),
    409: (errors.ConflictError, "choose another version or tag"),
    413: (errors.LimitExceededError, "make it smaller, or ask the operator for more room"),
    416: (errors.RangeMismatchError, "run the command again: it starts this file anew"),
    429: (errors.RateLimitedError, "wait, then run the command again"),
    501: (errors.UnsupportedError, "this registry cannot do that"),
    503: (errors.UnavailableError, "try again in a minute"),
    507: (errors.DiskFullError, "the registry's disk is full: ask its operator"),
}
_CODES: Final[dict[str, type[MemcubeError]]] = {
    "BadDigest": errors.DigestMismatchError,
    "BLOB_UNKNOWN": errors.NotFoundError,
    "BLOB_UPLOAD_UNKNOWN": errors.NotFoundError,
    "DIGEST_INVALID": errors.DigestMismatchError,
    "MANIFEST_BLOB_UNKNOWN": errors.NotFoundError,
    "MANIFEST_INVALID": errors.InvalidManifestError,
    "MANIFEST_UNKNOWN": errors.NotFoundError,
    "NAME_INVALID": errors.InvalidReferenceError,
    "NAME_UNKNOWN": errors.NotFoundError,
    "SIZE_INVALID": errors.SizeMismatchError,
    "TOOMANYREQUESTS": errors.RateLimitedError,
    "UNSUPPORTED": errors.UnsupportedError,
    "XAmzContentChecksumMismatch": errors.DigestMismatchError,
}


def error_of(
    status: int, what: str, body: bytes, *, retry_after_s: float | None = None
) -> MemcubeError:
    """Our error for the answer `status` with `body` to the request `what`."""
    kind, hint = _BY_STATUS.get(status, (errors.NetworkError, "try again later"))
    words = _Words(body)
    chosen = words.kind(status) or kind
    message = f"{what}: {words.message or 'no reason was given'} (HTTP {status})"
    if issubclass(chosen, errors.RateLimitedError):
        seconds = 1 if retry_after_s is None else ceil(retry_after_s)
        hint = f"wait {max(1, seconds)} s, then try again"
        return chosen(message, hint=hint, retry_after_s=seconds)
    return chosen(message, hint=words.hint or hint)


def harmless(text: str) -> str:
    """`text` fit for a terminal: one line, no control or format characters, not long."""
    shown = "".join(
        " " if char.isspace() else char
        for char in text[: 4 * _MESSAGE_CHARS]
        if char.isspace() or unicodedata.category(char)[0] != "C"
    )
    return " ".join(shown.split())[:_MESSAGE_CHARS]


class _Words:
    """What an error body says, as far as it can be understood."""

    def __init__(self, body: bytes) -> None:
        try:
            fields = canonical_json.parse_object(body)
        except errors.InvalidJsonError:
            fields = {}
        listed = fields.get("errors")
        first = listed[0] if isinstance(listed, list) and listed else None
        self._oci: Mapping[str, Any] = first if isinstance(first, dict) else _s3(body)
        self.message = _text(self._oci, "message") or _text(fields, "detail", "title")
        self.hint = _text(fields, "hint") or _text(self._detail(), "hint")
        self._code = _text(fields, "code") or _text(self._detail(), "code")

    def _detail(self) -> Mapping[str, Any]:
        detail = self._oci.get("detail")
        return detail if isinstance(detail, dict) else {}

    def kind(self, status: int) -> type[MemcubeError] | None:
        """The error that the body names, unless the status says something else."""
        own = _OWN.get(self._code)
        if own is not None and errors.OUTCOMES[own.code].http_status == status:
            return own
        oci = _CODES.get(_text(self._oci, "code"))
        agrees = oci is not None and 400 <= status < 500 and status not in (401, 402, 403)
        return oci if agrees else None


def _s3(body: bytes) -> Mapping[str, str]:
    """Code and message of an S3 store's answer, under the names of the OCI list."""
    found = _S3.search(body)
    if found is None:
        return {}
    code, words = (part.decode("utf-8", "replace") for part in found.groups(b""))
    return {"code": code, "message": f"{code}: {words}" if words else code}


def _text(fields: Mapping[str, Any], *keys: str) -> str:
    for key in keys:
        value = fields.get(key)
        if isinstance(value, str) and value:
            return harmless(value)
    return ""


def _every(kind: type[MemcubeError]) -> list[type[MemcubeError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in _every(child))]


_OWN: Final = {kind.code: kind for kind in _every(MemcubeError)}
