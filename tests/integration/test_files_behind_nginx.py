"""With `local_reads = "nginx"` the nginx of the guide sends the blobs, and only those that the registry gives out."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, NO_LIMITS
from memcube_protocol.digest import Digest
from support.machine import Machine
from support.nginx import nginx
from support.repository import Repository
from support.servers import MemcubeServer, free_port, memcube_server
from support.wire import Wire

pytestmark = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
CONTENT = random.Random(300).randbytes(300_000)
DIGEST = Digest.of(CONTENT)
PLACE = "/.memcube-blobs/"


@dataclass(frozen=True)
class Scene:
    """A registry behind an nginx that sends its blobs, and ada's private repository with one blob."""

    server: MemcubeServer
    front: Wire
    token: str

    @property
    def repository(self) -> Repository:
        return Repository(self.front.bearer(self.token), "ada/notes")

    @property
    def file(self) -> str:
        """Where the blob lies below the folder that nginx reads."""
        below = self.server.data / "blobs" / "blobs"
        (found,) = (path for path in below.glob("*/*") if path.stat().st_size == len(CONTENT))
        return str(found.relative_to(below))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder, port = tmp_path_factory.mktemp("behind"), free_port()
    settings = NO_LIMITS | {
        "MEMCUBE_REGISTRY_LOCAL_READS": "nginx",
        "MEMCUBE_REGISTRY_EXTERNAL_URL": f"http://127.0.0.1:{port}",
    }
    with memcube_server(folder / "server", settings) as server:
        blobs = server.data / "blobs" / "blobs"
        with nginx(folder / "nginx", [server.port], port, blobs=blobs) as running:
            server.create_account("ada")
            made = Scene(server, Wire(running.url), server.create_token("ada", *ALL_SCOPES))
            assert made.repository.put_blob(CONTENT, DIGEST).status == 201
            yield made


def test_the_blob_comes_from_nginx_with_what_the_registry_says_of_it(scene: Scene) -> None:
    reply = scene.repository.get_blob(DIGEST)
    assert (reply.status, reply.body) == (200, CONTENT)
    assert reply.header("content-type") == "application/octet-stream"
    assert reply.header("docker-content-digest") == str(DIGEST)
    assert reply.header("x-content-type-options") == "nosniff"
    assert reply.header("cache-control") == "private, max-age=31536000, immutable"
    assert reply.header("x-request-id")
    assert reply.headers.get_all("etag") == [f'"{DIGEST}"']
    assert reply.header("last-modified") is None, "of the file, which says nothing of the blob"
    assert reply.header("x-accel-redirect") is None, "nobody's business"


def test_the_registry_itself_sent_no_bytes(scene: Scene) -> None:
    reply = replace(scene.repository, wire=scene.server.wire.bearer(scene.token)).get_blob(DIGEST)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.header("x-accel-redirect") == PLACE + scene.file


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=100-199", 206, CONTENT[100:200]),
        ("bytes=299990-", 206, CONTENT[299990:]),
        ("bytes=-7", 206, CONTENT[-7:]),
        ("bytes=0-1,5-6", 200, CONTENT),
        ("bytes=300000-", 416, None),
    ],
)
def test_ranges_are_what_the_registry_makes_of_them(
    scene: Scene, wanted: str, status: int, part: bytes | None
) -> None:
    reply = scene.repository.get_blob(DIGEST, wanted)
    assert reply.status == status
    assert part is None or reply.body == part


@pytest.mark.parametrize(
    ("condition", "status"), [(f'"{DIGEST}"', 206), ('"another"', 200), ("Fri, 01 Jan 2100", 200)]
)
def test_a_range_of_other_content_is_not_sent(scene: Scene, condition: str, status: int) -> None:
    headers = {"Range": "bytes=0-9", "If-Range": condition}
    reply = scene.repository.wire.get(scene.repository.path(f"blobs/{DIGEST}"), headers=headers)
    assert (reply.status, len(reply.body)) == (status, 10 if status == 206 else len(CONTENT))


def test_no_time_of_a_file_answers_for_the_blob(scene: Scene) -> None:
    target = scene.repository.path(f"blobs/{DIGEST}")
    later = {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
    assert scene.repository.wire.get(target, headers=later).status == 200
    known = {"If-None-Match": f'"{DIGEST}"'}
    assert scene.repository.wire.get(target, headers=known).status == 304


def test_nobody_reaches_a_private_blob_but_through_the_registry(scene: Scene) -> None:
    for spelling in (
        PLACE,
        f"/v2/..{PLACE}",
        f"/{PLACE}",
        "/%2ememcube-blobs/",
        "/.memcube%2dblobs/",
        "/.MEMCUBE-BLOBS/",
        f"/v2/ada/notes/blobs/../../../..{PLACE}",
    ):
        for wire in (scene.front, scene.front.bearer(scene.token)):
            reply = wire.get(spelling + scene.file)
            assert reply.status in (400, 401, 404), spelling
            assert CONTENT[:64] not in reply.body
    stranger = scene.repository.seen_by(scene.front).get_blob(DIGEST)
    assert (stranger.status, len(stranger.body) < len(CONTENT)) == (401, True)


def test_no_request_chooses_the_file(scene: Scene) -> None:
    headers = {"X-Accel-Redirect": PLACE + scene.file, "X-Sendfile": scene.file}
    assert CONTENT[:64] not in scene.front.get("/healthz", headers=headers).body


def test_memcube_pushes_and_pulls(scene: Scene, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home", scene.front.url, scene.token)
    cube = tmp_path / "cube"
    machine.ok("init", cube, "--name", "ada/pulled")
    (cube / "attachments").mkdir()
    (cube / "attachments" / "a.wav").write_bytes(CONTENT[:5000])
    machine.ok("push", cube)
    reader = replace(machine, home=tmp_path / "reader")
    assert reader.json("pull", "ada/pulled:0.1.0")["fetchedBytes"] >= 5000
