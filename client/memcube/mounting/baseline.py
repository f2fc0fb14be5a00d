"""A model as it was before a mount, to go back to wherever the mount breaks off.

What mounts a memory can take it off again. That does not help where it was stopped half-way: by
Ctrl-C, by full memory, by an error in a library. So everything that hangs on a model's modules is
noted before, by reference, and put back in place after.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_CONTAINERS: Final = (dict, list, set)
_LENT: Final = ("register_parameter", "register_buffer")
"""What peft replaces in torch itself while it makes an adapter: left so, every later model is empty."""


class Baseline:
    """The modules of `model`, their attributes and the flags of their tensors, as they are now.

    Weights are noted by reference, not copied: mounting writes into none of them.
    """

    def __init__(self, model: Any) -> None:
        import torch

        self._torch: Any = torch.nn.Module
        self._functions = {name: getattr(self._torch, name) for name in _LENT}
        self._modules = [(module, _noted(vars(module))) for module in model.modules()]
        self._gradients = [(tensor, tensor.requires_grad) for tensor in model.parameters()]

    def restore(self) -> None:
        """Put back whatever differs."""
        for name, function in self._functions.items():
            setattr(self._torch, name, function)
        for module, (attributes, contents) in self._modules:
            now = vars(module)
            if now.keys() != attributes.keys() or any(
                now[name] is not value for name, value in attributes.items()
            ):
                now.clear()
                now.update(attributes)
            for name, content in contents.items():
                _refill(attributes[name], content)
        for tensor, gradient in self._gradients:
            if tensor.requires_grad != gradient:
                tensor.requires_grad_(gradient)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C inside is held back until the end; other threads than the main one get none anyway.

    Raises:
        KeyboardInterrupt: at the end, if somebody pressed it meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def _noted(attributes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes by reference, and the contents of those that can change in place."""
    contents = {
        name: value.copy() if value else None  # most are empty: hooks that nobody registered
        for name, value in attributes.items()
        if isinstance(value, _CONTAINERS)
    }
    return dict(attributes), contents


def _refill(container: Any, content: Any) -> None:
    """Fill `container` with the objects of `content`, in the same order; empty it for None."""
    if content is None:
        if container:
            container.clear()
    elif isinstance(container, dict):
        same = [(key, id(value)) for key, value in container.items()]
        if same != [(key, id(value)) for key, value in content.items()]:
            container.clear()
            container.update(content)
    elif isinstance(container, list):
        if [*map(id, container)] != [*map(id, content)]:
            container[:] = content
    elif container != content:
        container.clear()
        container.update(content)
