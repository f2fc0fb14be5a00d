"""What the Hub is told past the library, which takes a while to load and sends slowly: its plain cases.

Each request is the one that the library would send. Where the Hub answers anything else than that all is
well, the library is to ask again, and says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import MemcubeError

from memcube.http import HttpClient, Origin, Request
from memcube.hub.site import Site, repository_of

DONE: Final = (200, 201, 204)
"""Statuses that say that all is well."""
PATIENCE_S: Final = 300.0
"""How long the Hub may say nothing: a commit of thousands of files takes it a while."""

_JSON: Final = "application/json"
_CONFLICT: Final = 409
_IS_THERE: Final = re.compile(rb"already (?:created|exists)", re.IGNORECASE)


def post(
    site: Site,
    http: HttpClient,
    url: str,
    value: Mapping[str, Any] | bytes,
    *,
    media_type: str = _JSON,
    answered: str | None = None,
    accepted: tuple[int, ...] = DONE,
    repeatable: bool = True,
    patience_s: float | None = None,
) -> dict[str, Any]:
    """The JSON that the Hub answers to `value` at `url`, an address of its own; empty where it says nothing.

    Bytes are sent as they are. The answer is of the same `media_type`, or `answered`.

    Raises:
        MemcubeError: by its status, unless that is `accepted`; or the answer is not JSON.
    """
    request = _request(site, url, value, media_type, answered or media_type)
    request = replace(request, repeatable=repeatable, patience_s=patience_s)
    with http.send(request, accepted) as response:
        content = response.content(limits.MANIFEST_BYTES)
        if response.status not in DONE or not content:
            return {}
    return canonical_json.parse_object(content, what="answer of the Hub")


def is_created(site: Site, http: HttpClient, name: str) -> bool:
    """Let the repository `name` exist, private if it is new; False: the library is to do it.

    The Hub refuses with 409 what is there, and also what it is busy with: only its words tell them apart.
    """
    kind, own = repository_of(name)
    namespace, _, title = own.partition("/")
    wanted = {"name": title, "organization": namespace, "visibility": "private", "type": kind}
    request = _request(site, f"{site.endpoint.url}/api/repos/create", wanted, _JSON, _JSON)
    try:
        with http.send(request, (*DONE, _CONFLICT)) as response:
            is_new = response.status != _CONFLICT
            return is_new or bool(_IS_THERE.search(response.content(limits.MANIFEST_BYTES)))
    except MemcubeError:
        return False


def _request(
    site: Site, url: str, value: Mapping[str, Any] | bytes, media_type: str, answered: str
) -> Request:
    return Request(
        "POST",
        url,
        {"Accept": answered, "Content-Type": media_type},
        value if isinstance(value, bytes) else canonical_json.dump(value),
        led_from=Origin.of(site.endpoint.url),
        authorization=site.authorization,
    )
