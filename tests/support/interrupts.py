"""Ctrl-C at any line of what puts an adapter on a model."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

from memcube.closing import Closing

_NOT_BEGUN = 4
"""Lines that an unmount runs before it has begun: with Ctrl-C there, the adapter is still on, as a whole."""
_TRACED = ("/memories/parametric", "/memories/biases", "/peft/tuners/")


def lines_to_interrupt(mount: Callable[[], Closing], seed: object, count: int = 12) -> list[int]:
    """So many lines of a mount and of the unmount after it, other ones for each seed."""
    mounted: list[Closing] = []
    middle = lines_run(lambda: mounted.append(mount()))
    total = middle + lines_run(mounted[0].close)
    lines = [*range(1, middle + 1), *range(middle + _NOT_BEGUN + 1, total)]
    return random.Random(str(seed)).sample(lines, count)


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
