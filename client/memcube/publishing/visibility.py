"""Who may read a cube on our registry or on the Hub: everybody, or those who belong to its namespace."""

from __future__ import annotations

from enum import StrEnum

from memcube_protocol import canonical_json
from memcube_protocol.errors import NotFoundError, UnsupportedError
from memcube_protocol.reference import HUB_HOST, Reference

from memcube.context import Context
from memcube.http import Request


class Visibility(StrEnum):
    """Everybody may read a public cube; a private one does not exist for strangers."""

    PUBLIC = "public"
    PRIVATE = "private"


def visibility_of(public: bool | None) -> Visibility | None:
    """What `--public` and `--private` ask for; None: neither was given."""
    if public is None:
        return None
    return Visibility.PUBLIC if public else Visibility.PRIVATE


def set_visibility(context: Context, reference: Reference, visibility: Visibility) -> Reference:
    """Make every version of the cube at `reference` public or private. Says where.

    Raises:
        UnsupportedError: the registry is not ours, and has its own ways.
        UnauthenticatedError, ForbiddenError, NotFoundError: the cube is not this user's.
        NetworkError: no answer.
    """
    place = context.at_registry(reference)
    if place.host == HUB_HOST:
        context.hub().set_private(place.name, visibility is Visibility.PRIVATE)
        return Reference(place.host, place.name)
    registry = context.registry(place.host)
    url = f"{registry.endpoint.url}/api/v1/cubes/{place.name}"
    body = canonical_json.dump({"visibility": visibility.value})
    request = Request("PUT", url, {"Content-Type": "application/json"}, body)
    try:
        registry.http.send(request).close()
    except NotFoundError:
        raise UnsupportedError(
            f"{place.host} has no cube {place.name}, or no way to change who may read it",
            hint="push the cube first; on another kind of registry use its own tools",
        ) from None
    return Reference(place.host, place.name)
