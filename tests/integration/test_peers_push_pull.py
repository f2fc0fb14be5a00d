"""Clients that we did not write push to and pull from our registry, as they are.

skopeo (containers), the Python `oras` client, the `oras` command and `cosign`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Person, fresh
from support.samples import Sample, one_image
from support.servers import clean_environment, run

TYPE = "application/vnd.example.memcube.tests.v1"

needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
needs_oras = pytest.mark.skipif(
    not shutil.which("oras"), reason="the oras command is not installed"
)
needs_cosign = pytest.mark.skipif(not shutil.which("cosign"), reason="cosign is not installed")


def write_layout(folder: Path, sample: Sample, tag: str) -> None:
    """`sample` as an OCI image layout (image-spec, "Image Layout")."""
    for digest, content in (sample.blobs | sample.manifests).items():
        path = folder / "blobs" / digest.algorithm / digest.hex
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    top = sample.tags[tag]
    descriptor = {
        "mediaType": sample.media_types[top],
        "digest": str(top),
        "size": len(sample.manifests[top]),
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    index = {"schemaVersion": 2, "manifests": [descriptor]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def files_of(folder: Path) -> dict[str, bytes]:
    """Relative path and content of every file below `folder`."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make_cube_folder(folder: Path) -> dict[str, str]:
    """A few files such as a cube has; name and media type of each."""
    (folder / "plaintext").mkdir(parents=True)
    (folder / "README.md").write_text("# A cube\n")
    (folder / "plaintext" / "records.jsonl").write_bytes(b'{"id":"a","text":"hello"}\n' * 50)
    (folder / "weights.safetensors").write_bytes(os.urandom(300_000))
    (folder / "empty.txt").write_bytes(b"")
    return {
        "README.md": "text/markdown",
        "plaintext/records.jsonl": "application/jsonl",
        "weights.safetensors": "application/octet-stream",
        "empty.txt": "text/plain",
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory in which clients may keep their credentials."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@needs_skopeo
class TestSkopeo:
    @pytest.fixture
    def auth(self, home: Path, ada: Person) -> Path:
        """Credentials from `skopeo login`."""
        path = home / "auth.json"
        done = run(
            [
                "skopeo",
                "login",
                "--tls-verify=false",
                "--authfile",
                str(path),
                "--username",
                ada.name,
                "--password-stdin",
                ada.wire.netloc,
            ],
            input=ada.token,
        )
        assert done.returncode == 0, done.stderr
        return path

    def skopeo(self, auth: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = run(["skopeo", *arguments, "--authfile", str(auth)], env=clean_environment())
        assert done.returncode == 0, done.stderr
        return done

    @pytest.mark.parametrize("kind", ["image", "index"])
    def test_copies_a_layout_to_us_and_back(
        self, auth: Path, ada: Person, tmp_path: Path, kind: str
    ) -> None:
        sample = Sample()
        sample.image(tag="v1") if kind == "image" else sample.index(tag="v1")
        write_layout(tmp_path / "in", sample, "v1")
        remote = f"docker://{ada.wire.netloc}/{ada.name}/{fresh('skopeo')}:v1"
        self.skopeo(
            auth,
            "copy",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            f"oci:{tmp_path}/in:v1",
            remote,
        )
        self.skopeo(
            auth,
            "copy",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            remote,
            f"oci:{tmp_path}/out:v1",
        )
        pulled = files_of(tmp_path / "out" / "blobs")
        assert pulled == files_of(tmp_path / "in" / "blobs")

    def test_copies_between_two_repositories(self, auth: Path, ada: Person, tmp_path: Path) -> None:
        sample, source, target = one_image(), ada.repository(), ada.repository()
        sample.push(source)
        self.skopeo(
            auth,
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            f"docker://{ada.wire.netloc}/{source.name}:v1",
            f"docker://{ada.wire.netloc}/{target.name}:copy",
        )
        assert target.get_manifest("copy").body == sample.manifests[sample.top]

    def test_inspects_lists_and_deletes(self, auth: Path, ada: Person) -> None:
        repository, sample = ada.repository(), one_image()
        sample.push(repository)
        name = f"docker://{ada.wire.netloc}/{repository.name}"
        inspected = self.skopeo(auth, "inspect", "--tls-verify=false", f"{name}:v1")
        assert json.loads(inspected.stdout)["Digest"] == str(sample.top)
        listed = self.skopeo(auth, "list-tags", "--tls-verify=false", name)
        assert json.loads(listed.stdout)["Tags"] == ["v1"]
        self.skopeo(auth, "delete", "--tls-verify=false", f"{name}:v1")
        assert repository.get_manifest("v1").status == 404

    def test_without_a_login_sees_no_private_cube(self, ada: Person, home: Path) -> None:
        repository = ada.repository()
        one_image().push(repository)
        done = run(
            [
                "skopeo",
                "inspect",
                "--tls-verify=false",
                "--no-creds",
                f"docker://{ada.wire.netloc}/{repository.name}:v1",
            ],
            env=clean_environment(HOME=str(home), XDG_RUNTIME_DIR=str(home)),
        )
        assert done.returncode != 0

    def test_login_with_a_wrong_token_fails(self, ada: Person, home: Path) -> None:
        done = run(
            [
                "skopeo",
                "login",
                "--tls-verify=false",
                "--authfile",
                str(home / "a.json"),
                "--username",
                ada.name,
                "--password",
                "wrong",
                ada.wire.netloc,
            ],
        )
        assert done.returncode != 0


class TestPythonOras:
    @pytest.fixture
    def home_here(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("DOCKER_CONFIG", str(home / ".docker"))
        return home

    @pytest.mark.parametrize("backend", ["token", "basic"])
    @pytest.mark.parametrize("chunked", [False, True])
    def test_pushes_and_pulls_the_same_folder(
        self,
        home_here: Path,
        ada: Person,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        backend: str,
        chunked: bool,
    ) -> None:
        oras_client = pytest.importorskip("oras.client")
        folder = tmp_path / "in"
        folder.mkdir()
        for name in ("a.txt", "b.bin"):
            (folder / name).write_bytes(os.urandom(70_000))
        monkeypatch.chdir(folder)
        client = oras_client.OrasClient(
            hostname=ada.wire.netloc, insecure=True, auth_backend=backend
        )
        client.login(
            username=ada.name,
            password=ada.token,
            hostname=ada.wire.netloc,
            tls_verify=False,
            config_path=str(home_here / "config.json"),
        )
        target = f"{ada.wire.netloc}/{ada.name}/{fresh('py-oras')}:v1"
        pushed = client.push(
            target,
            files=["a.txt:text/plain", "b.bin"],
            do_chunked=chunked,
            chunk_size=16384,
            config_path=str(home_here / "config.json"),
        )
        assert pushed.status_code == 201
        client.pull(target, outdir=str(tmp_path / "out"))
        assert files_of(tmp_path / "out") == files_of(folder)


@dataclass(frozen=True)
class Oras:
    """Runs `oras` with its credentials in `config`, by default in `folder`."""

    config: str
    folder: Path

    def __call__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        typed: str = "",
        flags: Sequence[str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        if flags is None:
            flags = ["--plain-http", "--registry-config", self.config]
        environment = clean_environment(HOME=str(self.folder))
        done = run(
            ["oras", *arguments, *flags], cwd=cwd or self.folder, env=environment, input=typed
        )
        assert done.returncode == 0, done.stderr
        return done


@needs_oras
class TestOrasCommand:
    @pytest.fixture
    def oras(self, home: Path, ada: Person, tmp_path: Path) -> Oras:
        """The `oras` command, logged in."""
        oras = Oras(str(home / "oras.json"), tmp_path)
        oras("login", ada.wire.netloc, "-u", ada.name, "--password-stdin", typed=ada.token)
        return oras

    def test_pull_writes_the_folder_that_was_pushed(
        self, oras: Oras, ada: Person, tmp_path: Path
    ) -> None:
        types = make_cube_folder(tmp_path / "in")
        remote = f"{ada.wire.netloc}/{ada.name}/{fresh('oras')}:v1"
        files = [f"{name}:{media_type}" for name, media_type in types.items()]
        oras("push", remote, "--artifact-type", TYPE, *files, cwd=tmp_path / "in")
        oras("pull", remote, "-o", str(tmp_path / "out"))
        assert files_of(tmp_path / "out") == files_of(tmp_path / "in")

    def test_attaches_and_discovers_referrers(
        self, oras: Oras, ada: Person, tmp_path: Path
    ) -> None:
        repository, sample = ada.repository(), one_image()
        sample.push(repository)
        (tmp_path / "note.txt").write_text("signed, somebody")
        remote = f"{ada.wire.netloc}/{repository.name}"
        oras("attach", f"{remote}:v1", "--artifact-type", TYPE, "note.txt:text/plain")
        found = json.loads(oras("discover", f"{remote}:v1", "--format", "json").stdout)
        entries = found.get("referrers") or found["manifests"]
        assert [entry["artifactType"] for entry in entries] == [TYPE]
        assert repository.tags() == ["v1"], "the referrers API was used, not the fallback tag"

    def test_copies_with_referrers_and_mounts(self, oras: Oras, ada: Person) -> None:
        source, target, sample = ada.repository(), ada.repository(), Sample()
        subject = sample.index(tag="v1")
        sample.artifact(subject=subject)
        sample.push(source)
        host = ada.wire.netloc
        flags = [
            "--from-plain-http",
            "--to-plain-http",
            *("--from-registry-config", oras.config, "--to-registry-config", oras.config),
        ]
        oras("cp", "-r", f"{host}/{source.name}:v1", f"{host}/{target.name}:v2", flags=flags)
        for digest, content in sample.manifests.items():
            assert target.get_manifest(digest).body == content
        assert len(target.referrers(subject["digest"])) == 1

    def test_lists_resolves_tags_and_deletes(self, oras: Oras, ada: Person) -> None:
        repository, sample = ada.repository(), one_image()
        sample.push(repository)
        remote = f"{ada.wire.netloc}/{repository.name}"
        assert oras("repo", "tags", remote).stdout.split() == ["v1"]
        assert oras("resolve", f"{remote}:v1").stdout.strip() == str(sample.top)
        oras("tag", f"{remote}:v1", "v2", "latest")
        assert repository.tags() == ["latest", "v1", "v2"]
        fetched = oras("manifest", "fetch", f"{remote}@{sample.top}").stdout
        assert hashlib.sha256(fetched.encode()).hexdigest() == sample.top.hex
        oras("manifest", "delete", "-f", f"{remote}:v1")
        assert repository.get_manifest(sample.top).status == 404


@needs_cosign
class TestCosign:
    @pytest.fixture
    def keys(self, tmp_path: Path) -> Path:
        done = run(
            ["cosign", "generate-key-pair"], cwd=tmp_path, env=clean_environment(COSIGN_PASSWORD="")
        )
        assert done.returncode == 0, done.stderr
        return tmp_path

    def test_signs_and_verifies_a_cube_of_ours(self, keys: Path, ada: Person, home: Path) -> None:
        repository, sample = ada.repository(), one_image()
        sample.push(repository)
        environment = clean_environment(
            COSIGN_PASSWORD="", HOME=str(home), DOCKER_CONFIG=str(home / ".docker")
        )
        login = run(
            ["cosign", "login", ada.wire.netloc, "-u", ada.name, "-p", ada.token], env=environment
        )
        assert login.returncode == 0, login.stderr
        remote = f"{ada.wire.netloc}/{repository.name}@{sample.top}"
        signed = run(
            [
                "cosign",
                "sign",
                "--key",
                str(keys / "cosign.key"),
                "--tlog-upload=false",
                "--use-signing-config=false",
                "--allow-http-registry",
                "--yes",
                remote,
            ],
            env=environment,
        )
        assert signed.returncode == 0, signed.stderr
        verified = run(
            [
                "cosign",
                "verify",
                "--key",
                str(keys / "cosign.pub"),
                "--insecure-ignore-tlog=true",
                "--allow-http-registry",
                remote,
            ],
            env=environment,
        )
        assert verified.returncode == 0, verified.stderr
        assert str(sample.top) in verified.stdout
