"""A page in a browser asks the registry, with what its user typed there once, or under another name."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from memcube_registry.accounts import service, tokens
from memcube_registry.accounts.scopes import parse_scopes
from memcube_registry.app import create_app
from memcube_registry.database import Database, utc_now
from memcube_registry.settings import Settings

CI = "https://ci.example"
Browser = TestClient[Any]


@pytest.fixture
def browser(tmp_path: Path, sqlite_url: str) -> Iterator[Browser]:
    """A browser into which Alice typed her name and a token of scope admin: it sends them along."""
    database = Database(sqlite_url)
    with database.write() as session:
        alice = service.create_account(session, "alice")
        scopes = parse_scopes("admin")
        secret, _ = tokens.create_token(session, alice, "browser", scopes, now=utc_now())
    database.close()
    settings = Settings(
        data_dir=tmp_path, database_url=sqlite_url, oidc_issuers=CI, log_level="error"
    )
    typed = "Basic " + base64.b64encode(f"alice:{secret}".encode()).decode()
    with TestClient(create_app(settings), base_url=settings.url) as made:
        made.headers["authorization"] = typed
        yield made


def test_a_page_of_a_stranger_lets_no_job_of_his_push_to_her_cube(browser: Browser) -> None:
    # What a form of the type text/plain sends without asking anybody.
    body = b'{"repository":"alice/notes","issuer":"https://ci.example","claims":{"sub":"evil"}}'
    from_there = {"content-type": "text/plain", "origin": "https://evil.example"}
    assert browser.post("/api/v1/publishers", content=body, headers=from_there).status_code == 403
    assert browser.get("/api/v1/publishers?repository=alice/notes").json() == []
    # The same of a program.
    assert browser.post("/api/v1/publishers", content=body).status_code == 201


def test_what_a_page_only_lets_her_browser_read_leaves_no_cube_behind(browser: Browser) -> None:
    there = {"sec-fetch-site": "cross-site"}
    answer = browser.get("/api/v1/publishers?repository=alice/junk", headers=there)
    assert (answer.status_code, answer.json()) == (200, [])
    assert browser.get("/api/v1/cubes/alice/junk").status_code == 404


def test_a_page_under_a_rebound_name_reads_nothing_of_a_registry_of_this_machine(
    browser: Browser,
) -> None:
    assert browser.get("/api/v1/cubes", headers={"host": "evil.example:7070"}).status_code == 403
    assert browser.get("/api/v1/cubes").status_code == 200
