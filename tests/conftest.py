"""Fixtures that several kinds of test share: one server of ours and one reference registry a worker."""

from __future__ import annotations

import gc
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from memcube_registry.database import Database
from support.hub import HubServer, hub_server
from support.hub_machine import machine_of
from support.machine import Machine
from support.postgres import migrated_url
from support.repository import Repository
from support.servers import MemcubeServer, docker_registry, memcube_server
from support.swift import SwiftServer, swift_server
from support.wire import Wire

# Before torch is loaded: two runs of the tests share two cores, and threads that spin starve each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A machine that is busy with other things fails nothing: Hypothesis reads all of our modules for constants
# while it draws the first value of a run, and that takes long where others have the processor.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

gc.disable()  # Until all tests are collected: what is imported stays.

ALL_SCOPES = ("pull", "push", "delete")
NO_LIMITS = {
    f"MEMCUBE_REGISTRY_{name}": "0"
    for name in ("REQUESTS_PER_S", "ANONYMOUS_REQUESTS_PER_S", "FAILED_LOGINS_PER_MINUTE")
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--store s3` lets the shared server keep its blobs on an S3 server, and stream them from there."""
    parser.addoption("--store", choices=("local", "s3"), default="local")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test whose name may differ between workers: the spelling of a set, or of an address."""
    unstable = [item.nodeid for item in items if re.search(r"set\(\{| at 0x", item.nodeid)]
    if unstable:
        raise pytest.UsageError(f"give the parameters of these tests ids: {', '.join(unstable)}")


def pytest_collection_finish() -> None:
    """Look for garbage from now on, and never again through what was imported."""
    gc.freeze()
    gc.enable()


@dataclass(frozen=True)
class Person:
    """An account of our registry with a token that may do everything the account may."""

    server: MemcubeServer
    name: str
    token: str

    @property
    def wire(self) -> Wire:
        return self.server.wire.bearer(self.token)

    def repository(self, name: str | None = None) -> Repository:
        """A repository in this person's namespace, by default one that nobody has used."""
        return Repository(self.wire, f"{self.name}/{name or fresh('cube')}")


on_both_databases = pytest.mark.parametrize(
    "memcube", ["sqlite", "postgresql"], indirect=True, scope="session"
)
"""For modules whose tests reach a database through a server."""


def fresh(prefix: str) -> str:
    """A name that no other test uses."""
    return f"{prefix}-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database with every table, to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "registry.db"
    made = Database(f"sqlite:///{path}")
    made.migrate()
    with made.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    made.close()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated: Path) -> str:
    """URL of an SQLite database with every table: for what does not depend on the database."""
    return f"sqlite:///{shutil.copy(migrated, tmp_path / 'registry.db')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database with every table; the test runs on each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    with migrated_url() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with every table; the test runs on each kind."""
    made = Database(database_url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def server_on(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], MemcubeServer]]:
    """Our registry on a database of that kind, begun when it is first asked for."""
    with ExitStack() as running:

        @cache
        def begun(kind: str) -> MemcubeServer:
            settings = NO_LIMITS | {"MEMCUBE_REGISTRY_WORKERS": "2"}
            if request.config.getoption("--store") == "s3":
                s3: SwiftServer = request.getfixturevalue("s3_server")
                settings |= s3.registry_settings(S3_READS="stream")
            if kind == "postgresql":
                settings["MEMCUBE_REGISTRY_DATABASE_URL"] = running.enter_context(migrated_url())
            folder = tmp_path_factory.mktemp("memcube")
            return running.enter_context(memcube_server(folder, settings))

        yield begun


@pytest.fixture(scope="session")
def memcube(
    request: pytest.FixtureRequest, server_on: Callable[[str], MemcubeServer]
) -> MemcubeServer:
    """Our registry, shared by all tests of this worker that do not harm it. Two processes answer.

    On SQLite, unless a module says otherwise (`on_both_databases`).
    """
    return server_on(getattr(request, "param", "sqlite"))


@pytest.fixture(scope="session")
def new_person(memcube: MemcubeServer) -> Callable[[], Person]:
    """Makes accounts on the shared server."""

    def make() -> Person:
        name = fresh("person")
        memcube.create_account(name)
        return Person(memcube, name, memcube.create_token(name, *ALL_SCOPES))

    return make


@pytest.fixture(scope="session")
def ada(new_person: Callable[[], Person]) -> Person:
    """Somebody with an account."""
    return new_person()


@pytest.fixture(scope="session")
def bob(new_person: Callable[[], Person]) -> Person:
    """Somebody else with an account."""
    return new_person()


@pytest.fixture(scope="session")
def reference_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the reference registry, without access control."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    with docker_registry(tmp_path_factory.mktemp("docker-registry")) as (url, _):
        yield url


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    """A real S3 server, shared by all tests of this worker that do not harm it: `bucket()` is a test's own."""
    with swift_server(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """A Hugging Face Hub of this test's own."""
    with hub_server(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def hub_publisher(hub: HubServer, tmp_path: Path) -> Machine:
    """Ada's machine, a member of Org on that Hub. It knows no registry."""
    return machine_of(hub, tmp_path / "ada", hub.state.token("ada", organisations=("Org",)))


@pytest.fixture
def hub_reader(hub: HubServer, tmp_path: Path) -> Machine:
    """The machine of somebody without an account there."""
    return machine_of(hub, tmp_path / "reader", None)
