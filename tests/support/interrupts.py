"""Ctrl-C at any line of what puts an adapter on a model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_TRACED = ("/memories/parametric", "/memories/biases", "/peft/tuners/")


def lines_run(run: Callable[[], object], interrupt_at: int = -1) -> int:
    """How many lines of our adapters' code and of peft `run` takes; Ctrl-C meets the one told."""
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        name = frame.f_code.co_filename
        if not any(part in name for part in _TRACED):
            return None
        if event == "line":
            count += 1
            if count == interrupt_at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(earlier)
    return count
