"""Layers of a cache that start with a memory: waited for when first looked at, with room to grow.

transformers' own layers copy everything that they hold for each new token. These copy a memory once, into a
buffer with room behind it, and write new tokens there. Where attention takes a memory and what is behind it in two
parts, the copy waits until tokens come one by one: the first of them is there before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from memcube_protocol.tensors import Rejection, rejected
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from memcube.memories.activation.attention import TwoParts

ROOM_TOKENS: Final = 256
"""Room behind a memory for new tokens; a full buffer grows by an eighth, and by no fewer than these."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerView:
    """Keys and values of one layer as the cache wants them: [1, heads, tokens, width].

    `require_unchanged` refuses a file that was changed since it was checked, where they are views of one.
    """

    keys: Any
    values: Any
    require_unchanged: Callable[[], None] | None = None


Arrival = Callable[[], LayerView]
"""Waits for a layer of a memory; what it raises ends the question."""


class _Arriving:
    """Keys and values that are fetched when they are first looked at."""

    _arrival: Arrival | None = None
    _keys: Any = None
    _values: Any = None
    _require_unchanged: Callable[[], None] | None = None

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
            self._require_unchanged = view.require_unchanged


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


class LyingMemoryLayer(MemoryLayer):
    """A layer of full attention that leaves the memory where it lies: `TwoParts`, until someone wants one piece.

    A file holds it token by token. Who asks for one token after the other reads it head by head, which takes three
    quarters of the time, so it is laid out like that for the first token that comes alone.
    """

    _behind: MemoryLayer | None = None

    def update(
        self, key_states: Any, value_states: Any, *args: Any, **more: Any
    ) -> tuple[Any, Any]:
        """Take new tokens; all keys and values.

        Raises:
            InvalidTensorsError: the memory has other heads or widths than the model.
            DigestMismatchError: its file was changed since.
        """
        super()._arrive()
        if not self._may_lie(key_states):
            return super().update(key_states, value_states, *args, **more)
        if self._require_unchanged is not None:
            self._require_unchanged()
        if key_states.shape[-2] == 1 and not self._keys.is_contiguous():
            self._keys, self._values = self._keys.contiguous(), self._values.contiguous()
            self._require_unchanged = None
        _require_like(self._keys, key_states)
        _require_like(self._values, value_states)
        if self._behind is None:
            none = LayerView(key_states[:, :, :0], value_states[:, :, :0])
            self._behind = MemoryLayer(lambda: none, key_states)
        keys, values = self._behind.update(key_states, value_states)
        return TwoParts(self._keys, keys), TwoParts(self._values, values)

    def get_seq_length(self) -> int:
        """How many tokens it holds."""
        super()._arrive()
        behind = self._behind.get_seq_length() if self._behind else 0
        return behind + (self._keys.shape[-2] if self.is_initialized and self._keys.numel() else 0)

    def reset(self) -> None:
        """Forget everything."""
        self._behind = None
        super().reset()

    def _may_lie(self, new: Any) -> bool:
        held = self._keys
        if held is None or held.dim() != new.dim() or held.dtype != new.dtype:
            return False
        return not (new.requires_grad or torch.compiler.is_compiling())

    def _arrive(self) -> None:
        """Put all in one piece: someone looks at it."""
        super()._arrive()
        behind, self._behind = self._behind, None
        if behind is not None:
            self._keys = TwoParts(self._keys, behind.keys).joined()
            self._values = TwoParts(self._values, behind.values).joined()


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
            if self.keys.shape[0] == 1 < key_states.shape[0]:  # several beams behind one memory
                self.keys = self.keys.expand(key_states.shape[0], -1, -1, -1)
                self.values = self.values.expand(key_states.shape[0], -1, -1, -1)
        return super().update(key_states, value_states, *args, **more)


def memory_layer(
    like: Any, arrival: Arrival, sample: Any, tokens: int, *, lying: bool = False
) -> Any:
    """What takes the place of the empty cache layer `like`; `sample` has element type and device."""
    if isinstance(like, DynamicSlidingWindowLayer):
        return MemoryWindowLayer(arrival, sample, like.sliding_window, tokens)
    return (LyingMemoryLayer if lying else MemoryLayer)(arrival, sample)


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
