"""What the Hub is told past the library, which takes a while to load and sends slowly: its plain cases.

Each request is the one that the library would send. Where the Hub answers anything else than that all is
well, the library is to ask again, and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import MemcubeError

from memcube.http import HttpClient, Origin, Request
from memcube.hub.site import Site, repository_of

DONE: Final = (200, 201, 204)
"""Statuses that say that all is well."""
PATIENCE_S: Final = 300.0
"""How long the Hub may say nothing: a commit of thousands of files takes it a while."""

_CONFLICT: Final = 409


def post(
    site: Site,
    http: HttpClient,
    url: str,
    value: Mapping[str, Any] | bytes,
    *,
    media_type: str = "application/json",
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
    request = Request(
        "POST",
        url,
        {"Accept": answered or media_type, "Content-Type": media_type},
        value if isinstance(value, bytes) else canonical_json.dump(value),
        repeatable=repeatable,
        led_from=Origin.of(site.endpoint.url),
        authorization=site.authorization,
        patience_s=patience_s,
    )
    with http.send(request, accepted) as response:
        content = response.content(limits.MANIFEST_BYTES)
        if response.status not in DONE or not content:
            return {}
    return canonical_json.parse_object(content, what="answer of the Hub")


def is_created(site: Site, http: HttpClient, name: str) -> bool:
    """Let the repository `name` exist, private if it is new; False: the library is to do it."""
    kind, own = repository_of(name)
    namespace, _, title = own.partition("/")
    wanted = {"name": title, "organization": namespace, "visibility": "private", "type": kind}
    try:
        url = f"{site.endpoint.url}/api/repos/create"
        post(site, http, url, wanted, accepted=(*DONE, _CONFLICT))
    except MemcubeError:
        return False
    return True
