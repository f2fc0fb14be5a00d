"""Mounts and unmounts on one model take turns, whichever thread asks.

Each notes the model's modules before it changes them, and puts back what it noted. Two at once would
note what the other has half done, and leave it so.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from memcube.memories.model_identity import base_of

_giving: Final = threading.Lock()
_turns: Final[weakref.WeakKeyDictionary[Any, Any]] = weakref.WeakKeyDictionary()


@contextmanager
def turn(model: Any) -> Iterator[None]:
    """Nobody else mounts on `model` or unmounts meanwhile; the same thread may, within. None is no model."""
    if model is None:
        yield
        return
    base = base_of(model)
    with _giving:
        lock = _turns.setdefault(base, threading.RLock())
    with lock:
        yield
