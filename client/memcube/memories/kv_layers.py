"""Layers of a cache that start with a memory: waited for when first looked at, with room to grow.

transformers' own layers copy everything that they hold for each new token. These copy a memory once, into a
buffer with room behind it, and write new tokens there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from memcube_protocol.tensors import Rejection, rejected
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ROOM_TOKENS: Final = 256
"""Room behind a memory for new tokens; a full buffer grows by an eighth, and by no fewer than these."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerView:
    """Keys and values of one layer as the cache wants them: [1, heads, tokens, width]."""

    keys: Any
    values: Any


Arrival = Callable[[], LayerView]
"""Waits for a layer of a memory; what it raises ends the question."""


class _Arriving:
    """Keys and values that are fetched when they are first looked at."""

    _arrival: Arrival | None = None
    _keys: Any = None
    _values: Any = None

    @property
    def keys(self) -> Any:
        """The keys, [batch, heads, tokens, width]."""
        self._arrive()
        return self._keys

    @keys.setter
    def keys(self, value: Any) -> None:
        self._arrive()
        self._keys = value

    @property
    def values(self) -> Any:
        """The values, [batch, heads, tokens, width]."""
        self._arrive()
        return self._values

    @values.setter
    def values(self, value: Any) -> None:
        self._arrive()
        self._values = value

    def reset(self) -> None:
        """Forget everything. The memory itself is dropped, not overwritten: others share it."""
        self._arrival = self._keys = self._values = None
        self.is_initialized = False
        super().reset()  # type: ignore[misc]

    def _arrive(self) -> None:
        if self._arrival is not None:
            view = self._arrival()
            self._arrival = None
            self._keys, self._values = view.keys, view.values


class MemoryLayer(_Arriving, DynamicLayer):
    """A layer of full attention that starts with `tokens` tokens of a memory."""

    def __init__(self, arrival: Arrival, like: Any) -> None:
        super().__init__()
        self.lazy_initialization(like, like)
        self._arrival = arrival
        self._key_room: Any = None
        self._value_room: Any = None

    def update(
        self, key_states: Any, value_states: Any, *_args: Any, **_more: Any
    ) -> tuple[Any, Any]:
        """Take new tokens; all keys and values, as views of the buffers that hold them."""
        if not self.is_initialized:  # after a reset
            self.lazy_initialization(key_states, value_states)
        self.keys, self._key_room = _appended(self.keys, key_states, self._key_room)
        self.values, self._value_room = _appended(self.values, value_states, self._value_room)
        return self.keys, self.values


class MemoryWindowLayer(_Arriving, DynamicSlidingWindowLayer):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A layer of sliding-window attention behind `tokens` tokens, of which it sees the last ones."""

    def __init__(self, arrival: Arrival, like: Any, window: int, tokens: int) -> None:
        super().__init__(window)
        self.lazy_initialization(like, like)
        start = max(0, tokens - window + 1)

        def visible() -> LayerView:
            view = arrival()
            return LayerView(view.keys[:, :, start:], view.values[:, :, start:])

        self.cumulative_length = tokens
        self._arrival = visible

    def update(
        self, key_states: Any, value_states: Any, *args: Any, **more: Any
    ) -> tuple[Any, Any]:
        """Take new tokens, as transformers' own layer does.

        Raises:
            InvalidTensorsError: the memory has other heads or widths than the model.
        """
        if self.is_initialized:
            _require_like(self.keys, key_states)
            _require_like(self.values, value_states)
        return super().update(key_states, value_states, *args, **more)


def memory_layer(like: Any, arrival: Arrival, sample: Any, tokens: int) -> Any:
    """What takes the place of the empty cache layer `like`; `sample` has element type and device."""
    if isinstance(like, DynamicSlidingWindowLayer):
        return MemoryWindowLayer(arrival, sample, like.sliding_window, tokens)
    return MemoryLayer(arrival, sample)


def _appended(held: Any, new: Any, room: Any) -> tuple[Any, Any]:
    """`held` followed by `new`, and the buffer that they lie in: `room`, where it holds `held` and more.

    Raises:
        InvalidTensorsError: they differ in heads or width.
    """
    _require_like(held, new)
    if new.requires_grad or held.dim() != new.dim():
        return torch.cat([held, new], dim=-2), None
    before, after = held.shape[-2], held.shape[-2] + new.shape[-2]
    if not _begins(room, held) or after > room.shape[-2]:
        capacity = after + max(ROOM_TOKENS, after // 8)
        room = new.new_empty((*new.shape[:-2], capacity, new.shape[-1]))
        room[:, :, :before] = held
    room[:, :, before:after] = new
    return room[:, :, :after], room


def _require_like(held: Any, new: Any) -> None:
    """Refuse to put `new` behind `held` where torch would repeat one to the shape of the other.

    Raises:
        InvalidTensorsError: they differ in heads or width: the memory is not one of this model.
    """
    if held.dim() == new.dim() and (held.shape[1], held.shape[-1]) != (new.shape[1], new.shape[-1]):
        raise rejected(
            Rejection.UNEXPECTED,
            f"{held.shape[1]} heads of width {held.shape[-1]} where the model has {new.shape[1]} of "
            f"{new.shape[-1]}",
        )


def _begins(room: Any, held: Any) -> bool:
    """Whether `held` is the beginning of `room`: others may have cut, repeated or replaced it."""
    return (
        room is not None
        and held.data_ptr() == room.data_ptr()
        and held.stride() == room.stride()
        and held.shape[:2] == room.shape[:2]
    )
