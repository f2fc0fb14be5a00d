"""Our client on a registry that we did not write, and other clients on what ours has pushed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import NO_LIMITS, Person, fresh
from memcube_protocol.digest import Digest
from support.machine import Machine
from support.proxy import counting_proxy
from support.repository import Repository
from support.servers import clean_environment, free_port, memcube_server, run
from support.wire import Wire

needs_oras = pytest.mark.skipif(
    not shutil.which("oras"), reason="the oras command is not installed"
)
needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")


def files_of(folder: Path) -> dict[str, bytes]:
    """Relative path and content of every file below `folder`."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make_cube(machine: Machine, folder: Path, name: str) -> Path:
    """The folder of a small cube that packs as it is."""
    machine.json("init", folder, "--name", name)
    attachments = folder / "attachments"
    attachments.mkdir()
    (attachments / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40)
    return folder


class TestOnDockerRegistry:
    """The reference registry 2.8 has no referrers API: signatures go through the tag schema."""

    @pytest.fixture
    def publisher(self, reference_registry: str, tmp_path: Path) -> Machine:
        return Machine(tmp_path / "publisher", reference_registry)

    @pytest.fixture
    def reader(self, reference_registry: str, tmp_path: Path) -> Machine:
        return Machine(tmp_path / "reader", reference_registry)

    def test_a_cube_is_pushed_signed_pulled_and_verified(
        self, publisher: Machine, reader: Machine, tmp_path: Path
    ) -> None:
        name = f"peers/{fresh('cube')}"
        folder = make_cube(publisher, tmp_path / "cube", name)
        pushed = publisher.json("push", folder)
        pulled = reader.json("pull", f"{name}:0.1.0")
        assert pulled["digest"] == pushed["digest"]
        reader.json("verify", f"{name}:0.1.0")
        reader.json("unpack", f"{name}:0.1.0", tmp_path / "out")
        publisher.json("unpack", f"{name}:0.1.0", tmp_path / "again")
        assert files_of(tmp_path / "out") == files_of(tmp_path / "again")
        picture = tmp_path / "out" / "attachments" / "picture.png"
        assert picture.read_bytes() == (folder / "attachments" / "picture.png").read_bytes()

    def test_the_signature_is_found_through_the_referrers_tag(
        self, publisher: Machine, reference_registry: str, tmp_path: Path
    ) -> None:
        name = f"peers/{fresh('cube')}"
        pushed = publisher.json("push", make_cube(publisher, tmp_path / "cube", name))
        repository = Repository(Wire(reference_registry), name)
        fallback = repository.get_manifest(str(pushed["digest"]).replace(":", "-"))
        assert fallback.status == 200
        release_scan_and_files = 3
        assert len(fallback.json()["manifests"]) == release_scan_and_files

    def test_a_cube_without_its_signature_is_refused(
        self, publisher: Machine, reader: Machine, reference_registry: str, tmp_path: Path
    ) -> None:
        name = f"peers/{fresh('cube')}"
        pushed = publisher.json("push", make_cube(publisher, tmp_path / "cube", name))
        repository = Repository(Wire(reference_registry), name)
        fallback = repository.get_manifest(str(pushed["digest"]).replace(":", "-"))
        for digest in (Digest.of(fallback.body), fallback.json()["manifests"][0]["digest"]):
            assert repository.delete_manifest(digest).status == 202
        refused = reader.run("pull", f"{name}:0.1.0")
        assert refused.returncode == 13, refused.stderr


class TestOnOurs:
    @pytest.fixture
    def publisher(self, ada: Person, tmp_path: Path) -> Machine:
        return Machine(tmp_path / "publisher", ada.server.url, ada.token)

    @needs_oras
    def test_oras_pull_writes_the_folder_that_unpack_writes(
        self, publisher: Machine, ada: Person, tmp_path: Path
    ) -> None:
        name = f"{ada.name}/{fresh('cube')}"
        publisher.json("push", make_cube(publisher, tmp_path / "cube", name))
        publisher.json("unpack", f"{name}:0.1.0", tmp_path / "ours")
        done = run(
            [
                "oras",
                "pull",
                "--plain-http",
                "-u",
                ada.name,
                "--password-stdin",
                "-o",
                str(tmp_path / "theirs"),
                f"{ada.wire.netloc}/{name}:0.1.0",
            ],
            input=ada.token,
            env=clean_environment(HOME=str(tmp_path), DOCKER_CONFIG=str(tmp_path)),
        )
        assert done.returncode == 0, done.stderr
        assert files_of(tmp_path / "theirs") == files_of(tmp_path / "ours")

    def test_python_oras_pulls_the_same_folder(
        self, publisher: Machine, ada: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        oras_client = pytest.importorskip("oras.client")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        name = f"{ada.name}/{fresh('cube')}"
        publisher.json("push", make_cube(publisher, tmp_path / "cube", name))
        publisher.json("unpack", f"{name}:0.1.0", tmp_path / "ours")
        client = oras_client.OrasClient(hostname=ada.wire.netloc, insecure=True)
        client.login(
            username=ada.name,
            password=ada.token,
            hostname=ada.wire.netloc,
            tls_verify=False,
            config_path=str(tmp_path / "config.json"),
        )
        client.pull(f"{ada.wire.netloc}/{name}:0.1.0", outdir=str(tmp_path / "theirs"))
        assert files_of(tmp_path / "theirs") == files_of(tmp_path / "ours")

    @needs_skopeo
    def test_skopeo_mirrors_a_cube_that_our_client_then_verifies(
        self, publisher: Machine, ada: Person, reference_registry: str, tmp_path: Path
    ) -> None:
        """To another registry and on to ours: the bytes, and with them the digest, stay."""
        name = f"{ada.name}/{fresh('cube')}"
        pushed = publisher.json("push", make_cube(publisher, tmp_path / "cube", name))
        elsewhere = Wire(reference_registry).netloc
        done = run(
            [
                "skopeo",
                "copy",
                "--preserve-digests",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                "--src-creds",
                f"{ada.name}:{ada.token}",
                f"docker://{ada.wire.netloc}/{name}:0.1.0",
                f"docker://{elsewhere}/{name}:0.1.0",
            ],
        )
        assert done.returncode == 0, done.stderr
        mirror = Repository(Wire(reference_registry), name)
        got = mirror.get_manifest("0.1.0")
        assert str(Digest.of(got.body)) == pushed["digest"]


def test_an_unchanged_cube_is_pushed_with_three_requests_at_most(tmp_path: Path) -> None:
    """What a proxy sees of a second push: no blobs, and no more than one look per thing."""
    port = free_port()
    with counting_proxy(port) as counter:
        settings = NO_LIMITS | {"MEMCUBE_REGISTRY_EXTERNAL_URL": counter.url}
        with memcube_server(tmp_path / "server", settings, port=port) as server:
            server.create_account("ada")
            token = server.create_token("ada", "pull", "push")
            publisher = Machine(tmp_path / "publisher", counter.url, token)
            folder = make_cube(publisher, tmp_path / "cube", "ada/cube")
            publisher.json("push", folder)
            puts = [line for line in counter.requests if line.startswith("PUT /v2/ada/cube/man")]
            assert len(puts) == 5, "the cube, its release, scan and files, and all tags at once"
            counter.reset()
            assert publisher.json("push", folder)["unchanged"]
            assert len(counter.without_tokens()) <= 3, counter.requests
            assert counter.sent_bytes < 20_000
