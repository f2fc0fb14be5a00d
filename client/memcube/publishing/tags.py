"""The tags of a released name: its versions, and those that follow the newest of them."""

from __future__ import annotations

from typing import Final

from memcube_protocol.errors import NotFoundError
from memcube_protocol.reference import Reference, release_numbers

from memcube.remote.interface import Remote

LATEST: Final = "latest"


def tags_of(registry: Remote, place: Reference) -> list[str]:
    """Every tag at `place`; none where nothing was published yet."""
    try:
        return list(registry.tags(place.name))
    except NotFoundError:
        return []


def following_tags(registry: Remote, place: Reference) -> tuple[str, ...]:
    """The moving tags that lead to this version from now on: none where a newer one has them."""
    version = release_numbers(place.target)
    if version is None:
        return ()
    released = [release_numbers(tag) for tag in tags_of(registry, place)]
    newer = [other for other in released if other is not None and other > version]
    return tuple(
        ".".join(map(str, version[:depth])) or LATEST
        for depth in (2, 1, 0)
        if not any(other[:depth] == version[:depth] for other in newer)
    )


def newest_release(registry: Remote, place: Reference) -> tuple[int, int, int] | None:
    """The highest version released at `place`, pre-releases aside."""
    found = (release_numbers(tag) for tag in tags_of(registry, place))
    return max((numbers for numbers in found if numbers), default=None)
