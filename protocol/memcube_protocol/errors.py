"""Every error memcube raises, and the one table that maps each to an HTTP status and an exit code.

MemcubeError
├── InvalidError               the input breaks a rule of the format
│   ├── InvalidReferenceError      not `host/namespace/name:tag@algorithm:hex`
│   ├── InvalidDigestError         not `algorithm:hex` of a registered algorithm
│   ├── InvalidJsonError           duplicate keys, NaN, too deep, not UTF-8, not canonical
│   ├── InvalidManifestError       not an OCI manifest or index, or not a cube
│   │   └── MissingContentError        a manifest names blobs or manifests that its repository lacks
│   ├── InvalidConfigError         a cube config or memcube.toml breaks its schema
│   ├── InvalidRecordError         a plaintext record or shard breaks its schema
│   ├── InvalidTensorsError        a safetensors file is hostile, damaged or of another shape
│   ├── InvalidStatementError      a signed statement, bundle or key is malformed
│   ├── InvalidSettingError        a setting is unknown or has a wrong value
│   ├── InvalidProofError          not a .memproof file, or one in another form
│   ├── InvalidPolicyError         memcube-trust.toml breaks its format
│   ├── InvalidRequestError        an HTTP request breaks the protocol
│   ├── UnsafePathError            a file name leaves its folder, or collides with another
│   ├── FindingsError              a scan found what must not be published by accident
│   └── ForbiddenMediaTypeError    content of a kind that is never loaded (pickles first of all)
├── LimitExceededError         larger than a named limit
│   ├── QuotaExceededError         the account's storage is full
│   └── RateLimitedError           too many requests; retry later
├── IntegrityError             bytes are not what was promised
│   ├── DigestMismatchError        content differs from the digest that names it
│   ├── SizeMismatchError          content is shorter or longer than its descriptor says
│   └── RangeMismatchError         upload chunks out of order
├── TrustError                 provenance cannot be established
│   ├── SignatureMissingError      no release statement where one is required
│   ├── SignatureInvalidError      the signature or what it binds does not match
│   ├── PublisherChangedError      another key than the one pinned at first use
│   ├── OriginMismatchError        released under another name than the one asked for
│   ├── KeyNotAuthorisedError      the namespace's key documents do not let this key sign it
│   ├── RollbackError              an older or another release than one already seen
│   ├── ReleaseExpiredError        the release is outside its time of validity
│   ├── YankedError                the publisher withdrew the release
│   ├── PolicyRefusedError         the consumer's policy demands more than the cube has
│   ├── LogError                   a transparency log lacks an entry, shrank, forked or stands still
│   └── StaleKnowledgeError        what is known of the cube is too old, or from the future
├── SigningKeyError            the own signing key cannot be used
│   ├── WrongPassphraseError       the passphrase does not open the key
│   └── PassphraseMissingError     nobody and nothing here can tell the passphrase
├── UnauthenticatedError       no credentials, or wrong ones
│   └── TokenExpiredError          credentials that were right once
├── ForbiddenError             authenticated, but not allowed
├── PaymentRequiredError       content of a cube that has to be bought
├── NotFoundError              no such blob, manifest, tag, cube, memory or file
├── ConflictError              somebody else was first, or the thing is immutable
├── IncompatibleError          a memory that does not fit this model
├── NetworkError               the other side did not answer, or answered nonsense
│   └── UnsafeRedirectError        a redirect to another scheme or into this machine
├── StorageError               the local disk or the blob store failed
│   ├── DiskFullError              no space left
│   └── ReadOnlyError              the store cannot be written
├── UnavailableError           the service is shutting down or not ready
├── UnsupportedError           a feature this side does not have
└── MissingDependencyError     an optional package is not installed
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class MemcubeError(Exception):
    """Base of all memcube errors: what happened, and what the user can do about it.

    `code` is stable across releases; `hint` names the next step.
    """

    code: ClassVar[str] = "unknown"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InvalidError(MemcubeError):
    """The input breaks a rule of the format."""

    code = "invalid"


class InvalidReferenceError(InvalidError):
    """Not a reference of the form `host/namespace/name:tag@algorithm:hex`."""

    code = "invalid-reference"


class InvalidDigestError(InvalidError):
    """Not `algorithm:hex` in lower case, or not a registered algorithm."""

    code = "invalid-digest"


class InvalidJsonError(InvalidError):
    """JSON with duplicate keys, NaN, excessive depth, broken UTF-8 or a non-canonical form."""

    code = "invalid-json"


class InvalidManifestError(InvalidError):
    """Not an OCI manifest or index, or one that is not a cube."""

    code = "invalid-manifest"


class MissingContentError(InvalidManifestError):
    """A manifest that names blobs or manifests which its repository does not hold."""

    code = "missing-content"


class InvalidConfigError(InvalidError):
    """A cube config or memcube.toml that breaks its schema."""

    code = "invalid-config"


class InvalidRecordError(InvalidError):
    """A plaintext record or shard that breaks its schema."""

    code = "invalid-record"


class InvalidTensorsError(InvalidError):
    """A safetensors file that is hostile, damaged or of an unexpected shape.

    `rejection` is the stable name of the rule that it breaks (docs/spec/tensors.md).
    """

    code = "invalid-tensors"

    def __init__(
        self, message: str, *, hint: str | None = None, rejection: str = "unexpected"
    ) -> None:
        super().__init__(message, hint=hint)
        self.rejection = rejection


class InvalidStatementError(InvalidError):
    """A signed statement, bundle or key that is malformed; `reason` is stable (docs/spec/statements.md)."""

    code = "invalid-statement"

    def __init__(self, message: str, *, hint: str | None = None, reason: str = "malformed") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class InvalidSettingError(InvalidError):
    """A setting that is unknown or has a wrong value."""

    code = "invalid-setting"


class InvalidProofError(InvalidError):
    """Not a proof (`.memproof`), or one in another form than the canonical one."""

    code = "invalid-proof"


class InvalidPolicyError(InvalidError):
    """A trust policy (`memcube-trust.toml`) that breaks its format."""

    code = "invalid-policy"


class InvalidRequestError(InvalidError):
    """An HTTP request that breaks the protocol."""

    code = "invalid-request"


class UnsafePathError(InvalidError):
    """A file name that leaves its folder, is not portable, or collides with another."""

    code = "unsafe-path"


class ForbiddenMediaTypeError(InvalidError):
    """Content of a kind that memcube never loads."""

    code = "forbidden-media-type"


class FindingsError(InvalidError):
    """A scan found secrets or programs in what was about to be published."""

    code = "findings"


class LimitExceededError(MemcubeError):
    """Larger than a named limit of the protocol."""

    code = "limit-exceeded"


class QuotaExceededError(LimitExceededError):
    """The account has no storage left for this."""

    code = "quota-exceeded"


class RateLimitedError(LimitExceededError):
    """Too many requests. `retry_after_s` is the number of seconds to wait."""

    code = "rate-limited"

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class IntegrityError(MemcubeError):
    """Bytes are not what was promised."""

    code = "integrity"


class DigestMismatchError(IntegrityError):
    """Content differs from the digest that names it."""

    code = "digest-mismatch"


class SizeMismatchError(IntegrityError):
    """Content is shorter or longer than its descriptor says."""

    code = "size-mismatch"


class RangeMismatchError(IntegrityError):
    """An upload chunk that does not continue where the last one ended."""

    code = "range-mismatch"


class TrustError(MemcubeError):
    """Provenance cannot be established; `reason` is stable (docs/spec/statements.md)."""

    code = "untrusted"

    def __init__(self, message: str, *, hint: str | None = None, reason: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason or self.code


class SignatureMissingError(TrustError):
    """No release statement where one is required."""

    code = "signature-missing"


class SignatureInvalidError(TrustError):
    """The signature, or what it binds, does not match."""

    code = "signature-invalid"


class PublisherChangedError(TrustError):
    """Signed by another key than the one pinned at first use."""

    code = "publisher-changed"


class OriginMismatchError(TrustError):
    """A cube that was released under another name than the one asked for."""

    code = "origin-mismatch"


class KeyNotAuthorisedError(TrustError):
    """The key documents of the namespace do not let this key sign: unknown, retired, revoked, too few."""

    code = "key-not-authorised"


class RollbackError(TrustError):
    """An older or another release than one already seen under the same name."""

    code = "rollback"


class ReleaseExpiredError(TrustError):
    """A release outside its time of validity."""

    code = "release-expired"


class PolicyRefusedError(TrustError):
    """A cube that the consumer's policy demands more of."""

    code = "policy-refused"


class LogError(TrustError):
    """A transparency log that lacks an entry, shrank, forked, or stands still."""

    code = "log"


class StaleKnowledgeError(TrustError):
    """What is known of a cube is older than the policy allows, or the clock was set back."""

    code = "stale"


class YankedError(TrustError):
    """A release that its publisher withdrew."""

    code = "release-yanked"


class SigningKeyError(MemcubeError):
    """The own signing key cannot be used."""

    code = "signing-key"


class WrongPassphraseError(SigningKeyError):
    """The passphrase does not open the key, or the key file is damaged."""

    code = "wrong-passphrase"


class PassphraseMissingError(SigningKeyError):
    """There is neither a terminal, nor a variable, nor a keyring that could tell the passphrase."""

    code = "passphrase-missing"


class UnauthenticatedError(MemcubeError):
    """No credentials, or wrong ones."""

    code = "unauthenticated"


class TokenExpiredError(UnauthenticatedError):
    """Credentials that were right once: expired or revoked."""

    code = "token-expired"


class ForbiddenError(MemcubeError):
    """Authenticated, but not allowed."""

    code = "forbidden"


class PaymentRequiredError(MemcubeError):
    """Content of a cube that has to be bought first."""

    code = "payment-required"


class NotFoundError(MemcubeError):
    """No such blob, manifest, tag, cube, memory or file."""

    code = "not-found"


class ConflictError(MemcubeError):
    """Somebody else was first, or the thing is immutable."""

    code = "conflict"


class IncompatibleError(MemcubeError):
    """A memory that does not fit this model."""

    code = "incompatible"


class NetworkError(MemcubeError):
    """The other side did not answer, or answered nonsense."""

    code = "network"


class UnsafeRedirectError(NetworkError):
    """A redirect to another scheme, or from a remote host into this machine."""

    code = "unsafe-redirect"


class StorageError(MemcubeError):
    """The local disk or the blob store failed."""

    code = "storage"


class DiskFullError(StorageError):
    """No space is left where the bytes should go."""

    code = "disk-full"


class ReadOnlyError(StorageError):
    """The store cannot be written."""

    code = "read-only"


class UnavailableError(MemcubeError):
    """The service is shutting down or not ready yet."""

    code = "unavailable"


class UnsupportedError(MemcubeError):
    """A feature that this side does not have."""

    code = "unsupported"


class MissingDependencyError(MemcubeError):
    """An optional package is not installed."""

    code = "missing-dependency"


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
    "payment-required": Outcome(402, EXIT_PAYMENT),
    "not-found": Outcome(404, EXIT_NOT_FOUND),
    "conflict": Outcome(409, EXIT_CONFLICT),
    "incompatible": Outcome(422, EXIT_INCOMPATIBLE),
    "network": Outcome(502, EXIT_NETWORK),
    "unsafe-redirect": Outcome(502, EXIT_NETWORK),
    "storage": Outcome(503, EXIT_STORAGE),
    "disk-full": Outcome(507, EXIT_STORAGE),
    "read-only": Outcome(503, EXIT_STORAGE),
    "unavailable": Outcome(503, EXIT_NETWORK),
    "unsupported": Outcome(501, EXIT_ERROR),
    "missing-dependency": Outcome(501, EXIT_ERROR),
}


def outcome_of(error: MemcubeError) -> Outcome:
    """HTTP status and exit code of `error`."""
    return OUTCOMES[error.code]
