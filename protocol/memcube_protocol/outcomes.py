"""What an error becomes at the two edges, by its stable code: an HTTP status and a process exit code."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """What an error becomes at the two edges: an HTTP status and a process exit code."""

    http_status: int
    exit_code: int


EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_AUTH = 3
EXIT_NOT_FOUND = 4
EXIT_PAYMENT = 5
EXIT_INTEGRITY = 6
EXIT_NETWORK = 7
EXIT_INVALID = 8
EXIT_INCOMPATIBLE = 9
EXIT_CONFLICT = 10
EXIT_LIMIT = 11
EXIT_STORAGE = 12
EXIT_TRUST = 13
EXIT_RULE = 14
EXIT_INTERRUPTED = 130

OUTCOMES: dict[str, Outcome] = {
    "unknown": Outcome(500, EXIT_ERROR),
    "invalid": Outcome(400, EXIT_INVALID),
    "invalid-reference": Outcome(400, EXIT_INVALID),
    "invalid-digest": Outcome(400, EXIT_INVALID),
    "invalid-json": Outcome(400, EXIT_INVALID),
    "invalid-manifest": Outcome(400, EXIT_INVALID),
    "missing-content": Outcome(400, EXIT_INVALID),
    "invalid-config": Outcome(400, EXIT_INVALID),
    "invalid-record": Outcome(400, EXIT_INVALID),
    "invalid-tensors": Outcome(400, EXIT_INVALID),
    "invalid-statement": Outcome(400, EXIT_INVALID),
    "invalid-setting": Outcome(400, EXIT_USAGE),
    "wrong-usage": Outcome(400, EXIT_USAGE),
    "invalid-proof": Outcome(400, EXIT_INVALID),
    "invalid-policy": Outcome(400, EXIT_USAGE),
    "invalid-request": Outcome(400, EXIT_INVALID),
    "unsafe-path": Outcome(400, EXIT_INVALID),
    "forbidden-media-type": Outcome(400, EXIT_INVALID),
    "findings": Outcome(422, EXIT_INVALID),
    "limit-exceeded": Outcome(413, EXIT_LIMIT),
    "quota-exceeded": Outcome(413, EXIT_LIMIT),
    "rate-limited": Outcome(429, EXIT_LIMIT),
    "integrity": Outcome(400, EXIT_INTEGRITY),
    "digest-mismatch": Outcome(400, EXIT_INTEGRITY),
    "size-mismatch": Outcome(400, EXIT_INTEGRITY),
    "range-mismatch": Outcome(416, EXIT_INTEGRITY),
    "untrusted": Outcome(422, EXIT_TRUST),
    "signature-missing": Outcome(422, EXIT_TRUST),
    "signature-invalid": Outcome(422, EXIT_TRUST),
    "publisher-changed": Outcome(422, EXIT_TRUST),
    "origin-mismatch": Outcome(422, EXIT_TRUST),
    "key-not-authorised": Outcome(422, EXIT_TRUST),
    "rollback": Outcome(422, EXIT_TRUST),
    "release-expired": Outcome(422, EXIT_TRUST),
    "release-yanked": Outcome(422, EXIT_TRUST),
    "policy-refused": Outcome(422, EXIT_TRUST),
    "log": Outcome(422, EXIT_TRUST),
    "stale": Outcome(422, EXIT_TRUST),
    "signing-key": Outcome(500, EXIT_AUTH),
    "wrong-passphrase": Outcome(500, EXIT_AUTH),
    "passphrase-missing": Outcome(500, EXIT_AUTH),
    "unauthenticated": Outcome(401, EXIT_AUTH),
    "token-expired": Outcome(401, EXIT_AUTH),
    "forbidden": Outcome(403, EXIT_AUTH),
    "rule-refused": Outcome(403, EXIT_RULE),
    "payment-required": Outcome(402, EXIT_PAYMENT),
    "not-found": Outcome(404, EXIT_NOT_FOUND),
    "conflict": Outcome(409, EXIT_CONFLICT),
    "incompatible": Outcome(422, EXIT_INCOMPATIBLE),
    "useless-build": Outcome(422, EXIT_INCOMPATIBLE),
    "network": Outcome(502, EXIT_NETWORK),
    "unsafe-redirect": Outcome(502, EXIT_NETWORK),
    "storage": Outcome(503, EXIT_STORAGE),
    "disk-full": Outcome(507, EXIT_STORAGE),
    "read-only": Outcome(503, EXIT_STORAGE),
    "unavailable": Outcome(503, EXIT_NETWORK),
    "unsupported": Outcome(501, EXIT_ERROR),
    "missing-dependency": Outcome(501, EXIT_ERROR),
}
