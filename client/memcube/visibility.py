"""Who may read a cube on our registry or on the Hub: everybody, or those who belong to its namespace."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from memcube_protocol import canonical_json
from memcube_protocol.config import CubeConfig
from memcube_protocol.errors import NotFoundError, UnsupportedError
from memcube_protocol.reference import HUB_HOST, Reference

from memcube import rules
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


@dataclass(frozen=True, slots=True)
class Exposure:
    """Who shall be able to read a copy; None: who can already, and of a new one its owners only.

    `confidential` lets a cube become public that its governance calls confidential or personal.
    """

    visibility: Visibility | None = None
    confidential: bool = False

    def require(self, context: Context, config: CubeConfig) -> None:
        """That the cube's own governance does not speak against it; before anything is copied.

        Raises:
            RuleRefusedError: it does.
        """
        if self.visibility is Visibility.PUBLIC and not self.confidential:
            rules.require_publishable(context, config.governance, config.name)

    def apply(self, context: Context, place: Reference) -> None:
        """Make it so at `place`.

        Raises:
            UnsupportedError, UnauthenticatedError, ForbiddenError, NotFoundError: as `set_visibility`.
        """
        if self.visibility is not None:
            set_visibility(context, place, self.visibility)


AS_IT_IS: Final = Exposure()


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
