"""A registry that is told to stop: readiness first, then what runs, then nothing; and what if it is not waited for."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person
from memcube_protocol.digest import Digest
from memcube_registry.accounts.scopes import parse_scopes
from memcube_registry.accounts.service import create_account
from memcube_registry.accounts.tokens import create_token
from memcube_registry.database import Database, utc_now
from memcube_registry.jobs import service
from memcube_registry.jobs.models import Job, State
from sqlmodel import select
from support.repository import location_of, with_query
from support.samples import one_image
from support.servers import MemcubeServer

MIB = 1024 * 1024
SOON_S = 100


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


class Told:
    """A server that is told to stop, and somebody who uses it."""

    def __init__(self, server: MemcubeServer, database_url: str) -> None:
        self.server = server
        with closing(Database(database_url)) as database, database.write() as session:
            account, scopes = create_account(session, "ada"), parse_scopes(" ".join(ALL_SCOPES))
            token, _ = create_token(session, account, "test", scopes, now=utc_now())
        self.ada = Person(server, "ada", token)

    def tell(self) -> None:
        """SIGTERM to the parent alone, as a supervisor sends it."""
        assert self.server.process
        os.kill(self.server.process.pid, signal.SIGTERM)

    def exit_code(self) -> int:
        assert self.server.process
        return self.server.process.wait(SOON_S)

    def is_refused(self) -> bool:
        try:
            socket.create_connection(self.server.wire.address, timeout=10).close()
        except ConnectionRefusedError:
            return True
        return False

    def begin(self, method: str, path: str, *headers: str) -> socket.socket:
        """A request whose header was sent, on a connection that is read slowly."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        made.settimeout(SOON_S)
        made.connect(self.server.wire.address)
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Connection: close",
            f"Authorization: Bearer {self.ada.token}",
            *headers,
        ]
        made.sendall("\r\n".join([*lines, "", ""]).encode())
        return made

    def requests_running(self) -> int:
        """As `/metrics` says, without the one that asks."""
        text = self.server.wire.get("/metrics").body.decode()
        (line,) = [one for one in text.splitlines() if one.startswith("memcube_requests_running ")]
        return int(float(line.split()[1])) - 1


@pytest.fixture
def start(tmp_path: Path, database_url: str) -> Iterator[Callable[..., Told]]:
    """Starts a server with settings; it is gone in the end."""
    found: list[MemcubeServer] = []

    def make(**settings: str) -> Told:
        named = {f"MEMCUBE_REGISTRY_{name}": value for name, value in settings.items()}
        named["MEMCUBE_REGISTRY_DATABASE_URL"] = database_url
        server = MemcubeServer(tmp_path / "data", tmp_path / "log", NO_LIMITS | named)
        found.append(server)
        server.start()
        return Told(server, database_url)

    yield make
    for one in found:
        one.kill()


def whole_answer(connection: socket.socket) -> tuple[int, bytes]:
    with closing(connection), connection.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


@pytest.mark.timeout(300)
def test_what_runs_is_finished_and_nobody_new_is_let_in(start) -> None:
    told = start()
    repository = told.ada.repository("notes")
    content = os.urandom(24 * MIB)
    digest = repository.add_blob(content)
    down = told.begin("GET", repository.path(f"blobs/{digest}"))
    sent = os.urandom(2 * MIB)
    path = with_query(repository.path("blobs/uploads/"), digest=str(Digest.of(sent)))
    up = told.begin("POST", path, f"Content-Length: {len(sent)}")
    up.sendall(sent[:MIB])
    wait_until(lambda: told.requests_running() == 2)
    told.tell()
    wait_until(told.is_refused)
    up.sendall(sent[MIB:])
    assert whole_answer(up)[0] == 201
    status, received = whole_answer(down)
    assert (status, Digest.of(received)) == (200, Digest.of(content))
    assert told.exit_code() == 0
    told.server.stop()
    told.server.start()
    assert repository.get_blob(Digest.of(sent)).body == sent


def test_readiness_fails_first_and_a_second_sigterm_ends_it_at_once(start) -> None:
    told = start(DRAIN_S="3600")
    repository, sample = told.ada.repository("notes"), one_image("v1")
    sample.push(repository)
    patched = repository.patch(repository.upload_location(), b"a" * MIB, start=0)
    assert patched.status == 202
    stuck = told.begin("PUT", repository.path("manifests/stuck"), "Content-Length: 100")
    wait_until(lambda: told.requests_running() == 1)
    told.tell()
    wire = told.server.wire
    wait_until(lambda: wire.get("/readyz").status == 503)
    assert wire.get("/readyz").header("retry-after")
    assert wire.get("/healthz").status == 200
    digest = repository.add_blob(b"the balancer has not noticed yet")
    told.tell()
    assert told.exit_code() == 0
    stuck.close()
    told.server.stop()
    told.server.start()
    assert repository.tags() == ["v1"]
    for digest, raw in sample.blobs.items():
        assert repository.get_blob(digest).body == raw
    assert repository.get_blob(digest).status == 200
    assert repository.wire.get(location_of(patched)).header("Range") == f"0-{MIB - 1}"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_who_does_not_end_within_the_grace_is_cut_off(start) -> None:
    told = start(SHUTDOWN_GRACE_S="1")
    repository, sample = told.ada.repository("notes"), one_image("v1")
    sample.push(repository)
    stuck = told.begin("PUT", repository.path("manifests/stuck"), "Content-Length: 100")
    wait_until(lambda: told.requests_running() == 1)
    told.tell()
    assert told.exit_code() == 0
    stuck.close()
    told.server.stop()
    told.server.start()
    assert repository.tags() == ["v1"]


def test_a_job_that_runs_is_given_back(start, database_url: str) -> None:
    """Another process can take it at once, and does not count this try."""
    told = start(JOB_POLL_S="0.05")
    names = [f"{number:032x}" for number in range(300_000)]
    with closing(Database(database_url)) as database:
        payload = {"objects": [], "uploads": names}
        database.run(lambda s: service.enqueue(s, "remove-bytes", "many", utc_now(), payload))

        def state() -> tuple[State, int, str | None] | None:
            with database.read() as session:
                row = session.execute(
                    select(Job.state, Job.attempts, Job.lease).where(Job.subject == "many")
                ).one_or_none()
                return None if row is None else (row[0], row[1], row[2])

        wait_until(lambda: state() != (State.QUEUED, 0, None))
        told.tell()
        assert told.exit_code() == 0
        assert state() == (State.QUEUED, 0, None)
