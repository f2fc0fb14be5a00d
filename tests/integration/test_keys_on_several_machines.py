"""An organisation whose keys lie on different machines: it changes its keys and releases together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, Person
from memcube_protocol.errors import EXIT_CONFLICT, EXIT_NOT_FOUND, EXIT_TRUST
from support.machine import Machine

NOWHERE = "http://127.0.0.1:9"


class Organisation:
    """One account; each of its people has a machine with a home, a token and a key of their own."""

    def __init__(self, person: Person, reader: Person, folder: Path) -> None:
        self.person, self.name, self.folder = person, person.name, folder
        self.reader = Machine(folder / "reader", reader.server.url, reader.token)
        self.machines: dict[str, Machine] = {}

    def machine(self, who: str) -> Machine:
        if who not in self.machines:
            token = self.person.server.create_token(self.name, *ALL_SCOPES)
            made = Machine(self.folder / who, self.person.server.url, token)
            made.ok("keys", "generate")
            self.machines[who] = made
        return self.machines[who]

    def pem(self, who: str) -> Path:
        path = self.folder / f"{who}.pub"
        path.write_text(self.machine(who).ok("keys", "export"))
        return path

    def key_id(self, who: str) -> str:
        return self.machine(who).json("keys", "export")["id"]

    def proposal(self, by: str, act: str, *arguments: str | Path) -> Path:
        path = self.folder / f"{act}.keys"
        self.machine(by).ok("keys", act, self.name, *arguments, "--output", path)
        return path

    def announce(self, *people: str, threshold: int, more: tuple[str | Path, ...] = ()) -> None:
        to = [word for who in people for word in ("--to", self.pem(who))]
        path = self.proposal(people[0], "announce", *to, "--threshold", str(threshold), *more)
        for who in people[:threshold]:
            self.machine(who).ok("keys", "sign", path)
        self.machine(people[-1]).ok("keys", "publish", path)

    def push(self, who: str, version: str) -> dict[str, object]:
        source = self.folder / "source"
        (source / "plaintext").mkdir(parents=True, exist_ok=True)
        (source / "plaintext" / "notes.jsonl").write_text(f'{{"id":"r1","text":"{version}"}}\n')
        return self.machine(who).json("push", source, f"{self.name}/notes:{version}", "--public")

    def seq(self) -> int:
        history = self.reader.json("keys", "history", self.name)
        return history["documents"][-1]["seq"]


@pytest.fixture
def acme(new_person, bob: Person, tmp_path: Path) -> Organisation:
    return Organisation(new_person(), bob, tmp_path)


def test_two_of_three_on_three_machines_begin_a_chain_and_release(acme) -> None:
    acme.announce("ann", "ben", "cleo", threshold=2)
    pushed = acme.push("ann", "1.0.0")
    assert (pushed["tags"], pushed["lacking"]) == ([], 1)
    by_digest = f"{acme.name}/notes@{pushed['digest']}"
    assert acme.reader.run("pull", by_digest).returncode == EXIT_TRUST
    done = acme.machine("cleo").json("cosign", by_digest)
    assert (done["lacking"], done["tags"]) == (0, ["1.0.0", "1.0", "1", "latest"])
    assert done["keyId"] == acme.key_id("cleo")
    assert acme.reader.json("pull", f"{acme.name}/notes")["digest"] == pushed["digest"]
    # Whoever releases next counts on from what the others released.
    second = acme.push("ben", "1.1.0")
    acme.machine("ann").ok("cosign", f"{acme.name}/notes@{second['digest']}")
    assert acme.reader.json("pull", f"{acme.name}/notes")["digest"] == second["digest"]


def test_one_signature_publishes_nothing(acme) -> None:
    to = ("--to", acme.pem("ann"), "--to", acme.pem("ben"), "--threshold", "2")
    path = acme.proposal("ann", "announce", *to)
    told = acme.machine("ann").json("keys", "sign", path)
    assert (told["complete"], told["signedBy"]) == (False, [acme.key_id("ann")])
    assert acme.machine("ann").run("keys", "publish", path).returncode == EXIT_TRUST
    assert "no key documents" in acme.reader.fails(EXIT_NOT_FOUND, "keys", "history", acme.name)
    acme.machine("ann").ok("keys", "sign", path)
    assert acme.machine("ann").run("keys", "publish", path).returncode == EXIT_TRUST


def test_copies_that_were_signed_apart_are_put_together(acme) -> None:
    acme.announce("ann", "ben", threshold=2)
    to = ("--to", acme.pem("dora"), "--to", acme.pem("ben"))
    path = acme.proposal("ann", "rotate", *to, "--key", "default")
    copies = {who: acme.folder / f"{who}.keys" for who in ("ben", "dora")}
    for who, copy in copies.items():
        copy.write_bytes(path.read_bytes())
        acme.machine(who).ok("keys", "sign", copy)
    acme.machine("ann").ok("keys", "publish", path, *copies.values())
    assert acme.seq() == 2
    other = acme.proposal("ben", "delegate", "team", "team-*", "--to", acme.pem("ann"))
    refused = acme.machine("ann").fails(EXIT_CONFLICT, "keys", "publish", path, other)
    assert "different documents" in refused


def test_recovery_keys_sign_without_a_network(acme) -> None:
    acme.machine("safe")
    acme.announce("ann", threshold=1, more=("--recovery", acme.pem("safe")))
    stolen = acme.key_id("ann")
    path = acme.proposal(
        "ben", "recover", "--to", acme.pem("ben"), "--stolen", stolen, "--key", "default"
    )
    vault = acme.machine("safe")
    isolated = Machine(vault.home, NOWHERE, None, {"MEMCUBE_OFFLINE": "1"})
    shown = isolated.ok("keys", "sign", path)
    assert f"revoked: {stolen}" in shown
    acme.machine("ben").ok("keys", "publish", path)
    document = acme.reader.json("keys", "history", acme.name)["documents"][-1]
    assert [one["keyId"] for one in document["revoked"]] == [stolen]


def test_a_proposal_that_was_changed_on_its_way_is_refused(acme) -> None:
    acme.announce("ann", "ben", threshold=2)
    path = acme.proposal("ann", "rotate", "--to", acme.pem("ben"), "--key", "default")
    value = json.loads(path.read_bytes())
    other = acme.folder / "other.keys"
    acme.machine("ann").ok(
        *("keys", "rotate", acme.name, "--to", acme.pem("eve"), "--output", other)
    )
    value["document"] = json.loads(other.read_bytes())["document"]
    path.write_text(json.dumps(value, separators=(",", ":"), sort_keys=True))
    assert "did not sign" in acme.machine("ben").run("keys", "sign", path).stderr


def test_a_proposal_that_somebody_overtook_is_refused(acme) -> None:
    acme.announce("ann", threshold=1)
    path = acme.proposal("ann", "rotate", "--to", acme.pem("ben"), "--key", "default")
    acme.machine("ann").ok("keys", "delegate", acme.name, "team", "team-*", "--to", acme.pem("ben"))
    acme.machine("ben").ok("keys", "sign", path)
    assert acme.machine("ben").run("keys", "publish", path).returncode == EXIT_TRUST
    assert acme.seq() == 2


def test_no_proposal_is_written_over_another(acme) -> None:
    acme.announce("ann", threshold=1)
    acme.proposal("ann", "rotate", "--to", acme.pem("ben"))
    told = acme.machine("ann").run(
        *("keys", "rotate", acme.name, "--to", acme.pem("ben")),
        *("--output", acme.folder / "rotate.keys"),
    )
    assert told.returncode != 0
    assert "is there already" in told.stderr
