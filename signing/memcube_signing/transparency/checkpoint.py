"""Checkpoints: what a log commits to, as signed notes (C2SP tlog-checkpoint, signed-note, tlog-cosignature).

    log.example
    2
    H0…=

    — log.example 1F…
    — witness.example 9a…

Keys are Ed25519. The log signs the three lines; a witness, and the log itself, cosign them with a time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import field
from datetime import UTC, datetime
from typing import Final, Self

from memcube_protocol.errors import InvalidStatementError, SignatureInvalidError
from memcube_protocol.values import frozen

from memcube_signing.keys import Algorithm, PublicKey, Signer
from memcube_signing.transparency.merkle import HASH_BYTES

NOTE_BYTES: Final = 64 * 1024
SIGNATURES: Final = 64
SIZE_MAX: Final = 2**53 - 1
_ED25519: Final = b"\x01"
_COSIGNATURE: Final = b"\x04"
_SPKI_HEAD: Final = bytes.fromhex("302a300506032b6570032100")
_ORIGIN: Final = re.compile(r"[!-~]{1,255}")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_LINE: Final = re.compile(r"— ([^\s+]{1,255}) ([A-Za-z0-9+/]+={0,2})")
_HINT: Final = "see docs/spec/log.md, Checkpoint"


@frozen
class Checkpoint:
    """A log's state: its origin, how many entries it has, and the root of their tree.

    Raises:
        InvalidStatementError: a field breaks its rule.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not _ORIGIN.fullmatch(self.origin) or "+" in self.origin:
            raise _invalid(f"{self.origin[:80]!r} is not the origin of a log")
        if not 0 <= self.size <= SIZE_MAX or len(self.root) != HASH_BYTES:
            raise _invalid("its size or its root is out of range")

    @property
    def body(self) -> bytes:
        """The bytes that the log signs."""
        return f"{self.origin}\n{self.size}\n{_encode(self.root)}\n".encode()

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """The checkpoint in three lines.

        Raises:
            InvalidStatementError: any other form; extension lines are refused.
        """
        try:
            lines = body.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise _invalid("it is not ASCII") from None
        if len(lines) != 4 or lines[3] or not _SIZE.fullmatch(lines[1]):
            raise _invalid("it has not exactly the lines origin, size and root")
        return cls(lines[0], int(lines[1]), _decode(lines[2]))


@frozen
class NoteKey:
    """The Ed25519 key of a log or witness under its name, as verifiers know it.

    Raises:
        InvalidStatementError: another algorithm, or not a name.
    """

    name: str
    key: PublicKey
    cosigns: bool = False
    """Whether it signs with a time (a witness), or the checkpoint alone (a log)."""
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        if not _ORIGIN.fullmatch(self.name) or "+" in self.name:
            raise _invalid(f"{self.name[:80]!r} is not the name of a log or witness")
        if self.key.algorithm is not Algorithm.ED25519:
            raise _invalid("logs and witnesses sign with Ed25519", "unsupported-algorithm")
        kind = _COSIGNATURE if self.cosigns else _ED25519
        object.__setattr__(
            self, "id", hashlib.sha256(self.name.encode() + b"\n" + kind + self.raw_key).digest()
        )

    @property
    def raw_key(self) -> bytes:
        """The 32 bytes of the key."""
        return self.key.der[len(_SPKI_HEAD) :]

    @property
    def hint(self) -> bytes:
        """The four bytes that name this key in a note."""
        return self.id[:4]

    @property
    def cosigner(self) -> NoteKey:
        """The same key in its role of cosigner, with times."""
        return NoteKey(self.name, self.key, cosigns=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The key in a line `name+hash+key` (C2SP signed-note, "Verifier keys").

        Raises:
            InvalidStatementError: any other form, or a hash that does not fit.
        """
        name, _, rest = text.partition("+")
        hint, _, encoded = rest.partition("+")
        content = _decode(encoded)
        if content[:1] not in (_ED25519, _COSIGNATURE) or len(content) != 33:
            raise _invalid("it is not an Ed25519 verifier key", "unsupported-algorithm")
        found = cls(name, PublicKey(_SPKI_HEAD + content[1:]), content[:1] == _COSIGNATURE)
        if found.hint.hex() != hint:
            raise _invalid("the hash of a verifier key does not fit")
        return found

    def __str__(self) -> str:
        kind = _COSIGNATURE if self.cosigns else _ED25519
        return f"{self.name}+{self.hint.hex()}+{_encode(kind + self.raw_key)}"


@frozen
class Line:
    """One signature line of a note: `value` follows the four bytes of the key's hint."""

    name: str
    hint: bytes
    value: bytes

    def __str__(self) -> str:
        return f"— {self.name} {_encode(self.hint + self.value)}\n"


@frozen
class Cosigned:
    """That the holder of `key` saw the checkpoint at `at`."""

    key: NoteKey
    at: datetime


@frozen
class SignedCheckpoint:
    """A checkpoint with its signature lines as received: none of them is verified yet."""

    checkpoint: Checkpoint
    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """The signed note."""
        return self.checkpoint.body.decode() + "\n" + "".join(map(str, self.lines))

    def with_lines(self, lines: Sequence[Line]) -> SignedCheckpoint:
        """This note with further lines, each once."""
        return SignedCheckpoint(self.checkpoint, tuple(dict.fromkeys((*self.lines, *lines))))


def parse(text: str) -> SignedCheckpoint:
    """The signed checkpoint in `text`.

    Raises:
        InvalidStatementError: not a signed note over a checkpoint, or too large.
    """
    if len(text) > NOTE_BYTES:
        raise _invalid("it is too large")
    body, gap, signatures = text.partition("\n\n")
    if not gap or not signatures.endswith("\n"):
        raise _invalid("it has no signature lines")
    lines = signatures[:-1].split("\n")
    if len(lines) > SIGNATURES:
        raise _invalid(f"it has more than {SIGNATURES} signatures")
    try:
        encoded = (body + "\n").encode("ascii")
    except UnicodeEncodeError:
        raise _invalid("it is not ASCII") from None
    return SignedCheckpoint(Checkpoint.from_body(encoded), tuple(map(_line, lines)))


def parse_lines(text: str) -> tuple[Line, ...]:
    """Signature lines alone, as a witness answers them.

    Raises:
        InvalidStatementError: malformed.
    """
    if not text.endswith("\n") or len(text) > NOTE_BYTES:
        raise _invalid("the signature lines are malformed")
    return tuple(map(_line, text[:-1].split("\n")))


def sign(checkpoint: Checkpoint, signer: Signer) -> SignedCheckpoint:
    """`checkpoint` signed by its log.

    Raises:
        InvalidStatementError: not an Ed25519 key.
        SigningKeyError: the key cannot be used.
    """
    key = NoteKey(checkpoint.origin, signer.public_key)
    line = Line(key.name, key.hint, signer.sign(checkpoint.body))
    return SignedCheckpoint(checkpoint, (line,))


def cosign(checkpoint: Checkpoint, name: str, signer: Signer, at: datetime) -> Line:
    """The line by which `name` says that it saw `checkpoint` at `at` (cosignature/v1).

    Raises:
        InvalidStatementError: not an Ed25519 key.
        SigningKeyError: the key cannot be used.
    """
    key = NoteKey(name, signer.public_key, cosigns=True)
    seconds = int(at.timestamp())
    value = seconds.to_bytes(8, "big") + signer.sign(_cosigned(checkpoint, seconds))
    return Line(name, key.hint, value)


def verify(signed: SignedCheckpoint, log: NoteKey) -> Checkpoint:
    """The checkpoint, once the log's signature is found on it.

    Raises:
        SignatureInvalidError: another log, or no signature of this key.
    """
    checkpoint = signed.checkpoint
    if checkpoint.origin != log.name:
        raise _untrusted(f"it is one of {checkpoint.origin}, not of {log.name}", "log-unknown")
    for line in signed.lines:
        if (line.name, line.hint) == (log.name, log.hint):
            log.key.verify(line.value, checkpoint.body)
            return checkpoint
    raise _untrusted("the log has not signed it", "log-signature-missing")


def cosignatures(signed: SignedCheckpoint, keys: Collection[NoteKey]) -> tuple[Cosigned, ...]:
    """Who of `keys` cosigned, and when; at most one each, the latest. Lines of others are ignored.

    Raises:
        SignatureInvalidError: a line claims to be of one of `keys` and is not.
    """
    found: dict[NoteKey, Cosigned] = {}
    for line in signed.lines:
        for key in keys:
            if key.cosigns and (line.name, line.hint) == (key.name, key.hint):
                at = _time_of(line, key, signed.checkpoint)
                if key not in found or found[key].at < at:
                    found[key] = Cosigned(key, at)
    return tuple(found.values())


def _time_of(line: Line, key: NoteKey, checkpoint: Checkpoint) -> datetime:
    seconds = int.from_bytes(line.value[:8], "big")
    if len(line.value) != 72 or not 0 < seconds < 1 << 36:
        raise _untrusted("a cosignature is malformed", "cosignature-invalid")
    key.key.verify(line.value[8:], _cosigned(checkpoint, seconds))
    return datetime.fromtimestamp(seconds, UTC)


def _cosigned(checkpoint: Checkpoint, seconds: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % seconds + checkpoint.body


def _line(text: str) -> Line:
    match = _LINE.fullmatch(text)
    content = _decode(match[2]) if match else b""
    if match is None or len(content) < 5:
        raise _invalid("a signature line is malformed")
    return Line(match[1], content[:4], content[4:])


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _decode(text: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("a part of it is not base64") from None
    if _encode(content) != text:
        raise _invalid("the base64 of a part of it is not canonical")
    return content


def _invalid(why: str, reason: str = "malformed-checkpoint") -> InvalidStatementError:
    return InvalidStatementError(f"not an acceptable checkpoint: {why}", hint=_HINT, reason=reason)


def _untrusted(why: str, reason: str) -> SignatureInvalidError:
    return SignatureInvalidError(
        f"the log's checkpoint is not accepted: {why}",
        hint="the log is not the one that you trust, or is damaged: do not use it",
        reason=reason,
    )
