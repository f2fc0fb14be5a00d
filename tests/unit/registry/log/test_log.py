"""The log over HTTP in this process: submit, prove, show, refuse, and keep private what is private."""

import base64
import hashlib
import hmac
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from memcube_registry.app import create_app
from memcube_registry.settings import Settings
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PrivateKey
from memcube_signing.release import PREDICATE_TYPE, Release, sign_release
from memcube_signing.transparency import bundled, checkpoint, merkle, tiles
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import LogPolicy, TlogEntry
from support.signing import ALICE, EDDIE, MALLORY, manifest, next_release, release

NAME = "alice/notes"


@dataclass
class Registry:
    """The application with one person who may push, and one who is a stranger."""

    client: TestClient[Any]
    token: str
    stranger: str

    def submit(self, bundle: Bundle, key: PrivateKey = ALICE, **changes: Any) -> Any:
        body = {
            "repository": NAME,
            "envelope": bundle.envelope.to_json(),
            "publicKey": base64.b64encode(key.public_key.der).decode(),
        } | changes
        return self.post(body)

    def post(self, body: Any, token: str | None = None) -> Any:
        headers = {"authorization": f"Bearer {token or self.token}"}
        return self.client.post("/api/v1/log/entries", json=body, headers=headers)

    def log(self, *releases: Release) -> list[TlogEntry]:
        answers = [self.submit(sign_release(one, ALICE)) for one in releases]
        assert [answer.status_code for answer in answers] == [201] * len(answers), answers[0].text
        return [TlogEntry.from_json(answer.json()) for answer in answers]

    def get(self, path: str, token: str | None = None) -> Any:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self.client.get(path, headers=headers)

    @property
    def key(self) -> NoteKey:
        return NoteKey.parse(self.get("/.well-known/memcube.json").json()["features"]["log"]["key"])

    def publish(self, visibility: str) -> None:
        answer = self.client.put(
            f"/api/v1/cubes/{NAME}",
            json={"visibility": visibility},
            headers={"authorization": f"Bearer {self.token}"},
        )
        assert answer.status_code == 200, answer.text


@pytest.fixture
def registry(tmp_path: Path, database_url: str, new_account, new_token) -> Iterator[Registry]:
    settings = Settings(
        data_dir=tmp_path,
        database_url=database_url,
        external_url="https://registry.example",
        log_level="error",
    )
    token, stranger = new_token(new_account("alice")), new_token(new_account("bob"))
    with TestClient(create_app(settings)) as client:
        made = Registry(client, token, stranger)
        made.publish("private")
        yield made


def many(count: int) -> list[Release]:
    releases = [release()]
    while len(releases) < count:
        releases.append(next_release(releases[-1], str(len(releases))))
    return releases


def test_a_logged_release_carries_a_proof_that_the_verifier_accepts(registry: Registry) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    for number, one in enumerate(many(3)):
        bundle = sign_release(one, ALICE)
        entry = TlogEntry.from_json(registry.submit(bundle).json())
        bundle = bundled.attach(bundle, [entry])
        logged = bundled.verify_logged(bundle, ALICE.public_key, LogPolicy(registry.key))
        assert (logged.index, logged.checkpoint.size) == (number, number + 1)
        assert logged.logged_at is not None
        assert before <= logged.logged_at <= datetime.now(UTC)


def test_the_same_statement_again_has_the_entry_that_it_had(registry: Registry) -> None:
    first, _, again = registry.log(release(), many(2)[1], release())
    assert (again.index, again.body) == (first.index, first.body)
    assert again.checkpoint.checkpoint.size == 2


def test_two_manifests_never_have_one_place_in_a_history(registry: Registry) -> None:
    registry.log(release())
    other = release(subject=manifest("two").digest, version="1.0.1")
    answer = registry.submit(sign_release(other, ALICE))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    registry.log(release(created_at=datetime(2026, 3, 1, tzinfo=UTC)))
    named = {"authorization": f"Bearer {registry.token}"}
    places = registry.client.get(f"/api/v1/log/releases/{NAME}", headers=named).json()
    assert [(place["seq"], place["manifest"]) for place in places] == [(1, str(manifest().digest))]


def test_another_key_begins_another_history(registry: Registry) -> None:
    registry.log(release())
    other = release(MALLORY, subject=manifest("two").digest)
    assert registry.submit(sign_release(other, MALLORY), MALLORY).status_code == 201


@pytest.mark.parametrize(
    ("bundle", "changes", "status"),
    [
        (sign_release(release(), ALICE), {"repository": "bob/notes"}, 400),
        (sign_release(release(origin="registry.example/bob/notes"), ALICE), {}, 400),
        (
            sign_release(release(EDDIE), EDDIE),
            {"publicKey": base64.b64encode(EDDIE.public_key.der).decode()},
            400,
        ),
        (
            sign_release(release(), ALICE),
            {"publicKey": base64.b64encode(MALLORY.public_key.der).decode()},
            422,
        ),
        (sign_release(release(), ALICE), {"publicKey": "AAAA"}, 400),
        (sign_release(release(), ALICE), {"publicKey": 1}, 400),
        (sign_release(release(), ALICE), {"more": 1}, 400),
        (sign_release(release(), ALICE), {"envelope": None}, 400),
    ],
    ids=[
        "other repository",
        "other origin",
        "ed25519",
        "other key",
        "no key",
        "number",
        "more",
        "no envelope",
    ],
)
def test_what_is_not_well_signed_about_the_callers_cube_is_not_logged(
    registry: Registry, bundle: Bundle, changes: dict[str, Any], status: int
) -> None:
    answer = registry.submit(bundle, **changes)
    assert answer.status_code == status, answer.text
    assert checkpoint.parse(registry.get("/log/checkpoint").text).checkpoint.size == 0


def test_only_who_may_push_may_log(registry: Registry) -> None:
    bundle = sign_release(release(), ALICE)
    body = {
        "repository": NAME,
        "envelope": bundle.envelope.to_json(),
        "publicKey": base64.b64encode(ALICE.public_key.der).decode(),
    }
    assert registry.post(body, registry.stranger).status_code == 403
    assert registry.client.post("/api/v1/log/entries", json=body).status_code == 401


def test_tiles_and_entries_give_the_tree_of_the_checkpoint(registry: Registry) -> None:
    entries = registry.log(*many(5))
    answer = registry.get("/log/checkpoint")
    note = checkpoint.parse(answer.text)
    state = checkpoint.verify(note, registry.key)
    assert checkpoint.cosignatures(note, [registry.key.cosigner])
    bodies = tiles.parse_entries(registry.get("/log/tile/entries/000.p/5").content)
    assert [entry.body for entry in entries] == list(bodies)
    tile = registry.get("/log/tile/0/000.p/5")
    assert tile.content == b"".join(map(merkle.leaf_hash, bodies))
    assert "immutable" in tile.headers["cache-control"]
    hash_at = tiles.reader(5, lambda level, number: tile.content)
    assert merkle.root(5, hash_at) == state.root
    old = entries[1].checkpoint.checkpoint
    proof = merkle.consistency_proof(2, 5, hash_at)
    merkle.verify_consistency(2, old.root, 5, state.root, proof)


@pytest.mark.parametrize("path", ["0/000", "0/000.p/3", "1/000", "entries/001", "names/000.p/9"])
def test_tiles_that_are_not_there_yet_are_absent(registry: Registry, path: str) -> None:
    registry.log(*many(2))
    assert registry.get(f"/log/tile/{path}").status_code == 404
    assert registry.get("/log/tile/0/000.p/1").status_code == 200


@pytest.mark.parametrize("path", ["0/0", "9/000", "entries/x000/001", "0/000.p/0"])
def test_paths_that_name_no_tile_are_refused(registry: Registry, path: str) -> None:
    assert registry.get(f"/log/tile/{path}").status_code == 400


def test_an_entry_is_proved_anew_against_a_grown_log(registry: Registry) -> None:
    first, *_ = registry.log(*many(4))
    again = registry.get(f"/api/v1/log/entries/{first.leaf_hash.hex()}").json()
    bundle = bundled.attach(sign_release(release(), ALICE), [TlogEntry.from_json(again)])
    logged = bundled.verify_logged(bundle, ALICE.public_key, LogPolicy(registry.key))
    assert logged.checkpoint.size == 4
    assert registry.get(f"/api/v1/log/entries/{'0' * 64}").status_code == 404
    assert registry.get("/api/v1/log/entries/nothing").status_code == 400


def test_a_private_preimage_is_shown_to_its_people_only(registry: Registry) -> None:
    registry.log(release())
    envelope = sign_release(release(), ALICE).envelope
    path = f"/api/v1/log/preimages/{hashlib.sha256(envelope.signed).hexdigest()}"
    assert registry.get(path).status_code == 404
    assert registry.get(path, registry.stranger).status_code == 404
    assert registry.get(path, registry.token).json()["envelope"] == envelope.to_json()
    registry.publish("public")
    assert registry.get(path).json()["repository"] == NAME


def test_the_log_holds_no_name_and_its_people_recognise_their_entries(registry: Registry) -> None:
    (entry,) = registry.log(release())
    shown = [
        registry.get(f"/log/{path}").content
        for path in ("checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1", "tile/names/000.p/1")
    ]
    assert not any(word in content for content in shown for word in (b"alice", b"notes"))
    assert registry.get("/api/v1/log/namespaces/alice").status_code == 404
    assert registry.get("/api/v1/log/namespaces/alice", registry.stranger).status_code == 404
    key = bytes.fromhex(registry.get("/api/v1/log/namespaces/alice", registry.token).json()["key"])
    assert shown[3] == hmac.new(key, entry.leaf_hash, hashlib.sha256).digest()


@pytest.mark.skipif(not shutil.which("cosign"), reason="cosign is not installed")
class TestCosign:
    def verify(self, folder: Path, bundle: Bundle, root: Any) -> Any:
        (folder / "bundle.json").write_bytes(bundle.raw)
        (folder / "root.json").write_text(json.dumps(root))
        (folder / "key.pem").write_text(ALICE.public_key.to_pem())
        (folder / "manifest.json").write_bytes(manifest().raw)
        command = ["cosign", "verify-blob-attestation", "--bundle=bundle.json", "--key=key.pem"]
        command += [f"--type={PREDICATE_TYPE}", "--trusted-root=root.json", "manifest.json"]
        environ = {"HOME": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        return subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60
        )

    def test_accepts_our_bundle_with_the_log_required(self, registry, tmp_path):
        others = many(9)[1:]
        registry.log(*others[:5])
        (entry,) = registry.log(release())
        root = registry.get("/.well-known/trusted_root.json").json()
        bundle = bundled.attach(sign_release(release(), ALICE), [entry])
        done = self.verify(tmp_path, bundle, root)
        assert done.returncode == 0, done.stderr

    def test_refuses_without_an_entry_and_with_anothers(self, registry, tmp_path):
        registry.log(release())
        (other,) = registry.log(many(2)[1])
        root = registry.get("/.well-known/trusted_root.json").json()
        bundle = sign_release(release(), ALICE)
        assert self.verify(tmp_path, bundle, root).returncode != 0
        assert self.verify(tmp_path, bundled.attach(bundle, [other]), root).returncode != 0
