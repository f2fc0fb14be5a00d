"""Errors as HTTP answers: problem details (RFC 9457) everywhere, OCI's own form under `/v2`."""

from __future__ import annotations

import json
from typing import Any, Final

from memcube_protocol.errors import MemcubeError, RateLimitedError, outcome_of

from memcube_registry.blobs.ranges import UnsatisfiableRangeError

PROBLEM_TYPE: Final = "application/problem+json"
_OCI_CODES: Final = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "NAME_UNKNOWN",
    405: "UNSUPPORTED",
    429: "TOOMANYREQUESTS",
}


def to_problem(error: MemcubeError, *, instance: str | None = None) -> dict[str, Any]:
    """`error` as problem details. `instance` is the id of the request, to be found in the log."""
    return {
        "type": f"urn:memcube:error:{error.code}",
        "title": error.code.replace("-", " "),
        "status": outcome_of(error).http_status,
        "detail": str(error),
        "code": error.code,
        "hint": error.hint,
        "instance": instance,
    }


def to_oci(error: MemcubeError) -> dict[str, Any]:
    """`error` as the distribution specification writes errors ("Error Codes")."""
    status = outcome_of(error).http_status
    detail = {"code": error.code, "hint": error.hint}
    code = _OCI_CODES.get(status, "UNKNOWN" if status >= 500 else "UNSUPPORTED")
    return {"errors": [{"code": code, "message": str(error), "detail": detail}]}


def headers_of(error: MemcubeError) -> dict[str, str]:
    """Headers that belong to `error` beside its body."""
    if isinstance(error, RateLimitedError):
        return {"retry-after": str(error.retry_after_s)}
    if isinstance(error, UnsatisfiableRangeError):
        return {"content-range": f"bytes */{error.size}"}
    return {"retry-after": "5"} if outcome_of(error).http_status == 503 else {}


def encode(document: dict[str, Any]) -> bytes:
    """`document` as JSON."""
    return json.dumps(document, ensure_ascii=False).encode()
