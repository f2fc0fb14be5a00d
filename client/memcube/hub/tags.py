"""Tags that follow from others: on the Hub nobody sets `latest`, `1` and `1.4`; they are worked out.

So they can neither be forgotten nor be left behind by a crash: `latest` is the head of `main`, and a
partial version means the highest release that begins with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from memcube_protocol.reference import is_immutable_tag

LATEST: Final = "latest"
_PARTIAL: Final = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8}))?")


def is_derived(tag: str) -> bool:
    """Whether `tag` follows from the versions that are released."""
    return tag == LATEST or _PARTIAL.fullmatch(tag) is not None


def following(partial: str, tags: Iterable[str]) -> str | None:
    """The highest release among `tags` of the partial version `partial`; pre-releases aside."""
    if not _PARTIAL.fullmatch(partial):
        return None
    wanted = tuple(map(int, partial.split(".")))
    found = [tag for tag in tags if (of := numbers(tag)) and of[: len(wanted)] == wanted]
    return max(found, key=lambda tag: numbers(tag) or (), default=None)


def numbers(tag: str) -> tuple[int, int, int] | None:
    """The three numbers of a released version's tag; none for a pre-release or another tag."""
    if not is_immutable_tag(tag) or "-" in tag.partition("_")[0]:
        return None
    major, minor, patch = tag.partition("_")[0].split(".")
    return int(major), int(minor), int(patch)
