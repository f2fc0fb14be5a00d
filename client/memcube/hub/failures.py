"""What went wrong on the Hub, as one of our errors, with what to do about it."""

from __future__ import annotations

import re
from typing import Final

from memcube_protocol.errors import (
    ConflictError,
    ForbiddenError,
    LimitExceededError,
    MemcubeError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

from memcube.http.failures import harmless
from memcube.hub.site import Site

_QUERY: Final = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]*")


def failure_of(error: BaseException, site: Site, name: str) -> MemcubeError | None:
    """Our error for one that the library raised over the repository `name`; None: it is none that it tells on purpose."""
    from huggingface_hub.errors import HfHubHTTPError

    page = site.page(name)
    shown = _QUERY.sub(r"\1", str(error))  # of a signed address
    words = harmless(shown.replace(site.token or "\0", "[the token]"))
    if isinstance(error, RuntimeError) and error.__cause__:
        return failure_of(error.__cause__, site, name)
    if isinstance(error, HfHubHTTPError):
        return _by_status(status_of(error), page, words)
    if isinstance(error, ValueError) and "LFS batch API" in words:
        return UnsupportedError(
            f"{page} takes no uploads by LFS: {words}",
            hint="memcube does not speak Xet: push to a registry, or upload the folder with hf upload",
        )
    if isinstance(error, ValueError):
        return UnsupportedError(f"{page} refuses this cube: {words}", hint="see its message")
    if isinstance(error, OSError) or type(error).__module__.startswith("httpx"):
        return NetworkError(f"{page}: {words}", hint="try again: what was sent is kept")
    return None


def overtaken(place: str) -> ConflictError:
    """The error of a publication behind whose back another one came."""
    return ConflictError(
        f"{place} was changed by somebody else meanwhile",
        hint="nothing of yours was published: run it again",
    )


def status_of(error: BaseException) -> int:
    """The status with which the Hub answered; 0: it did not answer."""
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _by_status(status: int, page: str, words: str) -> MemcubeError:
    said = f"{page}: {words}"
    if status == 401:
        return UnauthenticatedError(said, hint="set HF_TOKEN to a token that may write there")
    if status == 403:
        return ForbiddenError(
            said, hint="use a token with the role write, of a member of its owner"
        )
    if status == 404:
        return NotFoundError(said, hint="check the name")
    if status in (409, 412):
        return overtaken(page)
    if status == 413:
        return LimitExceededError(said, hint="see the limits of the Hub")
    if status == 429:
        return RateLimitedError(said, hint="wait a while, then try again", retry_after_s=60)
    if status >= 500:
        return UnavailableError(said, hint="try again later: what was sent is kept")
    return NetworkError(said, hint="see its message")
