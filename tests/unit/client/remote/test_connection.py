"""Where a list of a registry goes on."""

from __future__ import annotations

import pytest
import urllib3
from memcube.http.client import Response
from memcube.remote.connection import next_page


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ('</v2/a/tags/list?last=b>; rel="next"', "/v2/a/tags/list?last=b"),
        ("</v2/a/tags/list?last=b,c>;rel=next", "/v2/a/tags/list?last=b,c"),
        ('</first>; rel="prev", </second>; title="more"; rel="next"', "/second"),
        ('</first>; rel="prev"', None),
        ("", None),
    ],
)
def test_the_link_called_next_leads_on(link: str, expected: str | None) -> None:
    raw = urllib3.HTTPResponse(headers={"Link": link})
    assert next_page(Response(raw, "http://127.0.0.1/", "a list")) == expected
