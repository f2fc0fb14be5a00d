"""A registry whose S3 server fails, stalls, cheats or is gone: it says so, loses nothing, and comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person, fresh
from memcube_protocol.digest import Digest
from support.faults import Fault, FaultyProxy, Seen, faulty_proxy
from support.machine import Machine
from support.samples import one_image
from support.servers import MemcubeServer, memcube_server, run
from support.swift import SwiftServer
from support.wire import Reply

CONTENT = os.urandom(3 << 20)


@dataclass(frozen=True)
class Scene:
    """A registry that reaches its S3 server through a proxy, and streams blobs itself."""

    server: MemcubeServer
    person: Person
    proxy: FaultyProxy


@pytest.fixture(scope="module")
def shared(s3_server: SwiftServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with faulty_proxy(s3_server.ports["proxy"]) as proxy:
        settings = NO_LIMITS | s3_server.registry_settings(
            S3_ENDPOINT_URL=proxy.url,
            S3_READS="stream",
            S3_TIMEOUT_S="5",
            GC_GRACE_S="0",
            GC_INTERVAL_S="0",
        )
        with memcube_server(tmp_path_factory.mktemp("faults"), settings) as server:
            server.create_account("ada")
            token = server.create_token("ada", *ALL_SCOPES)
            yield Scene(server, Person(server, "ada", token), proxy)


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    shared.proxy.clear()
    yield shared
    shared.proxy.clear()


def is_get(seen: Seen) -> bool:
    return seen.method == "GET" and "/blobs/" in seen.path


def is_put(seen: Seen) -> bool:
    return seen.method == "PUT" and "/blobs/" in seen.path


def require_unavailable(reply: Reply) -> None:
    """That the client is told to come back, and in which time."""
    assert reply.status == 503, reply
    assert int(reply.header("Retry-After") or 0) > 0
    assert reply.json()["errors"][0]["detail"]["hint"]


@pytest.mark.parametrize(
    "fault", [Fault.ERROR, Fault.SLOW_DOWN, Fault.RESET, Fault.LOST_ANSWER, Fault.STALL]
)
def test_one_fault_is_no_concern_of_a_clients(scene: Scene, fault: Fault) -> None:
    repository = scene.person.repository()
    scene.proxy.order(fault, when=is_put)
    scene.proxy.order(fault, when=is_get)
    digest = repository.add_blob(CONTENT)
    assert repository.get_blob(digest).body == CONTENT


def test_a_server_that_is_gone_is_said_to_be_and_found_again_without_a_restart(
    scene: Scene,
) -> None:
    repository, wire = scene.person.repository(), scene.server.wire
    digest = repository.add_blob(CONTENT)
    assert wire.get("/readyz").status == 200
    scene.proxy.is_down = True
    require_unavailable(repository.get_blob(digest))
    require_unavailable(repository.put_blob(b"new", Digest.of(b"new")))
    ready = wire.get("/readyz")
    assert (ready.status, ready.json()["code"]) == (503, "unavailable")
    assert wire.get("/healthz").status == 200, "the process itself is well"
    assert repository.head_blob(digest).status == 200, "the database knows"
    scene.proxy.is_down = False
    assert wire.get("/readyz").status == 200
    assert repository.get_blob(digest).body == CONTENT
    assert repository.get_blob(repository.add_blob(b"new")).body == b"new"


def test_a_refused_push_leaves_an_upload_that_can_be_continued(scene: Scene) -> None:
    repository = scene.person.repository()
    location = repository.upload_location()
    assert repository.patch(location, b"first ").status == 202
    scene.proxy.is_down = True
    require_unavailable(repository.patch(location, b"lost"))
    scene.proxy.is_down = False
    status = repository.wire.get(location)
    assert (status.status, status.header("Range")) == (204, "0-5")
    digest = Digest.of(b"first second")
    assert repository.finish_upload(location, digest, b"second").status == 201
    assert repository.get_blob(digest).body == b"first second"


@pytest.mark.parametrize("times", [1, 3])
def test_short_answers_of_the_server_are_read_on(scene: Scene, times: int) -> None:
    repository = scene.person.repository()
    digest = repository.add_blob(CONTENT)
    scene.proxy.order(Fault.TRUNCATED, times=times, when=is_get)
    assert repository.get_blob(digest).body == CONTENT


def test_a_blob_that_breaks_off_for_good_never_looks_whole_to_a_client(
    scene: Scene, tmp_path: Path
) -> None:
    repository = scene.person.repository()
    digest = repository.add_blob(CONTENT)
    scene.proxy.order(Fault.TRUNCATED, when=is_get)
    scene.proxy.order(Fault.RESET, times=1000, when=is_get)
    url = f"{scene.server.url}{repository.path(f'blobs/{digest}')}"
    access = f"Authorization: Bearer {scene.person.token}"
    done = run(["curl", "-sS", "-H", access, "-o", str(tmp_path / "out"), url])
    ended_early = 18
    assert done.returncode == ended_early, done.stderr
    assert 0 < (tmp_path / "out").stat().st_size < len(CONTENT)


def test_our_client_pushes_and_pulls_through_a_shower_of_faults(
    scene: Scene, tmp_path: Path
) -> None:
    name = f"ada/{fresh('cube')}"
    publisher = Machine(tmp_path / "publisher", scene.server.url, scene.person.token)
    reader = Machine(tmp_path / "reader", scene.server.url, scene.person.token)
    publisher.json("init", tmp_path / "cube", "--name", name)
    (tmp_path / "cube" / "attachments").mkdir()
    for number in range(4):
        picture = tmp_path / "cube" / "attachments" / f"{number}.png"
        picture.write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(100_000))
    scene.proxy.shower(seed=7, rate=0.2, kinds=[kind for kind in Fault if kind != Fault.STALL])
    pushed = publisher.json("push", tmp_path / "cube")
    assert reader.json("pull", f"{name}:0.1.0")["digest"] == pushed["digest"]
    assert scene.proxy.faults()


def test_garbage_collection_during_an_outage_takes_nothing_that_is_needed(scene: Scene) -> None:
    repository, sample = scene.person.repository(), one_image()
    sample.push(repository)
    stray = repository.add_blob(os.urandom(100))
    scene.proxy.is_down = True
    failed = scene.server.admin("gc", check=False)
    assert failed.returncode != 0
    assert "hint:" in failed.stderr
    scene.proxy.is_down = False
    scene.proxy.shower(seed=3, rate=0.3, kinds=[Fault.ERROR, Fault.RESET, Fault.STALE])
    scene.server.admin("gc", check=False)
    scene.proxy.clear()
    location = repository.upload_location()
    assert repository.patch(location, b"half of it").status == 202
    scene.server.admin("gc")
    assert repository.get_blob(stray).status == 404
    assert all(repository.get_blob(name).body == each for name, each in sample.blobs.items())
    assert repository.finish_upload(location, Digest.of(b"half of it")).status == 201
