"""What the Hub refuses or fails to do, as memcube's errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from memcube_protocol.errors import MemcubeError, NotFoundError, StorageError, UnavailableError

_CONFLICTS: Final = frozenset({409, 412})
"""Two commits at once: the later one may succeed when it is tried again."""
_TRANSPORT: Final = (*HfHubHTTPError.__bases__, ConnectionError, TimeoutError)
"""What the library's HTTP client raises, whichever client it is in its version."""
_HINTS: Final = {
    401: "check the registry's token for the Hub (setting hub_token, or HF_TOKEN)",
    403: "the registry's token for the Hub needs the right to write to its repository",
    413: "the Hub takes no object as large as this one",
}


class BusyError(Exception):
    """The Hub asks to come back after `retry_after_s` seconds, or did not answer (`status` 0)."""

    def __init__(self, status: int, retry_after_s: float = 0.0) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after_s = retry_after_s


def failure_of(what: str, error: BaseException) -> tuple[MemcubeError, float]:
    """The error of memcube's that `error` of the library is, and the seconds that the Hub wants to have."""
    for cause in _causes(error):
        if isinstance(cause, BusyError):
            return _away(what, str(cause.status or "no answer")), cause.retry_after_s
        if isinstance(cause, EntryNotFoundError):
            return NotFoundError(f"the store holds no {what}", hint="push the blob again"), 0
        if isinstance(cause, RepositoryNotFoundError | RevisionNotFoundError):
            return _no_repository(what), 0
        if isinstance(cause, HfHubHTTPError):
            return _refusal(what, cause), 0
        if isinstance(cause, _TRANSPORT):
            return _away(what, type(cause).__name__), 0
    hint = "look at the server's log"
    if isinstance(error, HFValidationError):
        hint = "check the setting hub_repository"
    return StorageError(f"the Hub did not take {what}: {str(error)[:200]}", hint=hint), 0


def _refusal(what: str, error: HfHubHTTPError) -> MemcubeError:
    response = getattr(error, "response", None)
    status = int(response.status_code) if response is not None else 0
    if status in _CONFLICTS or status >= 500 or not status:
        return _away(what, str(status or "no answer"))
    hint = _HINTS.get(status, "look at the server's log")
    return StorageError(f"the Hub refuses {what}: {status}", hint=hint)


def _away(what: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"the Hub is not able to serve {what} now ({why})",
        hint="try again in a moment; if it lasts, look at the Hub's status page and rate limits",
    )


def _no_repository(what: str) -> StorageError:
    return StorageError(
        f"the Hub shows no repository for {what}",
        hint="make the dataset repository of the setting hub_repository, private, and let the registry's "
        "token write to it",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it was raised from: the library wraps the errors of its threads."""
    while error is not None:
        yield error
        error = error.__cause__
