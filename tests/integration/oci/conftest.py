"""The registry that the suite judges: ours, or the one that the environment names.

`OCI_ROOT_URL`, `OCI_NAMESPACE`, `OCI_USERNAME` and `OCI_PASSWORD` are those of the public suite.
`OCI_ROOT_URL=docker-registry` starts the reference registry.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

import pytest
from support.repository import Repository
from support.wire import Wire


@pytest.fixture(scope="session")
def wire(request: pytest.FixtureRequest) -> Wire:
    url = os.environ.get("OCI_ROOT_URL")
    if not url:
        return request.getfixturevalue("ada").wire
    if url == "docker-registry":
        url = request.getfixturevalue("reference_registry")
    username, password = os.environ.get("OCI_USERNAME"), os.environ.get("OCI_PASSWORD")
    return Wire(url).basic(username, password) if username and password else Wire(url)


@pytest.fixture(scope="session")
def namespace(request: pytest.FixtureRequest) -> str:
    if os.environ.get("OCI_ROOT_URL"):
        return os.environ.get("OCI_NAMESPACE", "conformance")
    return request.getfixturevalue("ada").name


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
