"""A real registry countersigns what is pushed to it: clients, cosign, proofs and killed servers agree."""

from __future__ import annotations

import base64
import json
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person, fresh
from memcube.client import Client
from memcube.consuming import proofs
from memcube.remote.log import find_log
from memcube.trust import Outcome
from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError, SigningKeyError
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.keys import Algorithm, PrivateKey
from memcube_signing.predicates import countersignature, verify
from memcube_signing.predicates.countersignature import PREDICATE_TYPE
from memcube_signing.release import PREDICATE_TYPE as RELEASE
from memcube_signing.transparency.bundled import verify_logged
from memcube_signing.transparency.entry import LogPolicy
from support.machine import Machine, client_on
from support.servers import MemcubeServer, memcube_server

SETTLED_S = 20.0


@pytest.fixture(autouse=True)
def keys_without_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")


def source(folder: Path, name: str, version: str) -> Path:
    made = folder / "source" / name / version
    (made / "plaintext").mkdir(parents=True, exist_ok=True)
    line = f'{{"id":"r1","text":"{name} {version}"}}\n'
    (made / "plaintext" / "notes.jsonl").write_text(line)
    return made


def push(client: Client, folder: Path, name: str, version: str = "1.0.0") -> str:
    client.push(source(folder, name, version), f"{name}:{version}", public=True)
    return f"{name}:{version}"


def attached(person: Person, name: str, subject: str, kind: str) -> list[oci.Manifest]:
    """The referrers of a kind, as the registry lists them."""
    repository = person.repository(name.partition("/")[2])
    manifests = [
        oci.parse_manifest(repository.get_manifest(one["digest"]).body)
        for one in repository.referrers(subject)
    ]
    return [one for one in manifests if referrer.read(one).predicate_type == kind]


def bundle_of(person: Person, name: str, manifest: oci.Manifest) -> bundles.Bundle:
    repository = person.repository(name.partition("/")[2])
    return bundles.parse(repository.get_blob(manifest.layers[0].digest).body)


def rule(verdict: Any, name: str = "countersignature") -> Any:
    return next(one for one in verdict.rules if one.rule == name)


@pytest.fixture(scope="module")
def cube(
    new_person: Callable[[], Person], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Person, str, Path]:
    """A pushed cube, its name, and the folder of its publisher, whose first key signed it."""
    ada = new_person()
    folder, name = tmp_path_factory.mktemp("countersigned"), f"{ada.name}/{fresh('notes')}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")
        with client_on(folder / "home", ada) as client:
            push(client, folder, name)
    return ada, name, folder


def test_whoever_resolves_the_tag_finds_it(cube, bob, tmp_path):
    ada, name, _ = cube
    with client_on(tmp_path, bob) as client:
        verified = client.pull(f"{name}:1.0.0")
        assert rule(verified.verdict).outcome is Outcome.PASSED
        (claim,) = [
            one
            for one in client.statements(f"{name}:1.0.0", verified.verdict)
            if one.name == "countersignature"
        ]
        assert claim.why is None
        found = find_log(client.context.registry(""))
        assert found is not None
        assert claim.key == found.registry_key
        assert claim.value.verifier == ada.server.url


def test_it_names_the_bundle_of_the_release_and_is_logged_after_it(cube):
    ada, name, folder = cube
    digest = str(
        ada.repository(name.partition("/")[2])
        .get_manifest("1.0.0")
        .headers["docker-content-digest"]
    )
    (release,) = attached(ada, name, digest, RELEASE)
    (summary,) = attached(ada, name, digest, PREDICATE_TYPE)
    with client_on(folder / "home", ada) as client:
        log = find_log(client.context.registry(""))
    assert log is not None
    assert log.registry_key is not None
    bundle = bundle_of(ada, name, summary)
    said = verify(
        bundle.raw, countersignature.KIND, keys=[log.registry_key], subject=Digest.parse(digest)
    ).value
    assert said.inputs == (release.layers[0].digest,)
    index = int(bundle_of(ada, name, release).log_entries[0]["logIndex"])
    assert said.log is not None
    assert said.log.index == index
    assert verify_logged(bundle, log.registry_key, LogPolicy(log.key)).index > index


def test_the_commands_show_it(cube, tmp_path):
    ada, name, _ = cube
    machine = Machine(tmp_path / "home", ada.server.url, ada.token)
    machine.ok("pull", f"{name}:1.0.0")
    assert "verified this release at" in machine.ok("verify", f"{name}:1.0.0")
    assert "countersignature: http" in machine.ok("provenance", f"{name}:1.0.0")
    told = machine.json("policy", "explain", f"{name}:1.0.0")
    assert told["terms"]["countersignature"] == "offered"


class TestPolicy:
    def place(self, folder: Path, person: Person, key: str, more: str = "") -> Machine:
        machine = Machine(folder / "home", person.server.url, person.token)
        machine.home.mkdir(parents=True)
        host = person.server.url.partition("://")[2]
        policy = f'format = 1\n[default]\ncountersignature = "required"\n{more}'
        policy += f'[registries]\n"{host}" = """\n{key}"""\n'
        (machine.home / "memcube-trust.toml").write_text(policy)
        return machine

    def test_with_the_key_that_the_registry_serves_the_cube_passes(self, cube, tmp_path):
        ada, name, _ = cube
        pem = ada.wire.anonymous().get("/.well-known/memcube-registry.pem").body.decode()
        self.place(tmp_path, ada, pem).ok("pull", f"{name}:1.0.0")

    def test_with_another_key_it_is_refused_with_the_reason(self, cube, tmp_path):
        ada, name, _ = cube
        machine = self.place(tmp_path, ada, PrivateKey.generate().public_key.to_pem())
        assert "countersignature does not count" in machine.fails(13, "pull", f"{name}:1.0.0")

    def test_a_proof_carries_it_to_where_there_is_no_network(self, cube, tmp_path):
        ada, name, folder = cube
        host = ada.server.url.partition("://")[2]
        with client_on(folder / "home", ada) as client:
            proof = tmp_path / "notes.memproof"
            proofs.export(client.context, Reference.parse(f"{host}/{name}:1.0.0"), proof)
        wire = ada.wire.anonymous()
        pem = wire.get("/.well-known/memcube-registry.pem").body.decode()
        log = json.loads(wire.get("/.well-known/memcube.json").body)["features"]["log"]["key"]
        machine = self.place(tmp_path, ada, pem)
        policy = machine.home / "memcube-trust.toml"
        policy.write_text(f'{policy.read_text()}[logs]\n"{host}" = "{log}"\n')
        machine.url, machine.token = "http://127.0.0.1:9", None
        verdict = machine.json("verify", "--offline", proof)
        outcomes = {one["rule"]: one["outcome"] for one in verdict["rules"]}
        assert (outcomes["log"], outcomes["countersignature"]) == ("passed", "passed")


@pytest.mark.skipif(not shutil.which("cosign"), reason="cosign is not installed")
def test_cosign_accepts_it_with_the_log_required(cube, tmp_path):
    ada, name, _ = cube
    wire = ada.wire
    for path, file in (("memcube-registry.pem", "key.pem"), ("trusted_root.json", "root.json")):
        (tmp_path / file).write_bytes(wire.anonymous().get(f"/.well-known/{path}").body)
    login = base64.b64encode(f"{ada.name}:{ada.token}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {wire.netloc: {"auth": login}}}))
    command = ["cosign", "verify-attestation", "--key=key.pem", f"--type={PREDICATE_TYPE}"]
    command += ["--trusted-root=root.json", "--allow-http-registry", f"{wire.netloc}/{name}:1.0.0"]
    paths = "/usr/local/bin:/usr/bin:/bin"
    environ = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path), "PATH": paths}
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "transparency log" in done.stderr


def test_a_release_that_no_log_can_hold_is_not_published(ada, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMCUBE_KEY_PASSPHRASE", "correct horse")
    name = f"{ada.name}/{fresh('notes')}"
    keys = tmp_path / "home" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    key = PrivateKey.generate(Algorithm.ED25519)
    secret = key.to_encrypted_pem("correct horse", bytes(range(32)))
    for suffix, text in (("pem", secret), ("pub", key.public_key.to_pem())):
        (keys / f"default.{suffix}").write_text(text)
        (keys / f"default.{suffix}").chmod(0o600)
    with client_on(tmp_path / "home", ada) as client:
        with pytest.raises(SigningKeyError) as caught:
            push(client, tmp_path, name)
        assert "memcube keys generate" in str(caught.value.hint)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[MemcubeServer, Person]]:
    """A registry that may be killed, and somebody with an account."""
    settings = NO_LIMITS | {"MEMCUBE_REGISTRY_JOB_LEASE_S": "2"}
    with memcube_server(tmp_path / "server", settings) as server:
        server.create_account("eve")
        yield server, Person(server, "eve", server.create_token("eve", *ALL_SCOPES))


def settled(person: Person, name: str, subject: str) -> list[oci.Manifest]:
    """The countersignatures of a cube, once a server that has just started had time for them."""
    deadline_s = time.monotonic() + SETTLED_S
    while not (found := attached(person, name, subject, PREDICATE_TYPE)):
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.1)
    return found


def database(server: MemcubeServer, statement: str) -> list[Any]:
    with sqlite3.connect(server.data / "registry.db") as connection:
        rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def test_what_a_crash_left_undone_is_made_at_the_next_start_with_the_same_words(own, tmp_path):
    server, eve = own
    name = f"eve/{fresh('notes')}"
    with client_on(tmp_path / "home", eve) as client:
        push(client, tmp_path, name)
    repository = eve.repository(name.partition("/")[2])
    subject = repository.get_manifest("1.0.0").headers["docker-content-digest"]
    (before,) = attached(eve, name, subject, PREDICATE_TYPE)
    words = bundle_of(eve, name, before).envelope
    # As a crash leaves it between what was logged and what is shown.
    assert repository.delete_manifest(before.digest).status == 202
    server.kill()
    key = database(server, "SELECT repository_id, referrer FROM countersigning")[0]
    database(server, "UPDATE countersigning SET made = NULL")
    columns = (
        "kind, subject, payload, state, wanted, attempts, due_at, lease, leased_until, created_at"
    )
    moment = "'2030-01-01 00:00:00.000000'"
    leased = f"'running', 1, 1, {moment}, 'killed', {moment}, {moment}"
    subject_of = f"{key[0]} {key[1]}"
    database(
        server,
        f"INSERT INTO job ({columns}) VALUES ('countersign', '{subject_of}', '{{}}', {leased})",
    )
    server.start()
    (after,) = settled(eve, name, subject)
    assert bundle_of(eve, name, after).envelope == words
    logged = database(server, "SELECT count(*), count(DISTINCT statement) FROM log_entry")
    assert logged[0][0] == logged[0][1]


@pytest.mark.timeout(300)
def test_a_server_that_is_killed_while_people_push_countersigns_each_release_once(own, tmp_path):
    server, eve = own
    names = [f"eve/{fresh('notes')}" for _ in range(9)]

    pushed = threading.Event()

    def publish(portion: list[str]) -> None:
        with client_on(tmp_path / "home", eve) as client:
            for name in portion:
                with suppress(MemcubeError):
                    push(client, tmp_path, name)
                    pushed.set()

    with client_on(tmp_path / "home", eve) as client:
        push(client, tmp_path, f"eve/{fresh('first')}")
    for round_of in range(3):
        worker = threading.Thread(target=publish, args=(names[round_of * 3 : round_of * 3 + 3],))
        pushed.clear()
        worker.start()
        assert pushed.wait(100)
        time.sleep(random.uniform(0, 1.5))
        server.kill()
        server.start()
        worker.join()
    releases = 0
    for name in names:
        repository = eve.repository(name.partition("/")[2])
        listed = repository.get_manifest("1.0.0")
        if listed.status != 200:
            continue  # it was cut off before its tag: nobody resolves it
        subject = listed.headers["docker-content-digest"]
        found = attached(eve, name, subject, RELEASE)
        releases += len(found)
        assert len(settled(eve, name, subject)) == len(found), name
    assert releases
