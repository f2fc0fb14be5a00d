"""Clients that we did not write, and ours, fetch blobs from the S3 server to which the registry sends them.

A proxy before the S3 server keeps every request that came by a redirect: none carries what the registry
alone may know.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person, fresh
from support.faults import FaultyProxy, faulty_proxy
from support.folders import push_files
from support.hub_library import HubLibrary, both_versions
from support.machine import Machine
from support.repository import Repository
from support.samples import one_image
from support.servers import clean_environment, memcube_server, run
from support.swift import SwiftServer

needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
needs_oras = pytest.mark.skipif(
    not shutil.which("oras"), reason="the oras command is not installed"
)
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
CONTENT = os.urandom(300_000)


@dataclass(frozen=True)
class Scene:
    """A registry that redirects to an S3 server, a person, and what comes to the server by redirects."""

    person: Person
    led: FaultyProxy

    @property
    def host(self) -> str:
        return self.person.server.wire.netloc

    def repository(self) -> Repository:
        return self.person.repository()

    def require_reads_without_secrets(self, at_least: int = 1) -> None:
        """That blobs were fetched from the S3 server, and nobody's credentials went there."""
        assert len(self.led.seen) >= at_least
        for request in self.led.seen:
            assert request.method == "GET", "HEAD is the registry's to answer"
            assert "authorization" not in request.headers
            assert "cookie" not in request.headers
            sent = f"{request.path} {request.headers}"
            assert self.person.token not in sent
            assert "X-Amz-Signature=" in request.path


@pytest.fixture(scope="module")
def shared(s3_server: SwiftServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with faulty_proxy(s3_server.ports["proxy"]) as led:
        settings = NO_LIMITS | s3_server.registry_settings(S3_PUBLIC_URL=led.url)
        with memcube_server(tmp_path_factory.mktemp("on-s3"), settings) as server:
            server.create_account("ada")
            yield Scene(Person(server, "ada", server.create_token("ada", *ALL_SCOPES)), led)


@pytest.fixture
def scene(shared: Scene) -> Scene:
    shared.led.seen.clear()
    return shared


def test_a_get_is_redirected_and_a_head_is_not(scene: Scene) -> None:
    repository = scene.repository()
    digest = repository.add_blob(CONTENT)
    reply = repository.get_blob(digest)
    assert reply.status == 307
    assert reply.body == b""
    assert str(reply.header("Location")).startswith(f"{scene.led.url}/")
    assert reply.header("Cache-Control") == "no-store", "the URL expires"
    assert scene.person.token not in str(reply.header("Location"))
    head = repository.head_blob(digest)
    assert (head.status, head.header("Content-Length")) == (200, str(len(CONTENT)))
    assert not scene.led.seen


def test_manifests_come_from_the_registry(scene: Scene) -> None:
    repository, sample = scene.repository(), one_image()
    sample.push(repository)
    assert repository.get_manifest("v1").body == sample.manifests[sample.top]
    assert not scene.led.seen


def test_who_may_not_read_gets_no_url(scene: Scene) -> None:
    repository = scene.repository()
    digest = repository.add_blob(CONTENT)
    stranger = repository.seen_by(repository.wire.anonymous())
    reply = stranger.get_blob(digest)
    assert reply.status == 401
    assert reply.header("Location") is None


def test_a_range_outside_the_blob_is_refused_before_the_redirect(scene: Scene) -> None:
    repository = scene.repository()
    digest = repository.add_blob(b"short")
    assert repository.get_blob(digest, "bytes=9-").status == 416
    assert repository.get_blob(digest, "bytes=1-2").status == 307


@needs_curl
def test_curl_follows_with_its_range_and_without_its_credentials(scene: Scene) -> None:
    repository = scene.repository()
    digest = repository.add_blob(CONTENT)
    command = [
        "curl", "--silent", "--show-error", "--fail", "--location", "--range", "1000-1999",
        "--header", f"Authorization: Bearer {scene.person.token}",
        f"http://{scene.host}{repository.path(f'blobs/{digest}')}",
    ]  # fmt: skip
    done = run(command, text=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == CONTENT[1000:2000]  # type: ignore[comparison-overlap]
    (request,) = scene.led.seen
    assert request.headers["range"] == "bytes=1000-1999"
    scene.require_reads_without_secrets()


@needs_skopeo
def test_skopeo_follows(scene: Scene, tmp_path: Path) -> None:
    repository, sample = scene.repository(), one_image()
    sample.push(repository)
    done = run(
        [
            "skopeo", "copy", "--src-tls-verify=false", "--preserve-digests",
            f"--src-creds={scene.person.name}:{scene.person.token}",
            f"docker://{scene.host}/{repository.name}:v1", f"oci:{tmp_path}/out:v1",
        ],
        env=clean_environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for digest, content in sample.blobs.items():
        assert (tmp_path / "out" / "blobs" / "sha256" / digest.hex).read_bytes() == content
    scene.require_reads_without_secrets(at_least=len(sample.blobs))


@needs_oras
def test_the_oras_command_pushes_and_follows(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "weights.bin").write_bytes(CONTENT)
    remote = f"{scene.host}/{scene.person.name}/{fresh('oras')}:v1"
    access = ["--plain-http", "-u", scene.person.name, "-p", scene.person.token]
    environment = clean_environment(HOME=str(tmp_path))
    for command in (
        ["oras", "push", *access, remote, "weights.bin"],
        ["oras", "pull", *access, remote, "-o", str(tmp_path / "out")],
    ):
        done = run(command, cwd=tmp_path / "in", env=environment)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "weights.bin").read_bytes() == CONTENT
    scene.require_reads_without_secrets()


@pytest.mark.parametrize("backend", ["token", "basic"])
def test_the_oras_library_follows(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    oras_client = pytest.importorskip("oras.client")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    client = oras_client.OrasClient(hostname=scene.host, insecure=True, auth_backend=backend)
    config = str(tmp_path / "config.json")
    client.login(
        username=scene.person.name,
        password=scene.person.token,
        hostname=scene.host,
        tls_verify=False,
        config_path=config,
    )
    target = f"{scene.host}/{scene.person.name}/{fresh('py-oras')}:v1"
    assert client.push(target, files=["weights.bin"], config_path=config).status_code == 201
    client.pull(target, outdir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "weights.bin").read_bytes() == CONTENT
    scene.require_reads_without_secrets()


def test_our_client_publishes_follows_and_verifies(scene: Scene, tmp_path: Path) -> None:
    url = f"http://{scene.host}"
    publisher = Machine(tmp_path / "publisher", url, scene.person.token)
    reader = Machine(tmp_path / "reader", url, scene.person.token)
    name = f"{scene.person.name}/{fresh('cube')}"
    publisher.json("init", tmp_path / "cube", "--name", name)
    attachments = tmp_path / "cube" / "attachments"
    attachments.mkdir()
    (attachments / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + CONTENT)
    pushed = publisher.json("push", tmp_path / "cube")
    pulled = reader.json("pull", f"{name}:0.1.0")
    assert pulled["digest"] == pushed["digest"]
    reader.json("verify", f"{name}:0.1.0")
    reader.json("unpack", f"{name}:0.1.0", tmp_path / "out")
    picture = tmp_path / "out" / "attachments" / "picture.png"
    assert picture.read_bytes() == (attachments / "picture.png").read_bytes()
    scene.require_reads_without_secrets()


def test_a_blob_of_several_parts_comes_whole_and_in_ranges_across_them(scene: Scene) -> None:
    content = os.urandom(17 << 20)
    repository = scene.repository()
    location = repository.get_blob(repository.add_blob(content)).header("Location")
    assert location
    with urlopen(location) as answer:
        assert answer.read() == content
    boundary = 16 << 20
    edge = {"Range": f"bytes={boundary - 5}-{boundary + 4}"}
    with urlopen(Request(location, headers=edge)) as answer:
        assert answer.read() == content[boundary - 5 : boundary + 5]


@both_versions
def test_the_hubs_library_follows_and_leaves_its_token_behind(
    python: Path, scene: Scene, tmp_path: Path
) -> None:
    files = {"a.safetensors": CONTENT, "plaintext/b.jsonl.zst": os.urandom(1000)}
    made = push_files(scene.repository(), files, "latest")
    library = HubLibrary(python, scene.person.server.url, tmp_path / "hf", scene.person.token)
    done = library.hf("download", made.name, "--local-dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: (tmp_path / "out" / path).read_bytes() for path in files} == files
    scene.require_reads_without_secrets(at_least=len(files))
