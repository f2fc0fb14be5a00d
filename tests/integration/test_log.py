"""A pushed cube is in the registry's log: our verifier and cosign, with the log required, agree."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.client import Client
from memcube.publishing import publish
from memcube.publishing.attesting import attest
from memcube.remote.log import find_log
from memcube.settings import Settings
from memcube_protocol import oci
from memcube_protocol.errors import ConflictError
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing.release import PREDICATE_TYPE
from memcube_signing.transparency import bundled, checkpoint, merkle, tiles
from memcube_signing.transparency.entry import LogPolicy
from memcube_signing.transparency.tiles import Tile


@contextmanager
def machine(home: Path, person: Person) -> Iterator[Client]:
    """The client of `person` on a machine of its own."""
    environ = {
        "MEMCUBE_HOME": str(home),
        "MEMCUBE_ENDPOINT": person.server.url,
        "MEMCUBE_TOKEN": person.token,
        "MEMCUBE_KEYRING": "0",
        "MEMCUBE_KEY_UNENCRYPTED": "1",
    }
    with Client(Settings.load(environ)) as client:
        yield client


@pytest.fixture(autouse=True)
def keys_without_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")


@dataclass
class Logged:
    """One cube that `person` pushes from one machine."""

    person: Person
    folder: Path
    name: str

    def push(self, version: str, text: str = "", home: str = "publisher"):
        source = self.folder / f"source{text}" / version
        (source / "plaintext").mkdir(parents=True, exist_ok=True)
        line = f'{{"id":"r1","text":"note {version} {text}"}}\n'
        (source / "plaintext" / "notes.jsonl").write_text(line)
        with machine(self.folder / home, self.person) as client:
            return client.push(source, f"{self.name}:{version}", public=True)

    @property
    def repository(self):
        return self.person.repository(self.name.partition("/")[2])

    def bundle(self, version: str, kind: str = PREDICATE_TYPE) -> bundles.Bundle:
        digest = self.repository.get_manifest(version).headers["docker-content-digest"]
        for entry in self.repository.referrers(digest):
            manifest = oci.parse(self.repository.get_manifest(entry["digest"]).body)
            assert isinstance(manifest, oci.Manifest)
            raw = self.repository.get_blob(manifest.layers[0].digest).body
            if manifest.annotations.get("dev.sigstore.bundle.predicateType") == kind:
                return bundles.parse(raw)
        raise AssertionError(f"there is no {kind}")

    @contextmanager
    def log(self):
        with machine(self.folder / "publisher", self.person) as client:
            found = find_log(client.context.registry(""))
            assert found is not None
            yield found

    def publisher(self):
        with machine(self.folder / "publisher", self.person) as client:
            return client.context.keys.signer().key.public_key


@pytest.fixture
def cube(ada: Person, tmp_path: Path) -> Logged:
    return Logged(ada, tmp_path, f"{ada.name}/{fresh('notes')}")


def test_every_push_is_in_the_log_with_a_proof_in_its_bundle(cube):
    for version in ("1.0.0", "1.1.0"):
        cube.push(version)
    with cube.log() as log:
        for version in ("1.0.0", "1.1.0"):
            logged = bundled.verify_logged(
                cube.bundle(version), cube.publisher(), LogPolicy(log.key)
            )
            assert logged.logged_at is not None


def test_the_whole_tree_can_be_computed_anew_from_what_the_log_serves(cube):
    cube.push("1.0.0")
    with cube.log() as log:
        state = checkpoint.verify(log.checkpoint(), log.key)
        full, rest = divmod(state.size, tiles.WIDTH)
        widths = [tiles.WIDTH] * full + ([rest] if rest else [])
        leaves = [
            merkle.leaf_hash(body)
            for number, width in enumerate(widths)
            for body in tiles.parse_entries(log.tile(Tile(None, number, width, tiles.ENTRIES)))
        ]
    _, hash_at = tiles.appended(0, {}, leaves)
    assert merkle.root(state.size, hash_at) == state.root


def test_a_release_that_was_logged_and_not_finished_keeps_its_place(cube, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("memcube.publishing.publish.attach", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cube.push("1.0.0")
    cube.push("1.0.0")
    assert json.loads(cube.bundle("1.0.0").envelope.payload)["predicate"]["seq"] == 1


def test_a_logged_release_that_was_given_up_is_followed_by_the_next(cube, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("memcube.publishing.publish.attach", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cube.push("1.0.0")
    cube.push("1.0.0", "changed")
    predicate = json.loads(cube.bundle("1.0.0").envelope.payload)["predicate"]
    assert predicate["seq"] == 2
    cube.push("1.1.0")
    assert json.loads(cube.bundle("1.1.0").envelope.payload)["predicate"]["seq"] == 3


def overtaken_by(cube, monkeypatch, folder: Path, rival) -> None:
    """Let `rival` release from a second machine after the first one signs, and before it logs."""
    shutil.copytree(folder / "publisher", folder / "second")
    sign = publish._sign

    def sign_and_wait(*arguments):
        signed = sign(*arguments)
        monkeypatch.setattr(publish, "_sign", sign)
        rival()
        return signed

    monkeypatch.setattr(publish, "_sign", sign_and_wait)


def predicate_of(cube, version: str):
    return json.loads(cube.bundle(version).envelope.payload)["predicate"]


def test_of_two_machines_that_release_at_once_the_second_goes_behind_the_first(
    cube, monkeypatch, tmp_path
):
    cube.push("1.0.0")
    faster = []

    def release():
        faster.append(cube.push("1.1.0", "faster", home="second"))

    overtaken_by(cube, monkeypatch, tmp_path, release)
    slower = cube.push("1.2.0", "slower")
    assert [predicate_of(cube, version)["seq"] for version in ("1.1.0", "1.2.0")] == [2, 3]
    (before,) = faster
    assert predicate_of(cube, "1.2.0")["previous"] == str(before.cube.digest)
    with machine(tmp_path / "consumer", cube.person) as client:
        assert client.pull(cube.name).cube.digest == slower.cube.digest
        assert client.pull(f"{cube.name}:1.1.0").cube.digest == before.cube.digest


def test_of_two_machines_that_release_one_version_at_once_the_second_is_refused(
    cube, monkeypatch, tmp_path
):
    """It signs no second release of the version: that would look like a publisher who lies."""
    cube.push("1.0.0")
    overtaken_by(cube, monkeypatch, tmp_path, lambda: cube.push("1.1.0", "faster", home="second"))
    with pytest.raises(
        ConflictError, match=r"another machine has released version 1\.1\.0"
    ) as caught:
        cube.push("1.1.0", "slower")
    assert (caught.value.hint or "").startswith("a version never changes")
    with machine(tmp_path / "publisher", cube.person) as client:
        log = find_log(client.context.registry(""))
        assert log is not None
        assert [place.seq for place in log.places(cube.name)] == [1, 2]


def test_a_rival_that_gave_up_after_it_was_logged_stops_nobody(cube, monkeypatch, tmp_path):
    cube.push("1.0.0")
    monkeypatch.setattr("memcube.publishing.rivals._PAUSES_S", (0.0,))

    def give_up():
        with monkeypatch.context() as patched:
            patched.setattr(publish, "attach", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                cube.push("1.1.0", "faster", home="second")

    overtaken_by(cube, monkeypatch, tmp_path, give_up)
    cube.push("1.1.0", "slower")
    assert predicate_of(cube, "1.1.0")["seq"] == 3


@pytest.mark.skipif(not shutil.which("cosign"), reason="cosign is not installed")
def test_cosign_accepts_a_pushed_cube_with_the_log_required(cube, tmp_path):
    cube.push("1.0.0")
    wire = cube.person.wire
    root = wire.anonymous().get("/.well-known/trusted_root.json")
    (tmp_path / "root.json").write_bytes(root.body)
    (tmp_path / "key.pem").write_text(cube.publisher().to_pem())
    login = base64.b64encode(f"{cube.person.name}:{cube.person.token}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {wire.netloc: {"auth": login}}}))
    command = ["cosign", "verify-attestation", "--key=key.pem", f"--type={PREDICATE_TYPE}"]
    command += [
        "--trusted-root=root.json",
        "--allow-http-registry",
        f"{wire.netloc}/{cube.name}:1.0.0",
    ]
    environ = {
        "HOME": str(tmp_path),
        "DOCKER_CONFIG": str(tmp_path),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "transparency log" in done.stderr


def test_what_is_attested_later_is_in_the_log_too(cube):
    cube.push("1.0.0")
    with machine(cube.folder / "publisher", cube.person) as client:
        kind = "https://example.org/review/v1"
        attest(client.context, Reference.parse(f"{cube.name}:1.0.0"), kind, {"verdict": "good"})
    with cube.log() as log:
        bundle = cube.bundle("1.0.0", kind)
        assert bundled.verify_logged(bundle, cube.publisher(), LogPolicy(log.key)).index >= 1
