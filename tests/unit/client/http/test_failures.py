import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.http.failures import error_of, harmless
from memcube_protocol import errors
from memcube_protocol.errors import MemcubeError


def oci(code: str, message: str = "why", /, **detail: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]}).encode()


def s3(code: str, message: str = "why") -> bytes:
    words = f"<Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{words}</Error>'.encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"", errors.NotFoundError),
        (404, oci("MANIFEST_UNKNOWN"), errors.NotFoundError),
        (400, oci("DIGEST_INVALID"), errors.DigestMismatchError),
        (400, oci("MANIFEST_INVALID"), errors.InvalidManifestError),
        (400, oci("UNSUPPORTED", code="size-mismatch"), errors.SizeMismatchError),
        (401, oci("UNAUTHORIZED", code="token-expired"), errors.TokenExpiredError),
        (401, oci("MANIFEST_UNKNOWN"), errors.UnauthenticatedError),
        (402, b'{"code": "payment-required", "detail": "7 EUR"}', errors.PaymentRequiredError),
        (413, b'{"code": "quota-exceeded"}', errors.QuotaExceededError),
        (404, b'{"code": "quota-exceeded"}', errors.NotFoundError),
        (416, b"<html>", errors.RangeMismatchError),
        (418, b"\xff", errors.NetworkError),
        (500, oci("MANIFEST_UNKNOWN"), errors.NetworkError),
        (503, b"[]", errors.UnavailableError),
        (403, b'{"errors": [3]}', errors.ForbiddenError),
        (400, s3("BadDigest"), errors.DigestMismatchError),
        (404, s3("NoSuchUpload"), errors.NotFoundError),
        (403, s3("BadDigest"), errors.ForbiddenError),
        (503, s3("SlowDown"), errors.UnavailableError),
    ],
)
def test_an_answer_becomes_the_error_that_it_means(
    status: int, body: bytes, kind: type[MemcubeError]
) -> None:
    error = error_of(status, "GET https://a/b", body)
    assert type(error) is kind
    assert error.hint
    assert str(status) in str(error)


@pytest.mark.parametrize(("asked_s", "wait_s"), [(90.0, 90), (0.0, 0), (1.2, 2), (None, 1)])
def test_a_rate_limit_says_how_long_to_wait(asked_s: float | None, wait_s: int) -> None:
    error = error_of(429, "GET /", oci("TOOMANYREQUESTS"), retry_after_s=asked_s)
    assert isinstance(error, errors.RateLimitedError)
    assert error.retry_after_s == wait_s
    assert error.hint == f"wait {max(1, wait_s)} s, then try again"


def test_the_servers_hint_is_passed_on() -> None:
    body = oci("DENIED", "not yours", hint="ask ann")
    assert error_of(403, "PUT /", body).hint == "ask ann"


def test_the_servers_words_cannot_harm_a_terminal() -> None:
    message = "no\x1b[2J\r\nway\u202e \u200bhere\x00\x9b31m"
    assert harmless(message) == "no[2J way here31m"
    assert len(harmless("x" * 100_000)) <= 500


@given(st.integers(100, 599), st.binary(max_size=200))
def test_any_answer_becomes_an_error(status: int, body: bytes) -> None:
    assert isinstance(error_of(status, "GET /", body), MemcubeError)


def test_what_an_s3_server_says_is_told() -> None:
    error = error_of(403, "PUT https://store/x", s3("AccessDenied", "Request has expired"))
    assert "AccessDenied: Request has expired (HTTP 403)" in str(error)
    assert "AccessDenied (HTTP 403)" in str(error_of(403, "x", s3("AccessDenied", "")))


@given(st.binary(max_size=300))
def test_no_body_that_begins_like_an_s3_servers_does_harm(rest: bytes) -> None:
    error = error_of(403, "x", b"<Error><Code>AccessDenied</Code><Message>" + rest)
    assert str(error).isprintable()
