"""Proofs on their way: written at a real registry, verified by a process that cannot open a socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.client import Client
from memcube.settings import Settings

BLOCKED = """
import sys

def refuse(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(f"{event} on a machine without network")

sys.addaudithook(refuse)
"""


@pytest.fixture(autouse=True)
def keys_without_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")


def published(ada: Person, home: Path, name: str, *versions: str) -> tuple[Client, str]:
    """A client with the cube `name` published, and the reference of its last version."""
    settings = Settings.load(
        {
            "MEMCUBE_HOME": str(home),
            "MEMCUBE_ENDPOINT": ada.server.url,
            "MEMCUBE_TOKEN": ada.token,
            "MEMCUBE_KEYRING": "0",
        }
    )
    client = Client(settings)
    for version in versions:
        source = home / "source" / name / version / "plaintext"
        source.mkdir(parents=True)
        (source / "notes.jsonl").write_text(f'{{"id":"r1","text":"{name} {version}"}}\n')
        client.push(source.parent, f"{ada.name}/{name}:{version}", public=True)
    host = ada.server.url.partition("://")[2]
    return client, f"{host}/{ada.name}/{name}:{versions[-1]}"


class Island:
    """A machine that never had a network: only files that were carried there."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(BLOCKED)
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(
                filter(None, (str(folder / "site"), os.environ.get("PYTHONPATH", "")))
            ),
            "MEMCUBE_HOME": str(self.home),
            "MEMCUBE_KEYRING": "0",
        }

    def run(self, *arguments: str) -> tuple[int, dict]:
        done = subprocess.run(
            [sys.executable, "-c", "from memcube.cli import main; main()", *arguments, "--json"],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, json.loads(done.stdout)

    def policy(self, text: str) -> None:
        self.home.mkdir(exist_ok=True)
        (self.home / "memcube-trust.toml").write_text(f"format = 1\n{text}")


@pytest.fixture
def island(tmp_path: Path) -> Island:
    (tmp_path / "island").mkdir()
    return Island(tmp_path / "island")


def export(client: Client, reference: str, path: Path) -> Path:
    from memcube.consuming import proofs
    from memcube_protocol.reference import Reference

    proofs.export(client.context, Reference.parse(reference), path)
    return path


def outcomes(verdict: dict) -> dict[str, str]:
    return {rule["rule"]: rule["outcome"] for rule in verdict["rules"]}


def test_the_island_has_no_sockets(island):
    done = subprocess.run(
        [sys.executable, "-c", "import socket; socket.socket()"],
        env=island.environ,
        capture_output=True,
        text=True,
    )
    assert "without network" in done.stderr


def test_a_proof_is_enough_where_there_is_no_network(ada, tmp_path, island):
    client, reference = published(ada, tmp_path / "publisher", fresh("notes"), "1.0.0")
    proof = export(client, reference, tmp_path / "notes.memproof")
    code, verdict = island.run("verify", "--offline", str(proof))
    assert (code, verdict["standing"]) == (0, "first-use")
    freshness = next(rule for rule in verdict["rules"] if rule["rule"] == "freshness")
    assert "learnt 0 minutes ago" in freshness["detail"]
    assert not (island.home / "trust").exists()


def test_a_policy_on_the_island_decides(ada, tmp_path, island):
    import base64

    client, reference = published(ada, tmp_path / "publisher", fresh("notes"), "1.0.0")
    proof = export(client, reference, tmp_path / "notes.memproof")
    key = base64.b64encode(client.context.keys.entry("default").public_key.der).decode()
    scope = f'[scopes."{reference.partition("/")[0]}/{ada.name}/**"]\npublishers = '
    island.policy(f'[keys]\nada = "{key}"\n{scope}["ada"]\nmax_staleness = "1d"\n')
    assert island.run("verify", str(proof))[1]["standing"] == "trusted"
    island.policy(f"{scope}[]\n")
    code, verdict = island.run("verify", str(proof))
    assert (code, outcomes(verdict)["publisher"]) == (13, "failed")


def test_a_proof_of_another_cube_proves_nothing(ada, tmp_path, island):
    client, reference = published(ada, tmp_path / "publisher", fresh("notes"), "1.0.0", "1.1.0")
    _, other = published(ada, tmp_path / "other", fresh("other"), "1.0.0")
    proof = export(client, other, tmp_path / "other.memproof")
    code, verdict = island.run("verify", reference, "--proof", str(proof))
    assert (code, outcomes(verdict)["origin"]) == (13, "failed")
    older = export(client, reference.replace("1.1.0", "1.0.0"), tmp_path / "older.memproof")
    code, verdict = island.run("verify", reference, "--proof", str(older))
    assert (code, outcomes(verdict)["version"]) == (13, "failed")


def test_an_old_proof_is_refused_by_a_policy_that_wants_fresh_ones(ada, tmp_path, island):
    client, reference = published(ada, tmp_path / "publisher", fresh("notes"), "1.0.0")
    proof = export(client, reference, tmp_path / "notes.memproof")
    value = json.loads(proof.read_bytes())
    island.policy('[default]\nmax_staleness = "30d"\n')
    for then, reason in (
        ("2020-01-01T00:00:00Z", "stale"),
        ("2199-01-01T00:00:00Z", "clock-set-back"),
    ):
        proof.write_text(proof.read_text().replace(value["checkedAt"], then))
        value["checkedAt"] = then
        code, verdict = island.run("verify", str(proof))
        failed = [rule["reason"] for rule in verdict["rules"] if rule["outcome"] == "failed"]
        assert (code, failed) == (13, [reason])


def test_a_cube_that_was_never_published_has_no_proof(ada, tmp_path):
    from memcube_protocol.errors import MemcubeError

    client, reference = published(ada, tmp_path / "publisher", fresh("notes"), "1.0.0")
    with pytest.raises(MemcubeError):
        export(client, reference.replace("1.0.0", "9.9.9"), tmp_path / "none.memproof")
    assert not (tmp_path / "none.memproof").exists()
