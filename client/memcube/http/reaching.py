"""What it means that no answer came: in words for people, and whether another try is of use."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from memcube_protocol.errors import NetworkError
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ProxyError

from memcube.http.failures import harmless
from memcube.settings import is_loopback

_TRIES: Final = 2


def unanswered(what: str, error: HTTPError, url: str = "") -> NetworkError:
    """Our error for `error`, which ended the request `what`, sent to `url`."""
    parts = urlsplit(url)
    if isinstance(error, NameResolutionError):
        return NetworkError(
            f"{parts.hostname} cannot be found",
            hint="check the name of the host and the connection",
        )
    if _is_refused(error):
        start = "start a registry with `memcube serve`, or set MEMCUBE_ENDPOINT (for hf://, HF_ENDPOINT)"
        here = is_loopback(parts.netloc)
        hint = start if here else "check the address, or ask the registry's operator"
        return NetworkError(f"nothing listens at {parts.scheme}://{parts.netloc}", hint=hint)
    return NetworkError(
        f"{what}: {harmless(str(error))}", hint="check the address and the connection, then retry"
    )


def may_pass(error: HTTPError, url: str, failures: int) -> bool:
    """Whether another try may end better after `failures` earlier ones.

    Where nothing listens on this machine, nothing will in a moment. A host that refuses or cannot be
    found is tried twice, which takes half a second.
    """
    if not (_is_refused(error) or isinstance(error, NameResolutionError)):
        return True
    return not is_loopback(urlsplit(url).netloc) and failures + 1 < _TRIES


def _is_refused(error: HTTPError) -> bool:
    """Whether the host itself, and no proxy before it, refused the connection."""
    refused = isinstance(error.__cause__, ConnectionRefusedError)
    return refused and isinstance(error, NewConnectionError) and not isinstance(error, ProxyError)
