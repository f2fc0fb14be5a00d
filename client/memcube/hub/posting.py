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

_DONE: Final = (200, 201, 204)
_CONFLICT: Final = 409


def post(
    site: Site,
    http: HttpClient,
    url: str,
    value: Mapping[str, Any],
    *,
    media_type: str = "application/json",
    accepted: tuple[int, ...] = _DONE,
) -> dict[str, Any]:
    """The JSON that the Hub answers to `value` at `url`, an address of its own; empty where it says nothing.

    Raises:
        MemcubeError: by its status, unless that is `accepted`; or the answer is not JSON.
    """
    request = Request(
        "POST",
        url,
        {"Accept": media_type, "Content-Type": media_type},
        canonical_json.dump(value),
        repeatable=True,
        led_from=Origin.of(site.endpoint.url),
        authorization=site.authorization,
    )
    with http.send(request, accepted) as response:
        content = response.content(limits.MANIFEST_BYTES)
        if response.status not in _DONE or not content:
            return {}
    return canonical_json.parse_object(content, what="answer of the Hub")


def is_created(site: Site, http: HttpClient, name: str) -> bool:
    """Let the repository `name` exist, private if it is new; False: the library is to do it."""
    kind, own = repository_of(name)
    namespace, _, title = own.partition("/")
    wanted = {"name": title, "organization": namespace, "visibility": "private", "type": kind}
    try:
        url = f"{site.endpoint.url}/api/repos/create"
        post(site, http, url, wanted, accepted=(*_DONE, _CONFLICT))
    except MemcubeError:
        return False
    return True
