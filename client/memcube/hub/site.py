"""Where the Hub answers, who we are there, and the addresses of a repository.

`HF_ENDPOINT` names a mirror or a Hub of one's own, as for every client of the Hub; the token is that of
`HF_TOKEN`, else the one that `hf auth login` kept. It goes to that endpoint and to nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from memcube_protocol.errors import InvalidSettingError
from memcube_protocol.reference import DATASETS, HUB_HOST, HUB_SCHEME
from memcube_protocol.values import frozen

from memcube.settings import Endpoint, Settings
from memcube.store.files import read_file

MODEL: Final = "model"
DATASET: Final = "dataset"
_TOKEN_BYTES: Final = 4096


@frozen
class Site:
    """One Hub: its endpoint and this user's token, None where there is none.

    Raises:
        InvalidSettingError: plain http to a remote host that is not listed as insecure, a path behind
            the host, or a token that is no word of printable ASCII.
    """

    endpoint: Endpoint
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise InvalidSettingError(
                "the token of the Hub holds a character that no token has",
                hint="set HF_TOKEN again, or run: hf auth login",
            )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The Hub that this user's environment names.

        Raises:
            StorageError: the file with the token cannot be read.
        """
        environ = settings.hub
        text = environ.get("HF_ENDPOINT") or f"https://{HUB_HOST}"
        scheme, _, host = text.rstrip("/").partition("://")
        try:
            endpoint = Endpoint(scheme, host.lower())
        except InvalidSettingError:
            raise InvalidSettingError(
                f"HF_ENDPOINT is refused: {text[:100]!r} is not the address of a Hub",
                hint="write https://host or https://host:port, without a path",
            ) from None
        if scheme == "http" and not settings.allows_plain_http(endpoint.host):
            raise InvalidSettingError(
                f"HF_ENDPOINT is refused: {endpoint.url} would send everything unencrypted",
                hint=f"use https, or list {endpoint.host!r} in MEMCUBE_INSECURE",
            )
        return cls(endpoint, _token(environ))

    @property
    def authorization(self) -> str | None:
        """The header that goes to the endpoint."""
        return f"Bearer {self.token}" if self.token else None

    def api(self, name: str) -> str:
        """Address of the API about the repository `name`."""
        kind, own = repository_of(name)
        return f"{self.endpoint.url}/api/{kind}s/{own}"

    def file(self, name: str, commit: str, path: str) -> str:
        """Address of the file `path` at `commit`."""
        return f"{self.page(name)}/resolve/{commit}/{quote(path)}"

    def page(self, name: str) -> str:
        """Address of the page that people see."""
        kind, own = repository_of(name)
        return f"{self.endpoint.url}/{'' if kind == MODEL else f'{kind}s/'}{own}"


def repository_of(name: str) -> tuple[str, str]:
    """What kind of repository a reference's `name` means, and what the Hub calls it."""
    account, _, rest = name.partition("/")
    middle, slash, own = rest.partition("/")
    if slash and middle == DATASETS:
        return DATASET, f"{account}/{own}"
    return MODEL, name


def written(name: str) -> str:
    """How people write the repository of a reference's `name`: with `hf://` before what the Hub calls it."""
    kind, own = repository_of(name)
    return f"{HUB_SCHEME}{'' if kind == MODEL else f'{kind}s/'}{own}"


def _token(environ: Mapping[str, str]) -> str | None:
    """The token in the environment, else the one that `hf auth login` keeps in a file."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if text := environ.get(variable, "").strip():
            return text
    home = environ.get("HF_HOME") or str(
        Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    )
    path = Path(environ.get("HF_TOKEN_PATH") or Path(home) / "token").expanduser()
    content = read_file(path, _TOKEN_BYTES)
    return (content or b"").decode("ascii", "replace").strip() or None
