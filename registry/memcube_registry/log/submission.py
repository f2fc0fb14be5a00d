"""What may enter the log: a statement in its envelope, well signed, about a cube of this registry."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache

from memcube_protocol import canonical_json, media_types
from memcube_protocol.errors import InvalidRequestError, InvalidStatementError
from memcube_signing import release as releases
from memcube_signing import statement as statements
from memcube_signing.dsse import Envelope
from memcube_signing.keys import PublicKey, is_canonical
from memcube_signing.release import Release
from memcube_signing.statement import Statement
from memcube_signing.transparency import entry, merkle


@dataclass(frozen=True, slots=True)
class Submission:
    """A statement to be logged under the rights of `repository`. Its signature has been verified.

    `preimage` holds envelope and key as they are served to those who may read the cube.

    Raises:
        InvalidStatementError: not one signature over an in-toto statement, or one by a key that
            cannot be logged, or a release of another name.
        SignatureInvalidError: `key` did not sign it.
    """

    repository: str
    envelope: Envelope
    key: PublicKey
    statement: Statement = field(init=False)
    release: Release | None = field(init=False)
    body: bytes = field(init=False)
    preimage: bytes = field(init=False)

    def __post_init__(self) -> None:
        if self.envelope.payload_type != media_types.IN_TOTO or len(self.envelope.signatures) != 1:
            raise _invalid("it is not an in-toto statement with exactly one signature")
        signature, signed = self.envelope.signatures[0].value, self.envelope.signed
        self.key.verify(signature, signed)
        if not is_canonical(signature, self.key.algorithm):
            raise _invalid("its signature is not in canonical form (low S)")
        said = statements.parse(self.envelope.payload)
        object.__setattr__(self, "statement", said)
        object.__setattr__(self, "release", _release_in(said, self.key, self.repository))
        object.__setattr__(self, "body", entry.leaf(signed, signature, self.key))
        object.__setattr__(self, "preimage", _shown(self.repository, self.envelope, self.key))

    @property
    def leaf_hash(self) -> bytes:
        """Names the entry in the tree."""
        return merkle.leaf_hash(self.body)

    @property
    def signed_sha256(self) -> str:
        """SHA-256 of the signed bytes in hex: what the leaf says of the statement."""
        return hashlib.sha256(self.envelope.signed).hexdigest()

    @property
    def size_bytes(self) -> int:
        """What it takes in the log, with the statement behind it."""
        return len(self.preimage) + len(self.body)

    @property
    def namespace(self) -> str:
        """The account whose cube it is about."""
        return self.repository.partition("/")[0]


def parse(raw: bytes) -> Submission:
    """The submission in a request: `{"repository", "envelope", "publicKey"}`.

    Raises:
        InvalidRequestError, InvalidJsonError: malformed.
        InvalidStatementError, SignatureInvalidError, LimitExceededError: see `Submission`.
    """
    value = canonical_json.parse_object(raw, what="submission")
    repository, key = value.get("repository"), value.get("publicKey")
    if value.keys() != {"repository", "envelope", "publicKey"}:
        raise _malformed("it has not exactly the fields repository, envelope and publicKey")
    if not isinstance(repository, str) or not isinstance(key, str):
        raise _malformed("its repository or its publicKey is not text")
    try:
        der = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("its publicKey is not base64") from None
    return Submission(repository, Envelope.from_json(value["envelope"]), _key(der))


@lru_cache(maxsize=1024)
def _key(der: bytes) -> PublicKey:
    """The key in `der`: publishers come again, and reading a key costs half of what verifying does."""
    return PublicKey(der)


def _release_in(said: Statement, key: PublicKey, repository: str) -> Release | None:
    if said.predicate_type != releases.PREDICATE_TYPE:
        return None
    found = releases.from_statement(said)
    if key.id not in found.publishers:
        raise _invalid("the release does not name the key that signed it")
    if found.origin.partition("/")[2] != repository:
        raise _invalid(f"the release is one of {found.origin}, not of {repository}")
    return found


def _shown(repository: str, envelope: Envelope, key: PublicKey) -> bytes:
    shown = {
        "repository": repository,
        "envelope": envelope.to_json(),
        "publicKey": base64.b64encode(key.der).decode(),
    }
    return json.dumps(shown, separators=(",", ":")).encode()


def _invalid(why: str) -> InvalidStatementError:
    return InvalidStatementError(
        f"the log does not take this statement: {why}", hint="see docs/spec/log.md, Submitting"
    )


def _malformed(why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the submission is malformed: {why}", hint="see docs/spec/log.md, Submitting"
    )
