"""What a registry says that it can do: `features` of its `/.well-known/memcube.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnauthenticatedError,
    UnsupportedError,
)

from memcube.http import Request
from memcube.remote.connection import Connection


def features_of(connection: Connection) -> Mapping[str, Any]:
    """The features of the registry; none where it is not one of memcube's.

    Raises:
        NetworkError: no answer.
    """
    request = Request("GET", f"{connection.endpoint.url}/.well-known/memcube.json")
    try:
        with connection.send(request) as response:
            fields = canonical_json.parse_object(response.content(limits.MIB), what="registry")
    except (NotFoundError, UnsupportedError, UnauthenticatedError, ForbiddenError, InvalidError):
        return {}  # it has no such page, or not of ours
    features = fields.get("features")
    return features if isinstance(features, dict) else {}
