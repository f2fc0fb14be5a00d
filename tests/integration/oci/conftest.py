"""The registry that the suite judges: ours, or the one that the environment names.

`OCI_ROOT_URL`, `OCI_NAMESPACE`, `OCI_USERNAME` and `OCI_PASSWORD` are those of the public suite.
`OCI_ROOT_URL=docker-registry` starts the reference registry.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

import pytest
from conftest import ALL_SCOPES, Person, fresh
from support.repository import Repository
from support.servers import MemcubeServer
from support.wire import Wire


@pytest.fixture(
    scope="session", params=["named"] if "OCI_ROOT_URL" in os.environ else ["sqlite", "postgresql"]
)
def judged(request: pytest.FixtureRequest) -> Person | None:
    """Somebody on our registry, on each kind of database; nobody where the environment names another."""
    if request.param == "named":
        return None
    server: MemcubeServer = request.getfixturevalue("server_on")(request.param)
    name = fresh("conformance")
    server.create_account(name)
    return Person(server, name, server.create_token(name, *ALL_SCOPES))


@pytest.fixture(scope="session")
def wire(request: pytest.FixtureRequest, judged: Person | None) -> Wire:
    if judged:
        return judged.wire
    url = os.environ["OCI_ROOT_URL"]
    if url == "docker-registry":
        url = request.getfixturevalue("reference_registry")
    username, password = os.environ.get("OCI_USERNAME"), os.environ.get("OCI_PASSWORD")
    return Wire(url).basic(username, password) if username and password else Wire(url)


@pytest.fixture(scope="session")
def namespace(judged: Person | None) -> str:
    return judged.name if judged else os.environ.get("OCI_NAMESPACE", "conformance")


@pytest.fixture(scope="session")
def new_repository(wire: Wire, namespace: str) -> Callable[[], Repository]:
    """Names repositories that nobody has used."""
    return lambda: Repository(wire, f"{namespace}/conformance-{secrets.token_hex(5)}")


@pytest.fixture
def repository(new_repository: Callable[[], Repository]) -> Repository:
    return new_repository()


@pytest.fixture
def other_repository(new_repository: Callable[[], Repository]) -> Repository:
    return new_repository()
