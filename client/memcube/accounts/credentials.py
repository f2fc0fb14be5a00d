"""Credentials, one pair per registry host: in the keyring where one works, else in a private file.

Order of search: `MEMCUBE_TOKEN` (for the default registry only), the keyring, `credentials.json` in
the home folder (mode 0600), Docker's `config.json` (read only, plain `auths` entries).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidError, InvalidRequestError, StorageError
from memcube_protocol.values import frozen

from memcube.settings import Settings
from memcube.store.files import make_folder, read_file, replace_file, storage_errors
from memcube.store.locks import hold_lock

SERVICE: Final = "memcube"
_FILE: Final = "credentials.json"
_FILE_BYTES: Final = 1024 * 1024
_WAIT_S: Final = 10.0
_OTHERS: Final = 0o077


@frozen
class Credentials:
    """A user name and a secret; an API token stands alone, with the empty name.

    Raises:
        InvalidRequestError: a part holds a control character, or the name a colon (RFC 7617).
    """

    username: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.secret or not (self.username + self.secret).isprintable():
            raise InvalidRequestError(
                "a user name and a secret are printable, and a secret is not empty",
                hint="copy the token again, without spaces and line ends",
            )
        if ":" in self.username:
            raise InvalidRequestError("a user name holds no colon", hint="see RFC 7617")

    @property
    def basic(self) -> str:
        """Value of an `Authorization` header (RFC 7617); a lone token gets the name `token`."""
        pair = f"{self.username or 'token'}:{self.secret}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


class CredentialStore:
    """Where this user's credentials lie."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._path = settings.home / _FILE
        self._environ = os.environ if environ is None else environ

    def find(self, host: str) -> Credentials | None:
        """Credentials for `host`, or nothing.

        Raises:
            StorageError: the file is damaged, or others may read it.
        """
        if self._settings.token and host == self._settings.endpoint.host:
            return Credentials("", self._settings.token)
        return self._from_keyring(host) or self._from_file(host) or self._from_docker(host)

    def put(self, host: str, credentials: Credentials) -> str:
        """Keep `credentials` for `host`; says where: `keyring` or the file's path.

        Raises:
            ReadOnlyError, DiskFullError, StorageError: they were not kept.
        """
        keyring = self._keyring()
        value = {"username": credentials.username, "secret": credentials.secret}
        if keyring is not None:
            try:
                keyring.set_password(SERVICE, host, json.dumps(value))
            except keyring.errors.KeyringError:
                pass  # a keyring that is locked or gone: the file is the documented second place
            else:
                self._change_file(host, None)
                return "keyring"
        self._change_file(host, value)
        return str(self._path)

    def remove(self, host: str) -> bool:
        """Forget the credentials of `host`; says whether there were any. Docker's stay.

        Raises:
            ReadOnlyError, StorageError: they are still there.
        """
        found = self._from_keyring(host) is not None
        if found and (keyring := self._keyring()) is not None:
            keyring.delete_password(SERVICE, host)
        if self._from_file(host) is not None:
            self._change_file(host, None)
            found = True
        return found

    def _keyring(self) -> Any:
        """The module `keyring`, where the user wants it and it has a real backend."""
        if not self._settings.keyring:
            return None
        import keyring
        import keyring.errors

        return keyring if keyring.get_keyring().priority >= 1 else None

    def _from_keyring(self, host: str) -> Credentials | None:
        keyring = self._keyring()
        if keyring is None:
            return None
        try:
            text = keyring.get_password(SERVICE, host)
        except keyring.errors.KeyringError:
            return None
        return _credentials(canonical_json.parse_object(text.encode())) if text else None

    def _from_file(self, host: str) -> Credentials | None:
        value = self._read().get(host)
        if value is None:
            return None
        try:
            return _credentials(value)
        except (KeyError, TypeError, InvalidError):
            raise _damaged(self._path) from None

    def _from_docker(self, host: str) -> Credentials | None:
        folder = self._environ.get("DOCKER_CONFIG") or str(Path("~/.docker").expanduser())
        try:
            config = json.loads((Path(folder) / "config.json").read_bytes())
            pair = base64.b64decode(config["auths"][host]["auth"], validate=True).decode()
            username, colon, secret = pair.partition(":")
            return Credentials(username, secret) if colon else None
        except (OSError, ValueError, KeyError, TypeError, binascii.Error, InvalidError):
            return None  # somebody else's file: what cannot be used there is as good as absent

    def _read(self) -> dict[str, Any]:
        with storage_errors(f"{self._path} cannot be read"):
            if self._path.exists() and self._path.stat().st_mode & _OTHERS:
                raise StorageError(
                    f"{self._path} can be read by others", hint=f"run: chmod 600 '{self._path}'"
                )
        content = read_file(self._path, _FILE_BYTES)
        try:
            return canonical_json.parse_object(content or b"{}", what=_FILE)
        except InvalidError:
            raise _damaged(self._path) from None

    def _change_file(self, host: str, value: dict[str, str] | None) -> None:
        if value is None and not self._path.exists():
            return
        with self._locked():
            hosts = self._read()
            hosts.pop(host, None)
            if value is not None:
                hosts[host] = value
            replace_file(self._path, canonical_json.dump(hosts))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self._settings.home)
        with hold_lock(self._path.with_suffix(".lock"), exclusive=True, wait_s=_WAIT_S):
            yield


def _credentials(value: Mapping[str, str]) -> Credentials:
    return Credentials(value["username"], value["secret"])


def _damaged(path: Path) -> StorageError:
    return StorageError(f"{path} is damaged", hint="delete the file and log in again")
