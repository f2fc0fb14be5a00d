"""A repository made past the library: private, once, and left to the library wherever the Hub says anything else."""

from __future__ import annotations

import pytest
from memcube.http import HttpClient, RetryPolicy
from memcube.hub.posting import is_created
from memcube.hub.site import Site
from memcube.settings import Endpoint, Settings
from support.hub import HubServer
from support.scripted import Answer


def client(hub: HubServer) -> HttpClient:
    host = hub.url.partition("://")[2]
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent", "MEMCUBE_INSECURE": host})
    return HttpClient(settings, retry=RetryPolicy(attempts=1))


def site(hub: HubServer, token: str | None) -> Site:
    scheme, _, host = hub.url.partition("://")
    return Site(Endpoint(scheme, host), token)


@pytest.mark.parametrize(
    ("name", "kind", "own"),
    [("Org/notes", "model", "Org/notes"), ("Org/datasets/notes", "dataset", "Org/notes")],
)
def test_a_new_repository_is_private_and_one_that_is_there_stays_as_it_is(
    hub: HubServer, name: str, kind: str, own: str
) -> None:
    mine = site(hub, hub.state.token("ada", organisations=("Org",)))
    assert is_created(mine, client(hub), name)
    assert hub.state.of(kind, own).private
    hub.state.of(kind, own).private = False
    assert is_created(mine, client(hub), name)
    assert not hub.state.of(kind, own).private


@pytest.mark.parametrize("status", [302, 400, 401, 403, 429, 500])
def test_what_the_hub_refuses_is_left_to_the_library(hub: HubServer, status: int) -> None:
    hub.script = lambda seen: Answer(status)
    assert not is_created(site(hub, hub.state.token("ada")), client(hub), "ada/notes")
    assert not hub.state.repositories


@pytest.mark.parametrize(
    ("words", "exists"),
    [
        (b'{"error":"You already created this model repo: ada/notes"}', True),
        (
            b'{"error":"Cannot create repo: another conflicting operation is in progress"}',
            False,
        ),
        (b'{"error":"This namespace is being renamed"}', False),
        (b"", False),
    ],
)
def test_of_all_conflicts_only_that_with_itself_says_that_a_repository_is_there(
    hub: HubServer, words: bytes, exists: bool
) -> None:
    hub.script = lambda seen: Answer(409, body=words)
    assert is_created(site(hub, hub.state.token("ada")), client(hub), "ada/notes") is exists


def test_nobody_makes_a_repository_in_the_name_of_others(hub: HubServer) -> None:
    assert not is_created(site(hub, hub.state.token("ada")), client(hub), "Org/notes")
    assert not hub.state.repositories
