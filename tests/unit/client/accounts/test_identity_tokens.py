"""Where a CI job's identity token comes from, and to whom it may be shown."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from memcube.accounts import identity_tokens
from memcube.accounts.identity_tokens import advice, find, is_at_hand, read
from memcube.http import HttpClient
from memcube.settings import Settings
from memcube_protocol.errors import (
    InvalidSettingError,
    MemcubeError,
    UnauthenticatedError,
    UnavailableError,
)
from support.issuer import identity_issuer

HOST = "registry.example"


def token(**claims: Any) -> str:
    """A token with a signature that nobody looks at here."""
    said = {"iss": "https://ci.example", "sub": "job:release", "aud": HOST, **claims}
    parts = ({"alg": "ES256"}, {name: value for name, value in said.items() if value is not None})
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*coded, b"c2ln"]).decode()


@pytest.fixture
def http(tmp_path: Path) -> HttpClient:
    settings = Settings.load({"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"})
    return HttpClient(settings, find_credentials=lambda _: None)


def test_the_variable_goes_before_the_file_and_that_before_github(http, tmp_path) -> None:
    file = tmp_path / "token"
    file.write_text(token(sub="of the file") + "\n")
    with identity_issuer() as issuer:
        environ = dict(issuer.environment)
        assert find(environ, http, HOST).subject.startswith("repo:")
        environ["MEMCUBE_ID_TOKEN_FILE"] = str(file)
        assert find(environ, http, HOST).subject == "of the file"
        environ["MEMCUBE_ID_TOKEN"] = token(sub="of the variable")
        assert find(environ, http, HOST).subject == "of the variable"
    assert find({}, http, HOST) is None


@pytest.mark.parametrize(
    "audience", ["other.example", [HOST, "other.example"], [], None, f"{HOST}:5000", f"https://{HOST}"]
)  # fmt: skip
def test_a_token_for_anybody_else_is_refused(http, audience) -> None:
    with pytest.raises(InvalidSettingError, match="sent nowhere"):
        find({"MEMCUBE_ID_TOKEN": token(aud=audience)}, http, HOST)


def test_a_list_with_the_one_right_audience_will_do(http) -> None:
    assert find({"MEMCUBE_ID_TOKEN": token(aud=[HOST])}, http, HOST)


@pytest.mark.parametrize(
    "text",
    ["", "x", "a.b", "a.b.c.d", "e30.e30.x y", token(iss=None), token(sub=1), "e30.W10.x", "e30.a.x"],
)  # fmt: skip
def test_what_is_no_token_is_refused_without_being_shown(text) -> None:
    with pytest.raises(InvalidSettingError) as caught:
        read(text, "MEMCUBE_ID_TOKEN")
    assert caught.value.hint
    assert len(text) < 8 or text not in str(caught.value)


def test_a_file_that_is_not_there_is_told(http, tmp_path) -> None:
    with pytest.raises(InvalidSettingError, match="no such file"):
        find({"MEMCUBE_ID_TOKEN_FILE": str(tmp_path / "none")}, http, HOST)


def test_the_jobs_own_token_is_not_sent_in_the_clear(http) -> None:
    environ = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": "http://ci.example/token",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "job secret",
    }
    with pytest.raises(InvalidSettingError, match="unencrypted"):
        find(environ, http, HOST)


def test_a_refusal_of_the_ci_is_told_with_what_to_do(http) -> None:
    with identity_issuer() as issuer:
        environ = issuer.environment | {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "wrong"}
        with pytest.raises(UnavailableError) as caught:
            find(environ, http, HOST)
    assert "id-token: write" in str(caught.value.hint)
    assert "wrong" not in str(caught.value)


def test_a_token_does_not_show_in_what_is_printed_of_it() -> None:
    found = read(token(), "MEMCUBE_ID_TOKEN")
    assert found.text not in repr(found)
    error: MemcubeError = identity_tokens.refused(
        found, HOST, UnauthenticatedError("used before", hint="ask for a new one")
    )
    assert found.text not in f"{error}{error.hint}"
    assert "'job:release' at https://ci.example" in str(error.hint)


def test_advice_is_for_the_ci_that_this_is() -> None:
    assert "id-token: write" in str(advice({"GITHUB_ACTIONS": "true"}))
    assert "id_tokens" in str(advice({"GITLAB_CI": "true"}))
    assert advice({}) is None
    assert advice({"GITHUB_ACTIONS": "true", "MEMCUBE_ID_TOKEN": "x"}) is None
    assert not is_at_hand({"ACTIONS_ID_TOKEN_REQUEST_URL": "https://ci.example"})
