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
│   ├── WrongUsageError            a command was given what it does not take
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
├── RuleRefusedError           the cube's own rules do not allow this
├── PaymentRequiredError       content of a cube that has to be bought
├── NotFoundError              no such blob, manifest, tag, cube, memory or file
├── ConflictError              somebody else was first, or the thing is immutable
├── IncompatibleError          a memory that does not fit this model
│   └── UselessBuildError          a memory made for a model that recalls nothing, or damages it
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

from typing import ClassVar

from memcube_protocol import outcomes

EXIT_AUTH = outcomes.EXIT_AUTH
EXIT_CONFLICT = outcomes.EXIT_CONFLICT
EXIT_ERROR = outcomes.EXIT_ERROR
EXIT_INCOMPATIBLE = outcomes.EXIT_INCOMPATIBLE
EXIT_INTEGRITY = outcomes.EXIT_INTEGRITY
EXIT_INTERRUPTED = outcomes.EXIT_INTERRUPTED
EXIT_INVALID = outcomes.EXIT_INVALID
EXIT_LIMIT = outcomes.EXIT_LIMIT
EXIT_NETWORK = outcomes.EXIT_NETWORK
EXIT_NOT_FOUND = outcomes.EXIT_NOT_FOUND
EXIT_OK = outcomes.EXIT_OK
EXIT_PAYMENT = outcomes.EXIT_PAYMENT
EXIT_RULE = outcomes.EXIT_RULE
EXIT_STORAGE = outcomes.EXIT_STORAGE
EXIT_TRUST = outcomes.EXIT_TRUST
EXIT_USAGE = outcomes.EXIT_USAGE
OUTCOMES = outcomes.OUTCOMES
Outcome = outcomes.Outcome


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
    """A manifest that names blobs or manifests that its repository does not hold."""

    code = "missing-content"


class InvalidConfigError(InvalidError):
    """A config of a cube or build, or a `memcube.toml`, that breaks its schema."""

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


class WrongUsageError(InvalidError):
    """A command line with an unknown option or argument, or without a required one."""

    code = "wrong-usage"


class InvalidProofError(InvalidError):
    """Not a proof (`.memproof`), or not in canonical form."""

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
    """The namespace's key documents do not authorise the signers: unknown, retired, revoked, or too few."""

    code = "key-not-authorised"


class RollbackError(TrustError):
    """An older or different release than the one already seen under the same name."""

    code = "rollback"


class ReleaseExpiredError(TrustError):
    """A release outside its time of validity."""

    code = "release-expired"


class PolicyRefusedError(TrustError):
    """A cube that does not meet the consumer's policy."""

    code = "policy-refused"


class LogError(TrustError):
    """A transparency log that lacks an entry, shrank, forked, or stands still."""

    code = "log"


class StaleKnowledgeError(TrustError):
    """Knowledge about a cube that is older than the policy allows, or from the future."""

    code = "stale"


class YankedError(TrustError):
    """A release that its publisher withdrew."""

    code = "release-yanked"


class SigningKeyError(MemcubeError):
    """The user's signing key cannot be used."""

    code = "signing-key"


class WrongPassphraseError(SigningKeyError):
    """The passphrase does not open the key, or the key file is damaged."""

    code = "wrong-passphrase"


class PassphraseMissingError(SigningKeyError):
    """No terminal, variable or keyring can supply the passphrase."""

    code = "passphrase-missing"


class UnauthenticatedError(MemcubeError):
    """No credentials, or wrong ones."""

    code = "unauthenticated"


class TokenExpiredError(UnauthenticatedError):
    """Credentials that have expired or were revoked."""

    code = "token-expired"


class ForbiddenError(MemcubeError):
    """Authenticated, but not allowed."""

    code = "forbidden"


class RuleRefusedError(MemcubeError):
    """The cube's governance forbids the act; `rule`, `value` and `act` say which."""

    code = "rule-refused"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        rule: str = "",
        value: str = "",
        act: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.rule = rule
        self.value = value
        self.act = act


class PaymentRequiredError(MemcubeError):
    """Content of a cube that must be bought first."""

    code = "payment-required"


class NotFoundError(MemcubeError):
    """No such blob, manifest, tag, cube, memory or file."""

    code = "not-found"


class ConflictError(MemcubeError):
    """Another change came first, or the target is immutable."""

    code = "conflict"


class IncompatibleError(MemcubeError):
    """A memory that does not fit this model."""

    code = "incompatible"


class UselessBuildError(IncompatibleError):
    """A memory made for a model that recalls nothing, or that damages the model."""

    code = "useless-build"


class NetworkError(MemcubeError):
    """The other side did not answer, or its answer cannot be used."""

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


def outcome_of(error: MemcubeError) -> outcomes.Outcome:
    """HTTP status and exit code of `error`."""
    return OUTCOMES[error.code]
