"""Which requests of browsers a registry answers."""

from __future__ import annotations

import pytest
from memcube_protocol.errors import ForbiddenError
from memcube_registry.http.browsers import Entrance
from memcube_registry.settings import Settings

OURS = Entrance.of(Settings(external_url="https://Registry.example:443"))
LOCAL = Entrance.of(Settings())
OPEN = Entrance.of(Settings(host="0.0.0.0"))


def scope(method: str = "GET", **headers: str) -> dict[str, object]:
    pairs = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
    return {"method": method, "headers": pairs}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://registry.example"},
        {"origin": "https://registry.example.evil.example"},
        {"origin": "https://registry.example:8443"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "https://registry.example", "sec_fetch_site": "cross-site"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
def test_a_page_of_another_site_changes_nothing(method: str, headers: dict[str, str]) -> None:
    with pytest.raises(ForbiddenError):
        OURS.require_welcome(scope(method, **headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://registry.example", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
    ],
    ids=lambda headers: " ".join(headers.values()) or "none",
)
def test_programs_and_pages_of_its_own_may(headers: dict[str, str]) -> None:
    OURS.require_welcome(scope("POST", host="whatever.example", **headers))


def test_a_link_of_another_site_may_lead_to_a_page() -> None:
    OURS.require_welcome(scope(sec_fetch_site="cross-site", origin="https://evil.example"))


@pytest.mark.parametrize(
    "host", ["evil.example:7070", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", ""]
)
def test_a_name_that_leads_to_this_machine_is_not_this_registrys(host: str) -> None:
    with pytest.raises(ForbiddenError):
        LOCAL.require_welcome(scope(host=host))
    OPEN.require_welcome(scope(host=host))


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7070", "localhost:7070", "[::1]:7070", "LOCALHOST", "memcube.localhost"]
)
def test_an_address_or_localhost_is(host: str) -> None:
    LOCAL.require_welcome(scope(host=host))
