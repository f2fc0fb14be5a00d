"""How long the registry waits for the Hub: bounded here, whatever the Hub asks for.

The library alone waits without end: its client has no time limit, and its retries sleep as long as a
`Retry-After` says. So its client gets limits, and an answer that asks to come back later ends the
library's attempt at once; the next one is made here, or the request is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory
from memcube_protocol.errors import MemcubeError, UnavailableError

from memcube_registry.storage.hub.failures import BusyError, failure_of

Result = TypeVar("Result")

PAUSES_S: Final = (0.5, 2.0, 5.0)
"""Before each further attempt, unless the Hub says when."""
PATIENCE_S: Final = 15.0
"""What wants to be asked again later than this is given up."""
TIMEOUT_S: Final = 60.0
"""For a connection, and for each pause of the Hub within an answer."""
_FRUITLESS_S: Final = 30.0
"""An attempt begins no further request when the last answer is so long ago."""
_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_attempt: Final = threading.local()


def patiently(work: Callable[[], Result], what: str) -> Result:
    """What `work` returns, tried again a few times where the Hub is slow, busy or away.

    Raises:
        NotFoundError: there is no such object.
        UnavailableError: the Hub did not answer, or asks to come back later, after all attempts.
        StorageError: it refuses.
    """
    _limit_library()
    for pause_s in (*PAUSES_S, None):
        _attempt.answered_at_s = time.monotonic()
        try:
            return work()
        except MemcubeError:
            raise
        except Exception as error:
            failure, wanted_s = failure_of(what, error)
            if (
                pause_s is None
                or wanted_s > PATIENCE_S
                or not isinstance(failure, UnavailableError)
            ):
                raise failure from error
        finally:
            _attempt.answered_at_s = None
        time.sleep(max(pause_s, wanted_s))
    raise AssertionError("the last attempt returns or raises")


@cache
def _limit_library() -> None:
    set_client_factory(_client)


def _client() -> Any:
    client: Any = default_client_factory()
    hooks = client.event_hooks
    client.timeout = TIMEOUT_S
    client.event_hooks = {
        "request": [*hooks["request"], _before],
        "response": [*hooks["response"], _after],
    }
    return client


def _before(_request: Any) -> None:
    """Ends the library's own retries of what goes unanswered."""
    answered_at_s: float | None = getattr(_attempt, "answered_at_s", None)
    if answered_at_s is not None and time.monotonic() - answered_at_s > _FRUITLESS_S:
        raise BusyError(0)


def _after(response: Any) -> None:
    """Notes an answer, or ends the library's own retries of one that asks to come back later."""
    if getattr(_attempt, "answered_at_s", None) is None:
        return
    if response.status_code in _LATER:
        text = str(response.headers.get("retry-after", ""))
        is_number = text.isascii() and text.isdigit() and len(text) <= 9
        raise BusyError(response.status_code, float(text) if is_number else 0.0)
    _attempt.answered_at_s = time.monotonic()
