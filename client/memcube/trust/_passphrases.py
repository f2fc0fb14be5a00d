"""Where the passphrase of a signing key comes from: the keyring, a variable, the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from memcube_protocol.errors import SigningKeyError

SERVICE = "memcube-signing-key"
Ask = Callable[[str], str]
"""Shows a question on the terminal and returns the hidden answer."""


class Secrets(Protocol):
    """Keeps short secrets by name, outside of files."""

    def get(self, name: str) -> str | None:
        """The secret called `name`, or nothing.

        Raises:
            SigningKeyError: the place is locked or gone.
        """
        ...

    def put(self, name: str, secret: str) -> None:
        """Keep `secret` under `name`.

        Raises:
            SigningKeyError: it was not kept.
        """
        ...


class MemorySecrets:
    """Secrets in memory: the test double of every `Secrets`."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        """See `Secrets.get`."""
        return self._secrets.get(name)

    def put(self, name: str, secret: str) -> None:
        """See `Secrets.put`."""
        self._secrets[name] = secret


class KeyringSecrets:
    """Secrets in the keyring of the operating system."""

    def get(self, name: str) -> str | None:
        """See `Secrets.get`."""
        import keyring
        import keyring.errors

        try:
            return keyring.get_password(SERVICE, name)
        except keyring.errors.KeyringError as error:
            raise _unusable(error) from None

    def put(self, name: str, secret: str) -> None:
        """See `Secrets.put`."""
        import keyring
        import keyring.errors

        try:
            keyring.set_password(SERVICE, name, secret)
        except keyring.errors.KeyringError as error:
            raise _unusable(error) from None


def keyring_secrets() -> Secrets | None:
    """The keyring of this session, where there is one with a real backend."""
    import keyring

    return KeyringSecrets() if keyring.get_keyring().priority >= 1 else None


def terminal() -> Ask | None:
    """A way to ask on the terminal, where a person sits at it."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    import getpass

    return lambda question: getpass.getpass(question, stream=sys.stderr)


def _unusable(error: Exception) -> SigningKeyError:
    return SigningKeyError(
        f"the keyring does not answer: {error}",
        hint="unlock it, or set MEMCUBE_KEYRING=0 and use a passphrase",
    )
