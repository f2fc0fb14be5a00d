"""The text that the proxy adds to a prompt: a beginning that is the same for every request.

An engine keeps the attention states of a prompt's beginning and uses them again for the next prompt
that begins with the same bytes. So the source texts of KV memories come first, rendered once, and
what was looked up for one question behind them.
"""

from __future__ import annotations

from collections.abc import Callable

from memcube_protocol.values import frozen

LookUp = Callable[[str], str]
"""The records that answer a question, rendered between delimiters; empty if there are none."""


@frozen
class Addition:
    """What is added to each prompt: `prefix` to all of them alike, `look_up`'s answer to its own.

    Both are data for the model, between delimiters that they cannot close.
    """

    prefix: str
    look_up: LookUp
