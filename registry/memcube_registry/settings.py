"""The registry's settings: their names, meanings, defaults and the places they are read from.

From weak to strong: the defaults here, a TOML file, `MEMCUBE_REGISTRY_*` variables, command-line
options. docs/guide/settings.md is generated from this file. An unknown or wrong setting is refused
by name. Durations are seconds, sizes bytes.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from memcube_protocol.errors import InvalidSettingError

PREFIX: Final = "MEMCUBE_REGISTRY_"
CONFIG_VARIABLE: Final = PREFIX + "CONFIG"
DRAIN_VARIABLE: Final = "MEMCUBE_INTERNAL_DRAIN_MARK"
"""Tells workers the name of a file whose presence says that the server is about to stop."""
BUCKETS_VARIABLE: Final = "MEMCUBE_INTERNAL_RATE_LIMITS"
"""Tells workers the name of the file in which they count requests together."""

_WORKERS_AT_MOST: Final = 4
"""By default: a registry on a large machine may have it to share."""

_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE: Final = re.compile(r"(\d{1,15})\s*(KiB|MiB|GiB|TiB|)")
_BARE_URL: Final = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]{1,255}/?")
_S3_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_S3_PREFIX: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._\-]*/)*")
_S3_OBJECT_BYTES: Final = 5 << 30
"""What S3 takes in one request at most."""
_HUB_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_S3_EXPIRY_S: Final = 7 * 86_400
"""What the signature of a URL allows at most."""
_TRUE: Final = ("true", "1", "yes", "on")
_FALSE: Final = ("false", "0", "no", "off")


def _setting(default: Any, doc: str, *, low: float = 0, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"doc": doc, "low": low, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can choose.

    Raises:
        InvalidSettingError: a value breaks a rule; it is named.
    """

    host: str = _setting("127.0.0.1", "Address to listen on; 0.0.0.0 for every interface.")
    port: int = _setting(7070, "Port to listen on; 0 picks a free one.")
    external_url: str = _setting(
        "", "URL by which clients reach the registry; empty: http://HOST:PORT."
    )
    data_dir: Path = _setting(  # noqa: RUF009 - it calls dataclasses.field
        Path(), "Folder of the database, the blobs and the keys; empty: the platform's own."
    )
    database_url: str = _setting(
        "", "sqlite:///FILE or postgresql://…; empty: registry.db in the data folder."
    )
    postgres_connections: int = _setting(
        32, "Connections to PostgreSQL that one process opens at most.", low=2
    )
    postgres_connect_timeout_s: int = _setting(
        5, "Time to connect to PostgreSQL before a request is answered with 503.", low=2
    )
    postgres_statement_timeout_s: float = _setting(
        60.0, "Time that PostgreSQL may take for one statement; 0: no limit."
    )
    postgres_lock_timeout_s: float = _setting(
        10.0, "Time to wait for one lock in PostgreSQL, or for a free connection; 0: no limit."
    )
    postgres_idle_timeout_s: float = _setting(
        60.0, "Longest pause inside a transaction before PostgreSQL ends it; 0: no limit."
    )
    storage: str = _setting(
        "local",
        "Where blobs lie: in the data folder, an S3 bucket, or a repository of the Hugging Face Hub.",
        choices=("local", "s3", "hub"),
    )
    local_reads: str = _setting(
        "stream",
        "Whether the registry sends blobs of the storage `local`, or the nginx before it does, from the "
        "same files; nobody may then reach the registry but through nginx.",
        choices=("stream", "nginx"),
    )
    s3_bucket: str = _setting("", "Name of the bucket; needed by the storage `s3`.")
    s3_prefix: str = _setting("", "What every key in the bucket begins with, such as `registry/`.")
    s3_endpoint_url: str = _setting("", "URL of the S3 server; empty: that of AWS for the region.")
    s3_public_url: str = _setting(
        "", "URL of the S3 server as clients reach it; empty: as the registry does."
    )
    s3_region: str = _setting("", "Region of the bucket; empty: from boto3's own settings.")
    s3_path_style: bool = _setting(
        False, "Whether the bucket stands in the path of URLs, as most servers but AWS want it."
    )
    s3_reads: str = _setting(
        "redirect",
        "Whether clients fetch blobs from the S3 server themselves, or through the registry.",
        choices=("redirect", "stream"),
    )
    s3_writes: str = _setting(
        "direct",
        "Whether memcube's clients send blobs to the S3 server themselves, or through the registry.",
        choices=("direct", "stream"),
    )
    s3_whole_bytes: int = _setting(
        1 << 30,
        "Largest blob that a client sends in one request, checked by the S3 server; larger ones, and those "
        "above 64 MiB whose request broke off, come in parts, resumed and in parallel, and are read back.",
    )
    s3_timeout_s: float = _setting(
        30.0, "Longest pause of the S3 server before a request to it is tried again.", low=0.1
    )
    s3_url_expiry_s: int = _setting(
        300, "How long a URL to which a client was redirected is valid.", low=1
    )
    hub_repository: str = _setting(
        "",
        "Private dataset repository of blobs, such as `acme/cubes`; needed by the storage `hub`.",
    )
    hub_endpoint: str = _setting(
        "", "URL of the Hub; empty: HF_ENDPOINT, else that of Hugging Face."
    )
    hub_token: str = _setting(
        "", "Token that may write to the repository; empty: HF_TOKEN, else that of `hf auth login`."
    )
    hub_reads: str = _setting(
        "redirect",
        "Whether clients fetch blobs from the Hub's CDN themselves, or through the registry.",
        choices=("redirect", "stream"),
    )
    hub_staging_dir: Path = _setting(  # noqa: RUF009 - it calls dataclasses.field
        Path(),
        "Folder of uploads on their way to the Hub, shared by all replicas; "
        "empty: staging in the data folder.",
    )
    token_key_file: Path = _setting(  # noqa: RUF009 - it calls dataclasses.field
        Path(),
        "File with the 32-byte key of handshake tokens, the same for every replica; "
        "empty: token.key in the data folder, made at the first start.",
    )
    log_key_file: Path = _setting(  # noqa: RUF009 - it calls dataclasses.field
        Path(),
        "File with the 32-byte key of the transparency log, the same for every replica; "
        "empty: log.key in the data folder, made at the first start.",
    )
    countersigning_key_file: Path = _setting(  # noqa: RUF009 - it calls dataclasses.field
        Path(),
        "File with the 32-byte key of countersignatures, the same for every replica; "
        "empty: countersigning.key in the data folder, made at the first start.",
    )
    log_origin: str = _setting(
        "", "Name of the transparency log, for ever; empty: the host of the URL at the first start."
    )
    log_witnesses: str = _setting(
        "", "Witnesses asked for cosignatures, each `URL KEY`, divided by commas."
    )
    oidc_issuers: str = _setting(
        "", "Issuers of identity tokens for trusted publishing, by URL, divided by commas."
    )
    workers: int = _setting(
        0, "Processes that answer requests; 0: one for each core, at most four.", low=0
    )
    anonymous_pull: bool = _setting(True, "Whether public cubes can be read without a login.")
    default_quota_bytes: int = _setting(
        100 << 30, "Storage of a new account, such as 100GiB; 0: unlimited."
    )
    organisations_per_account: int = _setting(
        10, "Organisations that one person can make, each with a storage of its own; 0: unlimited."
    )
    handshake_token_s: int = _setting(300, "Life of a token from the Docker handshake.", low=10)
    upload_expiry_s: int = _setting(86_400, "Life of an upload nobody continues.", low=1)
    gc_interval_s: int = _setting(3_600, "Time between garbage collections; 0: never.")
    gc_grace_s: int = _setting(86_400, "How long unreferenced content is kept.")
    job_poll_s: float = _setting(
        1.0,
        "Time between two looks for jobs that are due; "
        "0: this process does only those of its own requests.",
    )
    job_lease_s: int = _setting(
        30, "How long the job of a process that was killed waits for another.", low=1
    )
    requests_per_s: int = _setting(1000, "Requests a second from one account; 0: no limit.")
    anonymous_requests_per_s: int = _setting(
        200, "Requests a second from one address without a login; 0: no limit."
    )
    failed_logins_per_minute: int = _setting(
        60, "Wrong credentials a minute from one address before it has to wait; 0: no limit."
    )
    trusted_proxies: str = _setting(
        "", "Networks, divided by commas, whose X-Forwarded-For header is believed."
    )
    header_timeout_s: float = _setting(15.0, "Time to send the header of a request.", low=0.01)
    body_timeout_s: float = _setting(
        60.0,
        "Longest pause while the body of a request is sent, which comes at 1 KiB a second on the whole.",
        low=0.01,
    )
    shutdown_grace_s: int = _setting(30, "Time for running requests to end at shutdown.", low=1)
    drain_s: float = _setting(
        0.0, "Time between failing readiness and the end, at SIGTERM behind a load balancer."
    )
    log_format: str = _setting("json", "Form of the log on stderr.", choices=("json", "text"))
    log_level: str = _setting(
        "info", "Least important log entry shown.", choices=("debug", "info", "warning", "error")
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            _require_allowed(entry, getattr(self, entry.name))
        if self.port > 65535:
            raise _wrong("port", self.port, "a number from 0 to 65535")
        _require_url(self.external_url)
        self._require_s3()
        self._require_hub()
        self.proxy_networks()
        if not self.workers:
            object.__setattr__(self, "workers", min(_cores(), _WORKERS_AT_MOST))
        if self.data_dir == Path():
            object.__setattr__(self, "data_dir", _platform_data_dir())
        if self.hub_staging_dir == Path():
            object.__setattr__(self, "hub_staging_dir", self.data_dir / "staging")
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{self.data_dir / 'registry.db'}")
        if self.token_key_file == Path():
            object.__setattr__(self, "token_key_file", self.data_dir / "token.key")
        if self.log_key_file == Path():
            object.__setattr__(self, "log_key_file", self.data_dir / "log.key")
        if self.countersigning_key_file == Path():
            object.__setattr__(
                self, "countersigning_key_file", self.data_dir / "countersigning.key"
            )

    @property
    def url(self) -> str:
        """The URL clients use, without a trailing slash."""
        if self.external_url:
            return self.external_url.rstrip("/")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host.strip('[]') and host[0] != '[' else host}:{self.port}"

    @property
    def service(self) -> str:
        """The registry's name in the token handshake: host and port of its URL."""
        return urlsplit(self.url).netloc

    @property
    def log_name(self) -> str:
        """What a log that begins now is called: verifiers look for the host of an address."""
        return self.log_origin or urlsplit(self.url).hostname or self.service

    def _require_s3(self) -> None:
        for name in ("s3_endpoint_url", "s3_public_url"):
            if (url := getattr(self, name)) and not _BARE_URL.fullmatch(url):
                raise _wrong(name, url, "a URL such as https://s3.example.org, without a path")
        if not _S3_PREFIX.fullmatch(self.s3_prefix):
            raise _wrong("s3_prefix", self.s3_prefix, "words divided by slashes, such as registry/")
        if self.s3_url_expiry_s > _S3_EXPIRY_S:
            raise _wrong("s3_url_expiry_s", self.s3_url_expiry_s, f"at most {_S3_EXPIRY_S}")
        if self.s3_whole_bytes > _S3_OBJECT_BYTES:
            raise _wrong("s3_whole_bytes", self.s3_whole_bytes, f"at most {_S3_OBJECT_BYTES}")
        wanted = self.storage == "s3" or self.s3_bucket
        if wanted and not _S3_BUCKET.fullmatch(self.s3_bucket):
            raise _wrong("s3_bucket", self.s3_bucket, "the name of a bucket, such as our-cubes")

    def _require_hub(self) -> None:
        if self.hub_endpoint and not _BARE_URL.fullmatch(self.hub_endpoint):
            expected = "a URL such as https://hub.example.org, without a path"
            raise _wrong("hub_endpoint", self.hub_endpoint, expected)
        wanted = self.storage == "hub" or self.hub_repository
        if wanted and not _HUB_REPOSITORY.fullmatch(self.hub_repository):
            expected = "the name of a dataset repository, such as acme/cubes"
            raise _wrong("hub_repository", self.hub_repository, expected)

    def proxy_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """The networks of `trusted_proxies`."""
        words = [word.strip() for word in self.trusted_proxies.split(",") if word.strip()]
        try:
            return tuple(ipaddress.ip_network(word) for word in words)
        except ValueError:
            expected = "networks such as 10.0.0.0/8, divided by commas"
            raise _wrong("trusted_proxies", self.trusted_proxies, expected) from None


def load(
    environ: Mapping[str, str],
    *,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from a TOML file, the environment and command-line options, the last one winning.

    Raises:
        InvalidSettingError: the file is absent or not TOML, or a setting is unknown or wrong.
    """
    path = file or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    values: dict[str, Any] = {}
    for source in (_from_file(path) if path else {}, _from_environment(environ), options or {}):
        values.update(_parsed(source))
    return Settings(**values)


def to_environment(settings: Settings) -> dict[str, str]:
    """Variables from which `load` makes the same settings: how worker processes get them."""
    values = ((entry.name, getattr(settings, entry.name)) for entry in fields(settings))
    return {PREFIX + name.upper(): str(value) for name, value in values}


def parse_size(name: str, text: str) -> int:
    """Bytes of a size such as `100GiB`.

    Raises:
        InvalidSettingError: another form; `name` is named.
    """
    size = _SIZE.fullmatch(text)
    if size is None:
        raise _wrong(name, text, "a size such as 100GiB")
    return int(size[1]) * _UNITS[size[2]]


def size_text(size_bytes: int) -> str:
    """`size_bytes` as people read it: `1.5 GiB`."""
    unit, factor = max(
        ((unit, factor) for unit, factor in _UNITS.items() if factor <= max(size_bytes, 1)),
        key=lambda one: one[1],
    )
    return f"{size_bytes / factor:.1f} {unit}" if unit else f"{size_bytes} B"


def documented() -> Iterator[tuple[str, str, str, str]]:
    """Rows (name, variable, default, meaning) of every setting, for the guide."""
    for entry in fields(Settings):
        default = entry.default
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        choices = entry.metadata["choices"]
        doc = entry.metadata["doc"] + (f" One of: {', '.join(choices)}." if choices else "")
        shown = "" if default == Path() else shown
        yield entry.name, PREFIX + entry.name.upper(), shown, doc


def guide() -> str:
    """docs/guide/settings.md: every setting, from this file."""
    rows = "".join(
        f"| `{name}` | `{variable}` | {f'`{default}`' if default else ''} | {doc} |\n"
        for name, variable, default, doc in documented()
    )
    return _GUIDE_HEAD + rows


_GUIDE_HEAD: Final = f"""\
# Settings of the registry

The registry reads its settings from these places; a later one wins:

1. the defaults below;
2. a TOML file named by `--config` or `{CONFIG_VARIABLE}`, such as `port = 8080`;
3. variables whose names begin with `{PREFIX}`;
4. options of the command.

A setting that is unknown or has a wrong value stops the start and is named. Durations are seconds.
Sizes are bytes, or such as `100GiB` in quotes. `memcube-registry settings` prints every setting
with the value it has now. This table is generated from the code by `make docs`.

| setting | variable | default | meaning |
|---|---|---|---|
"""


def masked(settings: Settings) -> dict[str, str]:
    """Every setting as text that may be shown: passwords and tokens are hidden."""
    values = {entry.name: str(getattr(settings, entry.name)) for entry in fields(settings)}
    values["hub_token"] = "***" if settings.hub_token else ""
    values["database_url"] = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", values["database_url"])
    return values


def _from_file(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidSettingError(
            f"the settings file {path} cannot be read: {error}",
            hint="name a TOML file; docs/guide/settings.md lists what it may hold",
        ) from error


def _from_environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE
    }


def _parsed(source: Mapping[str, Any]) -> dict[str, Any]:
    known = {entry.name: entry for entry in fields(Settings)}
    for name in source:
        if name not in known:
            raise InvalidSettingError(
                f"there is no setting {name!r} ({PREFIX}{name.upper()})",
                hint="`memcube-registry settings` lists every setting",
            )
    return {name: _converted(known[name], value) for name, value in source.items()}


def _converted(entry: Field[Any], value: Any) -> Any:
    """`value` from TOML, or as text from the environment, in the setting's own type."""
    kind: type = Path if isinstance(entry.default, Path) else type(entry.default)
    if kind is bool:
        return _boolean(entry.name, value)
    if isinstance(value, bool):
        raise _wrong(entry.name, value, f"a value of type {kind.__name__}")
    if kind is Path and isinstance(value, str | Path):
        return Path(value).expanduser().absolute() if str(value) else Path()
    if kind is str and isinstance(value, str):
        return value
    if kind is float and isinstance(value, int | float):
        return float(value)
    if kind is int and isinstance(value, int):
        return value
    return _number(entry.name, kind, value)


def _boolean(name: str, value: Any) -> bool:
    text = str(value).lower()
    if isinstance(value, bool | str) and text in _TRUE + _FALSE:
        return text in _TRUE
    raise _wrong(name, value, "true or false")


def _number(name: str, kind: type, value: Any) -> int | float:
    if not isinstance(value, str) or kind not in (int, float):
        raise _wrong(name, value, f"a value of type {kind.__name__}")
    if name.endswith("_bytes"):
        return parse_size(name, value)
    try:
        return int(value) if kind is int else float(value)
    except ValueError:
        raise _wrong(name, value, "a number") from None


def _require_allowed(entry: Field[Any], value: Any) -> None:
    choices, low = entry.metadata["choices"], entry.metadata["low"]
    if choices and value not in choices:
        raise _wrong(entry.name, value, f"one of {', '.join(choices)}")
    if isinstance(value, int | float) and not low <= value < 1 << 62:
        raise _wrong(entry.name, value, f"at least {low}")


def _require_url(url: str) -> None:
    if not url:
        return
    expected = "a URL such as https://memcube.example.org, without path, query and user"
    try:
        parts = urlsplit(url)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        raise _wrong("external_url", url, expected) from None
    extras = (parts.path.strip("/"), parts.query, parts.fragment, parts.username)
    odd = re.search(r'[\s"\\<>]', url)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(extras) or odd:
        raise _wrong("external_url", url, expected)
    if not port_is_right:
        raise _wrong("external_url", url, expected)


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _platform_data_dir() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("memcube", appauthor=False)) / "registry"


def _wrong(name: str, value: Any, expected: str) -> InvalidSettingError:
    return InvalidSettingError(
        f"setting {name} ({PREFIX}{name.upper()}) is {str(value)[:100]!r}, expected {expected}",
        hint="`memcube-registry settings` explains every setting",
    )
