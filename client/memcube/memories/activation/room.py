"""Memory that is full, of the device or of the host, told by an error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from memcube_protocol.errors import LimitExceededError

_WORDS: Final = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
"""What torch says where the host has no memory: it has no class for that."""


@contextmanager
def room_errors() -> Iterator[None]:
    """What is done inside fails with an error of ours where memory is full.

    Raises:
        LimitExceededError: it is.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_full(error):
            raise
        error.__traceback__ = None  # it holds the tensors that there was no room beside
        raise no_room() from None


def is_full(error: BaseException) -> bool:
    """Whether `error` says that memory of the device or of the host is full."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def no_room() -> LimitExceededError:
    """The error where keys and values find no room."""
    return LimitExceededError(
        "there is no room in the memory of the device or the host for these keys and values",
        hint="mount a shorter prefix or ask for less, or free memory of the device",
    )
