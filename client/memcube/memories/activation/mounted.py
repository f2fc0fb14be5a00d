"""What every prompt starts with: token ids, and fresh caches that hold their keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from memcube_protocol.errors import ConflictError

from memcube.closing import Closing
from memcube.memories.activation.key import active_adapter_scales
from memcube.memories.turns import unmounted

if TYPE_CHECKING:
    from memcube.memories.activation.layers import LayerView


LYING_TOKENS: Final = 512
"""A memory shorter than that is copied for each question on a CPU: it takes no longer, and rounds as one pass."""


class Exactness(StrEnum):
    """How close answers behind a prefix are to those behind its tokens computed anew."""

    EXACT = "exact"
    EIGHT_BITS = "lossy: stored in eight bits"
    APPROXIMATE = "approximate: its memories were computed apart and do not see each other"


class Layers(Protocol):
    """The layers of a KV memory on the model's device."""

    def view(self, position: int) -> LayerView:
        """Layer `position`, ready for what is computed from now on."""
        ...

    def close(self) -> None:
        """Release them."""
        ...


class MappedLayers:
    """Layers that are there: views of a mapped file, decoded from it, or computed.

    `require_unchanged` refuses a file that was changed since it was checked, where they are views of one.
    """

    def __init__(
        self, views: Sequence[LayerView], require_unchanged: Callable[[], None] | None = None
    ) -> None:
        self._views = tuple(views)
        self._require_unchanged = require_unchanged

    def view(self, position: int) -> LayerView:
        """See `Layers.view`.

        Raises:
            ConflictError: the memory was unmounted.
            DigestMismatchError: the file was changed since.
        """
        if not self._views:
            raise unmounted()
        if self._require_unchanged is None:
            return self._views[position]
        self._require_unchanged()
        return replace(self._views[position], require_unchanged=self._require_unchanged)

    def close(self) -> None:
        """See `Layers.close`."""
        self._views, self._require_unchanged = (), None


class Prefix(Closing):
    """The token ids that every prompt of `model` starts with, and fresh caches behind them.

    A context manager that lets go of the tensors at its end.
    """

    def __init__(
        self, model: Any, token_ids: Sequence[int], layers: Layers, exactness: Exactness
    ) -> None:
        self.token_ids = tuple(token_ids)
        self.exactness = exactness
        self.model = model
        self.adapters = active_adapter_scales(model)
        self._layers: Layers | None = layers

    @property
    def layers(self) -> Layers:
        """The layers in use.

        Raises:
            ConflictError: the memory was unmounted, or the active adapters have changed since.
        """
        if self._layers is None:
            raise unmounted()
        if active_adapter_scales(self.model) != self.adapters:
            raise ConflictError(
                "other adapters are active than when this memory was mounted, or at other scales",
                hint="switch back to those, or unmount KV memories before the LoRA memory that they rest on",
            )
        return self._layers

    def new_cache(self) -> Any:
        """A cache for one question: it shares the tensors and starts behind the memory.

        Raises:
            ConflictError: the memory was unmounted, or the active adapters have changed since.
        """
        import torch
        from transformers import DynamicCache

        from memcube.memories.activation.layers import memory_layer

        layers, count, lies = self.layers, len(self.token_ids), self._lies()
        cache = DynamicCache(config=self.model.config)
        sample = torch.empty(0, dtype=self.model.dtype, device=self.model.device)
        cache.layers = [
            memory_layer(layer, partial(layers.view, position), sample, count, lying=lies)
            for position, layer in enumerate(cache.layers)
        ]
        return cache

    def why_copied(self) -> str | None:
        """Why each question copies this memory though it need not on a CPU; None where all is well."""
        if not self._may_lie():
            return None
        from memcube.memories.activation.attention import why_copied

        return why_copied(self.model)

    def _may_lie(self) -> bool:
        """Whether it pays to leave the memory where it is: on a CPU, if it is not too short."""
        return self.model.device.type == "cpu" and len(self.token_ids) >= LYING_TOKENS

    def _lies(self) -> bool:
        """Whether caches leave the memory where it is."""
        if not self._may_lie() or self.why_copied() is not None:
            return False
        from memcube.memories.activation.attention import install

        install()
        return True

    def unmount(self) -> None:
        """Release the tensors; caches in use keep what they have of them."""
        layers, self._layers = self._layers, None
        if layers is not None:
            layers.close()

    def close(self) -> None:
        """As `unmount`."""
        self.unmount()
