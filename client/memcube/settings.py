"""What the user decided once: where things lie, which registry is the default, what may be plain http.

Read from `config.toml` in the home folder and from variables, which win:

    MEMCUBE_HOME       folder of everything memcube keeps for this user
    MEMCUBE_ENDPOINT   default registry: a host, or a URL with http:// or https://
    MEMCUBE_TOKEN      API token for the default registry, and for no other
    MEMCUBE_INSECURE   hosts that may be asked over plain http, divided by commas
    MEMCUBE_OFFLINE    1: never open a connection
    MEMCUBE_KEYRING    0: keep credentials in a file even where a keyring works
    MEMCUBE_PARALLEL   blobs that move at the same time, 1 to 32
    MEMCUBE_DIRECT     0: send every byte through the registry, never straight to its store
    MEMCUBE_EMBEDDER   what records are embedded with: lsa, a folder, an address, or a plug-in
    MEMCUBE_QDRANT     address of a Qdrant server that a team searches on
    MEMCUBE_USE        what cubes are used for here, divided by commas: personal, research, …
    MEMCUBE_SENSITIVITY  the highest sensitivity that is mounted
    MEMCUBE_USAGE      0: do not count which memories are used

`config.toml` alone holds `[profile.NAME]` tables (see `memcube.profiles`).

The Hub is where its own clients look for it: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final, Self

from memcube_protocol.errors import InvalidSettingError, NotFoundError
from memcube_protocol.governance import SENSITIVITIES, USES
from memcube_protocol.reference import is_host
from memcube_protocol.values import frozen

from memcube.profiles import Profile, profiles_of
from memcube.store.files import read_own_file, require_ours

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:7070"
CONFIG_FILE: Final = "config.toml"
_FILE_BYTES: Final = 1024 * 1024
_MAX_PARALLEL: Final = 32
_HUB_VARIABLES: Final = (
    *("HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    *("HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME"),
)
_KEYS: Final = frozenset(
    {
        *("endpoint", "insecure", "offline", "keyring", "parallel", "direct", "embedder", "qdrant"),
        *("use", "sensitivity", "usage"),
    }
)
_TABLES: Final = frozenset({"profile"})
_SWITCHES: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def is_loopback(host: str) -> bool:
    """Whether `host`, with or without a port, is this machine: 127.0.0.0/8, ::1 or localhost."""
    name = host_name(host)
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """`host` without its port and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


@frozen
class Endpoint:
    """Where a registry answers: a scheme and a `host[:port]`.

    Raises:
        InvalidSettingError: another scheme than http or https, or not a host.
    """

    scheme: str
    host: str

    def __post_init__(self) -> None:
        if self.scheme not in ("http", "https") or not is_host(self.host):
            raise _invalid(
                "endpoint", f"{self.scheme[:20]}://{self.host[:100]} is not a registry's address"
            )

    @property
    def url(self) -> str:
        """The address as a URL without a trailing slash."""
        return f"{self.scheme}://{self.host}"


@frozen
class Settings:
    """The settings of one run. `insecure` holds hosts that may be asked over plain http.

    `hub` are the variables of the Hub's clients, which `memcube.hub` reads when the Hub is first asked.
    `uses` is what cubes are used for here, `sensitivity` the highest that is mounted, `usage` whether
    the use of memories is counted on this machine. `embedder` and `qdrant` are for searching records:
    see `memories.plaintext.plugins` and `memories.plaintext.server`.

    Raises:
        InvalidSettingError: plain http for a remote host that is not listed, or a wrong value.
    """

    home: Path
    endpoint: Endpoint
    token: str | None = field(default=None, repr=False)
    insecure: frozenset[str] = frozenset()
    offline: bool = False
    keyring: bool = True
    parallel: int = 4
    direct: bool = True
    hub: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    uses: frozenset[str] = frozenset()
    sensitivity: str = SENSITIVITIES[-1]
    usage: bool = True
    profiles: Mapping[str, Profile] = field(default_factory=dict[str, Profile])
    embedder: str | None = None
    qdrant: str | None = None

    def __post_init__(self) -> None:
        if self.endpoint.scheme == "http" and not self.allows_plain_http(self.endpoint.host):
            raise _invalid(
                "endpoint",
                f"{self.endpoint.url} would send everything unencrypted",
                hint=f"use https, or list {self.endpoint.host!r} under `insecure` in {CONFIG_FILE}",
            )
        if not 1 <= self.parallel <= _MAX_PARALLEL:
            raise _invalid("parallel", f"{self.parallel} is not between 1 and {_MAX_PARALLEL}")
        for key, said, known in (
            ("use", self.uses, USES),
            ("sensitivity", {self.sensitivity}, SENSITIVITIES),
        ):
            if unknown := sorted(set(said) - set(known)):
                raise _invalid(key, f"{unknown[0][:60]!r} is not one of {', '.join(known)}")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Settings of this user: `config.toml` in the home folder, then the variables.

        Raises:
            InvalidSettingError: naming the key or variable that is unknown or wrong.
            StorageError: the file cannot be read, or others can write it.
        """
        environ = os.environ if environ is None else environ
        home = Path(environ["MEMCUBE_HOME"]) if environ.get("MEMCUBE_HOME") else _default_home()
        values = _from_file(home / CONFIG_FILE) | _from_variables(environ)
        insecure = _hosts(values.get("insecure", []))
        return cls(
            home.absolute(),
            _endpoint(_text("endpoint", values.get("endpoint", DEFAULT_ENDPOINT)), insecure),
            _token(environ.get("MEMCUBE_TOKEN")),
            insecure,
            _switch("offline", values.get("offline", False)),
            _switch("keyring", values.get("keyring", True)),
            _number("parallel", values.get("parallel", 4)),
            _switch("direct", values.get("direct", True)),
            {name: environ[name] for name in _HUB_VARIABLES if name in environ},
            _uses(values.get("use", [])),
            _text("sensitivity", values.get("sensitivity", SENSITIVITIES[-1])),
            _switch("usage", values.get("usage", True)),
            profiles_of(values.get("profile", {})),
            _text("embedder", values.get("embedder", "")) or None,
            _text("qdrant", values.get("qdrant", "")) or None,
        )

    def profile(self, name: str) -> Profile:
        """The mount profile called `name`.

        Raises:
            NotFoundError: config.toml has no such table.
        """
        if name not in self.profiles:
            known = (
                f"{CONFIG_FILE} has: {', '.join(sorted(self.profiles))}" if self.profiles else ""
            )
            raise NotFoundError(
                f"there is no profile {name[:80]!r}",
                hint=known or f"write [profile.{name[:80]}] with cubes = […] into {CONFIG_FILE}",
            )
        return self.profiles[name]

    @property
    def store_path(self) -> Path:
        """Folder of the local store."""
        return self.home / "store"

    def allows_plain_http(self, host: str) -> bool:
        """Whether `host` may be asked without TLS: this machine, or listed as insecure."""
        return is_loopback(host) or host in self.insecure

    def endpoint_of(self, host: str = "") -> Endpoint:
        """Where to ask for `host`; the empty host of a short reference is the default registry."""
        if host in ("", self.endpoint.host):
            return self.endpoint
        scheme = "http" if self.allows_plain_http(host) else "https"
        asked = _canonical(scheme, host)
        return self.endpoint if asked.host == self.endpoint.host else asked


def _default_home() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("memcube", appauthor=False))


def _from_file(path: Path) -> dict[str, Any]:
    """What `path` says: which registry gets the token, and who gets records, is nobody else's to choose."""
    require_ours(path)
    # It may be a link of the user's own: where it leads counts as well.
    content = read_own_file(path.resolve(), _FILE_BYTES, folder=False)
    if content is None:
        return {}
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(str(path), f"it is not TOML: {error}") from None
    for key in values:
        if key not in _KEYS | _TABLES:
            raise _invalid(key, f"{path} holds an unknown key", hint=f"known: {_known()}")
    return values


def _from_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {
        key: environ[variable]
        for key in _KEYS
        if environ.get(variable := f"MEMCUBE_{key.upper()}", "") != ""
    }
    for key in ("insecure", "use"):
        if key in values:
            values[key] = [item.strip() for item in values[key].split(",")]
    return values


def _endpoint(text: str, insecure: frozenset[str]) -> Endpoint:
    scheme, divider, host = text.rstrip("/").partition("://")
    if divider:
        return _canonical(scheme, host)
    return _canonical("http" if is_loopback(text) or text in insecure else "https", scheme)


def _canonical(scheme: str, host: str) -> Endpoint:
    """One spelling for one registry: lower case, without the usual port; credentials hang on it."""
    return Endpoint(scheme, host.lower().removesuffix(":80" if scheme == "http" else ":443"))


def _hosts(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(h, str) and is_host(h) for h in value):
        raise _invalid("insecure", "it is not a list of hosts such as registry.local:5000")
    return frozenset(value)


def _uses(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(use, str) for use in value):
        raise _invalid("use", f'it is not a list such as ["{USES[0]}"]')
    return frozenset(value)


def _token(text: str | None) -> str | None:
    if not text:
        return None
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _invalid("MEMCUBE_TOKEN", "it holds a space or a character outside ASCII")
    return text


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _invalid(key, "it is not text")
    return value


def _switch(key: str, value: object) -> bool:
    switch = value if isinstance(value, bool) else _SWITCHES.get(str(value).lower())
    if switch is None:
        raise _invalid(key, f"{str(value)[:40]!r} is neither true nor false")
    return switch


def _number(key: str, value: object) -> int:
    if isinstance(value, bool) or not str(value).isdecimal():
        raise _invalid(key, f"{str(value)[:40]!r} is not a whole number")
    return int(str(value))


def _known() -> str:
    return ", ".join(sorted(_KEYS | _TABLES))


def _invalid(key: str, why: str, *, hint: str | None = None) -> InvalidSettingError:
    return InvalidSettingError(
        f"setting {key!r} is refused: {why}",
        hint=hint or "docs/guide/offline-and-store.md lists every setting of the client",
    )
