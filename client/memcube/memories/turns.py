"""Who may use a model and who may change it, whichever thread asks.

Mounts and unmounts on one model take turns. Each notes the model's modules before it changes them, and
puts back what it noted; two at once would note what the other has half done, and leave it so. What
changes modules waits for the questions that are under way, and new ones wait for it: an answer begun
with an adapter would go on without it, or end in an error of torch.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from memcube_protocol.errors import ConflictError

from memcube.memories.model_identity import base_of

Item = TypeVar("Item")


def unmounted() -> ConflictError:
    """The error of a memory that is asked after its end."""
    return ConflictError("this memory was unmounted", hint="mount it again")


class Shared:
    """Something that many threads use at once, and that one changes while nobody uses it."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._users: Counter[int] = Counter()
        self._changer: int | None = None
        self._changes = 0

    @contextmanager
    def using(self) -> Iterator[None]:
        """Nobody changes it meanwhile but this thread; whoever uses it already uses it again without waiting."""
        me = threading.get_ident()
        with self._state:
            while not self._users[me] and self._changer not in (None, me):
                self._state.wait()
            self._users[me] += 1
        try:
            yield
        finally:
            with self._state:
                self._users[me] -= 1
                if not self._users[me]:
                    del self._users[me]
                self._state.notify_all()

    def each(self, items: Iterator[Item], require: Callable[[], object]) -> Iterator[Item]:
        """`items`, each taken while this is in use: it may change between two of them.

        Raises:
            …: as `require`, which is called before each of them is taken.
        """
        while True:
            with self.using():
                require()
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def require_unused_here(self) -> None:
        """Refuse a change to a thread that would wait for itself.

        Raises:
            ConflictError: it uses what would change.
        """
        me = threading.get_ident()
        if self._users[me] and self._changer != me:
            raise ConflictError(
                "a question is being answered in this very thread with what would change",
                hint="unmount, mount or switch once the answer is there",
            )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else uses or changes it meanwhile.

        Raises:
            ConflictError: this very thread uses it.
        """
        me = threading.get_ident()
        self.require_unused_here()
        with self._state:
            while self._changer not in (None, me):
                self._state.wait()
            self._changer = me
            self._changes += 1
        try:
            with self._state:
                while self._users.total() > self._users[me]:
                    self._state.wait()
            yield
        finally:
            with self._state:
                self._changes -= 1
                if not self._changes:
                    self._changer = None
                self._state.notify_all()


class _Model:
    """What is known of one model: whose turn it is, and who uses it."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self.shared = Shared()


_giving: Final = threading.Lock()
_models: Final[weakref.WeakKeyDictionary[Any, _Model]] = weakref.WeakKeyDictionary()


def _known(model: Any) -> _Model:
    """What is known of `model`; of None, which is no model, nothing that anybody shares."""
    if model is None:
        return _Model()
    base = base_of(model)
    with _giving:
        return _models.setdefault(base, _Model())


@contextmanager
def turn(model: Any) -> Iterator[None]:
    """Nobody else mounts on `model` or unmounts meanwhile; the same thread may, within.

    Raises:
        ConflictError: this very thread is asking it.
    """
    known = _known(model)
    known.shared.require_unused_here()
    with known.turn:
        yield


@contextmanager
def asking(model: Any) -> Iterator[None]:
    """A question to `model`: nobody changes its modules meanwhile."""
    with _known(model).shared.using():
        yield


@contextmanager
def changing(model: Any) -> Iterator[None]:
    """A change to the modules of `model`: nobody asks it meanwhile.

    Raises:
        ConflictError: this very thread is asking it.
    """
    with _known(model).shared.changing():
        yield
