"""What the Hub refuses or fails to do, as memcube's errors; and when to try again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import urllib3
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from memcube_protocol.errors import MemcubeError, NotFoundError, StorageError, UnavailableError

Result = TypeVar("Result")

PAUSES_S: Final = (0.5, 2.0, 5.0)
"""Before each further attempt, unless the Hub says when."""
PATIENCE_S: Final = 20
"""A request does not wait longer than this at once, whatever `Retry-After` says."""
_LATER: Final = frozenset({408, 409, 412, 425, 429})
"""Statuses of what may succeed later: 409 and 412 are those of two commits at once."""
_TRANSPORT: Final = (*HfHubHTTPError.__bases__, urllib3.exceptions.HTTPError)
"""What the library's HTTP client raises, whichever that is in its version; and ours."""
_HINTS: Final = {
    401: "check the registry's token for the Hub (setting hub_token, or HF_TOKEN)",
    403: "the registry's token for the Hub needs the right to write to its repository",
    413: "the Hub takes no object as large as this one",
}


def patiently(work: Callable[[], Result], what: str) -> Result:
    """What `work` returns, tried again a few times where the Hub is slow, busy or away.

    Raises:
        NotFoundError: there is no such object.
        UnavailableError: the Hub did not answer, or asks to come back later, after all attempts.
        StorageError: it refuses.
    """
    for pause_s in (*PAUSES_S, None):
        try:
            return work()
        except MemcubeError:
            raise
        except Exception as error:
            failure, wanted_s = failure_of(what, error), retry_after_s(error)
            is_over = pause_s is None or (wanted_s or 0) > PATIENCE_S
            if is_over or not isinstance(failure, UnavailableError):
                raise failure from error
            time.sleep(max(pause_s or 0, wanted_s or 0))
    raise AssertionError("the last attempt returns or raises")


def failure_of(what: str, error: BaseException) -> MemcubeError:
    """The error of memcube's that `error` of the library is."""
    for cause in _causes(error):
        if isinstance(cause, EntryNotFoundError):
            return NotFoundError(f"the store holds no {what}", hint="push the blob again")
        if isinstance(cause, RepositoryNotFoundError | RevisionNotFoundError):
            return StorageError(
                f"the Hub shows no repository for {what}",
                hint="make the dataset repository of the setting hub_repository, private, and let the "
                "registry's token write to it",
            )
        if isinstance(cause, HfHubHTTPError):
            return _refusal(what, status_of(cause))
        if isinstance(cause, (*_TRANSPORT, ConnectionError, TimeoutError)):
            return UnavailableError(
                f"the Hub did not serve {what}: {type(cause).__name__}",
                hint="try again in a moment; if it lasts, look at the Hub's status page",
            )
    if isinstance(error, HFValidationError):
        return StorageError(str(error), hint="check the setting hub_repository")
    return StorageError(
        f"the Hub did not take {what}: {str(error)[:200]}", hint="look at the server's log"
    )


def status_of(error: HfHubHTTPError) -> int:
    """The HTTP status that the Hub answered; 0 where it did not."""
    response = getattr(error, "response", None)
    return int(response.status_code) if response is not None else 0


def retry_after_s(error: BaseException) -> float | None:
    """The seconds after which the Hub wants to be asked again, if it said so."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        text = str(response.headers.get("retry-after", "")) if response is not None else ""
        if text.isascii() and text.isdigit() and len(text) <= 9:
            return float(text)
    return None


def _refusal(what: str, status: int) -> MemcubeError:
    if status in _LATER or status >= 500 or not status:
        return UnavailableError(
            f"the Hub is not able to serve {what} now ({status or 'no answer'})",
            hint="try again in a moment; if it lasts, look at the Hub's status page and rate limits",
        )
    hint = _HINTS.get(status, "look at the server's log")
    return StorageError(f"the Hub refuses {what}: {status}", hint=hint)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it was raised from: the library wraps the errors of its threads."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
