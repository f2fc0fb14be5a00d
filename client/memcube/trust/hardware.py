"""Signing keys that never leave their token: PKCS#11 devices, named by RFC 7512 URIs.

    pkcs11:token=release;object=alice?module-path=/usr/lib/softhsm/libsofthsm2.so

The token needs the key pair under that label: ECDSA on P-256. Its PIN is asked for like the passphrase
of a key in a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote

from memcube_protocol.errors import (
    InvalidStatementError,
    MissingDependencyError,
    NotFoundError,
    SigningKeyError,
    WrongPassphraseError,
)
from memcube_protocol.values import frozen
from memcube_signing.keys import Algorithm, PublicKey, with_low_s

if TYPE_CHECKING:
    from pkcs11 import Session

SCHEME: Final = "pkcs11:"
_FORM: Final = "pkcs11:token=NAME;object=NAME?module-path=FILE"


@frozen
class TokenUri:
    """Which key of which token, through which driver (a shared library).

    Raises:
        SigningKeyError: a part is missing.
    """

    token: str
    label: str
    module: str

    def __post_init__(self) -> None:
        if not (self.token and self.label and self.module):
            raise _unusable("the URI of a key in a token lacks a part", f"write it as {_FORM}")

    @classmethod
    def parse(cls, uri: str) -> Self:
        """The parts of a PKCS#11 URI (RFC 7512); others than these three are refused.

        Raises:
            SigningKeyError: any other form.
        """
        path, _, query = uri.removeprefix(SCHEME).partition("?")
        parts = [*path.split(";"), *(query.split("&") if query else ())]
        named = [part.partition("=") for part in parts]
        fields = {name: unquote(value) for name, _, value in named}
        if len(fields) != len(parts) or not fields.keys() <= {"token", "object", "module-path"}:
            raise _unusable(
                f"{path[:200]!r} does not name a key in a token in the form known here",
                f"write it as {_FORM}",
            )
        return cls(fields.get("token", ""), fields.get("object", ""), fields.get("module-path", ""))


@frozen
class TokenSigner:
    """A `Signer` whose private key stays in its token; each signature logs in anew."""

    uri: TokenUri
    pin: str = field(repr=False)
    public_key: PublicKey

    @classmethod
    def open(cls, uri: TokenUri, pin: str) -> Self:
        """The key that `uri` names.

        Raises:
            NotFoundError, WrongPassphraseError, SigningKeyError, MissingDependencyError: it cannot
                be used.
        """
        with _session(uri, pin) as session:
            return cls(uri, pin, _public_key(session, uri))

    def sign(self, message: bytes, /) -> bytes:
        """See `Signer.sign`. Tokens choose their own randomness: each signature differs."""
        from pkcs11 import KeyType, Mechanism, ObjectClass
        from pkcs11.types import SignMixin
        from pkcs11.util.ec import encode_ecdsa_signature

        with _session(self.uri, self.pin) as session:
            key = session.get_key(ObjectClass.PRIVATE_KEY, KeyType.EC, self.uri.label)
            assert isinstance(key, SignMixin)
            raw = key.sign(hashlib.sha256(message).digest(), mechanism=Mechanism.ECDSA)
        signature = with_low_s(encode_ecdsa_signature(raw))
        self.public_key.verify(signature, message)
        return signature


@contextmanager
def _session(uri: TokenUri, pin: str) -> Iterator[Session]:
    """A session in which the user is logged in; what the driver refuses is told in our words."""
    try:
        import pkcs11
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "keys in tokens need the package python-pkcs11",
            hint="install it: pip install 'memcube[pkcs11]'",
        ) from None
    try:
        token = pkcs11.lib(uri.module).get_token(token_label=uri.token)
        with token.open(user_pin=pin) as session:
            yield session
    except (pkcs11.NoSuchToken, pkcs11.NoSuchKey) as error:
        raise NotFoundError(
            f"there is no key {uri.label!r} in a token {uri.token!r}: {type(error).__name__}",
            hint="`pkcs11-tool --list-objects` shows what the token holds; is it plugged in?",
        ) from None
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
        raise WrongPassphraseError(
            f"the PIN does not open the token {uri.token!r}",
            hint="try again with care: a token locks itself after a few wrong PINs",
        ) from None
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        why = str(error) or type(error).__name__
        raise _unusable(f"the token {uri.token!r} does not sign: {why}", _CHECK) from None


_CHECK: Final = "check the driver's path and that the token answers (pkcs11-tool --list-slots)"


def _public_key(session: Session, uri: TokenUri) -> PublicKey:
    from pkcs11 import KeyType, ObjectClass
    from pkcs11 import PublicKey as TokenKey
    from pkcs11.util.ec import encode_ec_public_key

    found = session.get_key(ObjectClass.PUBLIC_KEY, KeyType.EC, uri.label)
    assert isinstance(found, TokenKey)
    try:
        key = PublicKey(encode_ec_public_key(found))
    except (InvalidStatementError, ValueError):
        key = None
    if key is None or key.algorithm is not Algorithm.ECDSA_P256_SHA256:
        raise _unusable(f"the key {uri.label!r} is not on the curve P-256", "make one that is")
    return key


def _unusable(message: str, hint: str) -> SigningKeyError:
    return SigningKeyError(message, hint=hint)
