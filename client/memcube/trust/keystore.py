"""The user's signing keys on disk: `keys/NAME.pem` (private, 0600) and `keys/NAME.pub` (docs/guide/keys.md).

A private key is encrypted. Its passphrase is the first of: a random one in the keyring of the
operating system, `MEMCUBE_KEY_PASSPHRASE`, the answer on the terminal. Only an explicit
`MEMCUBE_KEY_UNENCRYPTED=1` makes a key without one, for jobs that run unattended.
"""

from __future__ import annotations

import os
import re
import secrets as randomness
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from memcube_protocol.errors import (
    ConflictError,
    InvalidStatementError,
    MemcubeError,
    NotFoundError,
    PassphraseMissingError,
    SigningKeyError,
)
from memcube_protocol.values import frozen
from memcube_signing.keys import Algorithm, PrivateKey, PublicKey, Signer

from memcube.settings import Settings
from memcube.store.files import read_file, replace_file
from memcube.store.locks import hold_lock
from memcube.trust._passphrases import Ask, Secrets, keyring_secrets, terminal
from memcube.trust.hardware import SCHEME, TokenSigner, TokenUri

DEFAULT_KEY: Final = "default"
PASSPHRASE_VARIABLE: Final = "MEMCUBE_KEY_PASSPHRASE"
UNENCRYPTED_VARIABLE: Final = "MEMCUBE_KEY_UNENCRYPTED"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_FILE_BYTES: Final = 16 * 1024
_LOCK_WAIT_S: Final = 60.0
_OTHERS: Final = 0o077


class Protection(StrEnum):
    """What keeps a stored private key from whoever reads its file."""

    KEYRING = "keyring"
    PASSPHRASE = "passphrase"
    NONE = "none"
    TOKEN = "token"


_PROTECTED_BY: Final = {
    Protection.KEYRING: "encrypted; the keyring opens it",
    Protection.PASSPHRASE: "encrypted with your passphrase",
    Protection.NONE: f"NOT encrypted, as {UNENCRYPTED_VARIABLE}=1 asked",
    Protection.TOKEN: "in a token, which it never leaves",
}


@frozen
class KeyEntry:
    """A stored key as it is listed: without opening it."""

    name: str
    public_key: PublicKey
    protection: Protection
    path: Path


@frozen
class SigningKey:
    """An opened key, and whether it was made just now."""

    key: Signer
    entry: KeyEntry
    created: bool

    @property
    def message(self) -> str:
        """What to tell the user about the key, in one line."""
        made = "made a new signing key" if self.created else "signing with"
        how = _PROTECTED_BY[self.entry.protection]
        return f"{made} {self.key.public_key.id[:16]}… ({self.entry.path}, {how})"


class KeyStore:
    """The signing keys in one folder.

    `ask` reaches a person, `secrets` a keyring; each is None where there is none. `tell` hears of a
    key that was made because it was needed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environ: Mapping[str, str],
        ask: Ask | None = None,
        secrets: Secrets | None = None,
        tell: Callable[[SigningKey], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._environ = environ
        self._ask = ask
        self._secrets = secrets
        self._tell = tell
        self._opened: dict[str, SigningKey] = {}

    @classmethod
    def of(
        cls,
        settings: Settings,
        environ: Mapping[str, str] | None = None,
        *,
        ask: Ask | None = None,
        tell: Callable[[SigningKey], None] = lambda _: None,
    ) -> Self:
        """The keys of this user, with the keyring of this process, and its terminal or `ask`."""
        return cls(
            settings.home / "keys",
            environ=os.environ if environ is None else environ,
            ask=ask or terminal(),
            secrets=keyring_secrets() if settings.keyring else None,
            tell=tell,
        )

    def signer(self, name: str = DEFAULT_KEY) -> SigningKey:
        """The key called `name`, opened; the default key is made when it is first needed.

        It is opened once for the life of this object: nobody is asked for a passphrase twice.

        A name that starts with `pkcs11:` is the URI of a key in a token (see `trust.hardware`).

        Raises:
            NotFoundError: no key of this name (never for the default).
            WrongPassphraseError, PassphraseMissingError, SigningKeyError: it cannot be opened or made.
            StorageError: the folder cannot be read or written.
        """
        if name in self._opened:
            return self._opened[name]
        found = self._found_or_made(name)
        self._opened[name] = replace(found, created=False)
        return found

    def is_at_hand(self, name: str = DEFAULT_KEY) -> bool:
        """Whether `signer` would neither make the key called `name` nor ask anybody for a passphrase.

        Raises:
            NotFoundError, StorageError, InvalidStatementError: as `entry`; the default key may be absent.
        """
        if name in self._opened:
            return True
        if name == DEFAULT_KEY and not self._path(name).exists():
            return False
        if self._environ.get(PASSPHRASE_VARIABLE):
            return True
        is_token = name.startswith(SCHEME)
        return not is_token and self.entry(name).protection is not Protection.PASSPHRASE

    def _found_or_made(self, name: str) -> SigningKey:
        if name.startswith(SCHEME):
            return self._open_token(name)
        if name == DEFAULT_KEY and not self._path(name).exists():
            try:
                made = self.make(name)
            except ConflictError:
                pass  # another process made it in this moment
            else:
                self._tell(made)
                return made
        return self._open(name)

    def make(
        self, name: str = DEFAULT_KEY, algorithm: Algorithm = Algorithm.ECDSA_P256_SHA256
    ) -> SigningKey:
        """A new key, stored under `name`.

        Raises:
            ConflictError: the name is taken; a key is never overwritten.
            PassphraseMissingError, SigningKeyError: nothing here can protect it.
            StorageError: it cannot be written.
        """
        return self.keep(PrivateKey.generate(algorithm), name)

    def keep(self, key: PrivateKey, name: str) -> SigningKey:
        """`key` stored under `name`.

        Raises:
            ConflictError, PassphraseMissingError, SigningKeyError, StorageError: as `make`.
        """
        path = self._path(name)
        with hold_lock(self._folder / ".lock", exclusive=True, wait_s=_LOCK_WAIT_S):
            if path.exists():
                raise ConflictError(
                    f"there is a signing key {name!r} already",
                    hint="choose another name, or move the old key away first",
                )
            pem, protection = self._protected(key)
            replace_file(path.with_suffix(".pub"), key.public_key.to_pem().encode())
            replace_file(path, pem.encode())
        return SigningKey(key, KeyEntry(name, key.public_key, protection, path), created=True)

    def entries(self) -> tuple[KeyEntry, ...]:
        """All keys by name, without opening them.

        Raises:
            StorageError: a file cannot be read.
            InvalidStatementError: a file is damaged.
        """
        names = sorted(path.stem for path in self._folder.glob("*.pem"))
        return tuple(self.entry(name) for name in names if _NAME.fullmatch(name))

    def ids(self) -> frozenset[str]:
        """The ids of the keys whose private half lies here, or in a token that was opened.

        A damaged file counts as none.
        """
        found = {opened.key.public_key.id for opened in self._opened.values()}
        for path in self._folder.glob("*.pem"):
            with suppress(MemcubeError):
                public = self._read(path.with_suffix(".pub"), path.stem)
                found.add(PublicKey.from_pem(public).id)
        return frozenset(found)

    def entry(self, name: str = DEFAULT_KEY) -> KeyEntry:
        """The key called `name`, as it is listed; one in a token is opened for it.

        Raises:
            NotFoundError: no key of this name, or its public half is gone.
            StorageError, InvalidStatementError: as `entries`.
        """
        if name.startswith(SCHEME):
            return self._open_token(name).entry
        path = self._path(name)
        public = self._read(path.with_suffix(".pub"), name)
        public_key = PublicKey.from_pem(public)
        return KeyEntry(name, public_key, self._protection(name, public_key), path)

    def _open_token(self, name: str) -> SigningKey:
        uri = TokenUri.parse(name)
        pin = self._environ.get(PASSPHRASE_VARIABLE)
        if not pin:
            if self._ask is None:
                raise _nobody_to_ask()
            pin = self._ask(f"PIN of the token {uri.token!r}: ")
        key = TokenSigner.open(uri, pin)
        entry = KeyEntry(name, key.public_key, Protection.TOKEN, Path(uri.module))
        return SigningKey(key, entry, created=False)

    def _open(self, name: str) -> SigningKey:
        entry = self.entry(name)
        pem = self._read(entry.path, name)
        _require_private(entry.path)
        passphrase = self._passphrase(entry)
        key = PrivateKey.from_pem(pem, passphrase)
        if key.public_key != entry.public_key:
            raise SigningKeyError(
                f"{entry.path} and its public half do not belong together",
                hint=f"restore both files of the key {name!r} from a backup",
            )
        return SigningKey(key, entry, created=False)

    def _protected(self, key: PrivateKey) -> tuple[str, Protection]:
        """PEM of `key` under the best protection that there is."""
        if self._environ.get(UNENCRYPTED_VARIABLE) == "1":
            return key.to_unencrypted_pem(), Protection.NONE
        passphrase, protection = self._new_passphrase(key.public_key)
        pem = key.to_encrypted_pem(passphrase, randomness.token_bytes(32))
        return pem, protection

    def _new_passphrase(self, key: PublicKey) -> tuple[str, Protection]:
        if passphrase := self._environ.get(PASSPHRASE_VARIABLE):
            return passphrase, Protection.PASSPHRASE
        if self._secrets is not None:
            passphrase = randomness.token_urlsafe(32)
            self._secrets.put(key.id, passphrase)
            return passphrase, Protection.KEYRING
        if self._ask is None:
            raise _nobody_to_ask()
        passphrase = self._ask("Passphrase for your new signing key: ")
        if not passphrase or self._ask("The same passphrase again: ") != passphrase:
            raise SigningKeyError(
                "the passphrases are empty or differ: no key was made", hint="run the command again"
            )
        return passphrase, Protection.PASSPHRASE

    def _passphrase(self, entry: KeyEntry) -> str | None:
        if entry.protection is Protection.NONE:
            return None
        if self._secrets is not None and (known := self._secrets.get(entry.public_key.id)):
            return known
        if passphrase := self._environ.get(PASSPHRASE_VARIABLE):
            return passphrase
        if self._ask is None:
            raise _nobody_to_ask()
        return self._ask(f"Passphrase of the signing key {entry.name!r}: ")

    def _protection(self, name: str, key: PublicKey) -> Protection:
        if "ENCRYPTED" not in self._read(self._path(name), name).partition("\n")[0]:
            return Protection.NONE
        if self._secrets is not None and self._secrets.get(key.id):
            return Protection.KEYRING
        return Protection.PASSPHRASE

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise SigningKeyError(
                f"{name[:80]!r} is not a name for a key",
                hint="use lower-case letters, digits, - and _",
            )
        return self._folder / f"{name}.pem"

    def _read(self, path: Path, name: str) -> str:
        content = read_file(path, _FILE_BYTES)
        if content is None:
            raise NotFoundError(
                f"there is no signing key {name!r}: {path} is absent",
                hint="`memcube keys list` shows the keys there are",
            )
        try:
            return content.decode("ascii")
        except UnicodeDecodeError:
            raise InvalidStatementError(
                f"{path} is not a key in PEM", hint="restore it from a backup"
            ) from None


def _require_private(path: Path) -> None:
    """Refuse a key that others on this machine may have read, as ssh does."""
    if stat.S_IMODE(path.stat().st_mode) & _OTHERS:
        raise SigningKeyError(
            f"others may read the signing key {path}",
            hint=f"chmod 600 {path}; if others use this machine, make a new key",
        )


def _nobody_to_ask() -> PassphraseMissingError:
    return PassphraseMissingError(
        "the signing key needs a passphrase: there is no terminal to ask for it and no keyring",
        hint=f"set {PASSPHRASE_VARIABLE}; for a demo or a closed CI job, {UNENCRYPTED_VARIABLE}=1 "
        "makes a key without encryption",
    )
