"""Tags that follow from others: on the Hub nobody sets `latest`, `1` and `1.4`; they are worked out.

So they can neither be forgotten nor be left behind by a crash. Each means the highest release that begins
with it, pre-releases aside; `latest` is the head of `main` while there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from memcube_protocol.reference import release_numbers, tag_order

LATEST: Final = "latest"
_PARTIAL: Final = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8}))?")


def is_derived(tag: str) -> bool:
    """Whether `tag` follows from the versions that are released."""
    return tag == LATEST or _PARTIAL.fullmatch(tag) is not None


def following(tag: str, released: Iterable[str]) -> str | None:
    """The highest release among the tags `released` that the derived `tag` leads to."""
    if not is_derived(tag):
        return None
    wanted = () if tag == LATEST else tuple(map(int, tag.split(".")))
    found = [
        one for one in released if (of := release_numbers(one)) and of[: len(wanted)] == wanted
    ]
    return max(found, key=tag_order, default=None)
