"""The guides about keys: every command that they show runs, and does what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, Person, fresh
from memcube_protocol.errors import EXIT_TRUST
from support.machine import Machine

GUIDES = Path(__file__).parents[2] / "docs" / "guide"
FENCE = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Guide:
    """The commands of a page. Each is run on somebody's machine; `alice` and `acme` are accounts."""

    def __init__(self, page: str, accounts: dict[str, Person], folder: Path) -> None:
        self.text = (GUIDES / page).read_text("utf-8")
        shown = [
            line.partition("#")[0]
            for block in FENCE.findall(self.text)
            for line in block.splitlines()
        ]
        self.shown = {" ".join(line.split()) for line in shown if line.startswith("memcube ")}
        prose = " ".join(FENCE.sub("", self.text).split())
        self.mentioned = {" ".join(one.split()) for one in re.findall(r"`(memcube [^`]+)`", prose)}
        self.accounts, self.folder = accounts, folder
        self.left = set(self.shown)
        self.machines: dict[str, Machine] = {}

    def machine(self, who: str, account: str) -> Machine:
        if who not in self.machines:
            person = self.accounts[account]
            token = person.server.create_token(person.name, *ALL_SCOPES)
            self.machines[who] = Machine(self.folder / "homes" / who, person.server.url, token)
        return self.machines[who]

    def run(self, line: str, who: str, account: str = "alice", code: int = 0, **places: str) -> str:
        """Run a command of the page, with what it leaves open put in its place."""
        assert line in self.shown | self.mentioned, line
        self.left.discard(line)
        for name, value in places.items():
            line = line.replace(name, value)
        command, _, output = line.partition(" > ")
        words = [self._named(word) for word in shlex.split(command)[1:]]
        done = self.machine(who, account).run(*words)
        assert done.returncode == code, f"{line}: {done.stdout}{done.stderr}"
        said = done.stdout
        if output:
            Path(output).write_text(said)
        return said

    def _named(self, word: str) -> str:
        for account, person in self.accounts.items():
            if word == account or word.startswith(f"{account}/"):
                return person.name + word[len(account) :]
        return word


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with something to publish."""
    (tmp_path / "notes" / "plaintext").mkdir(parents=True)
    (tmp_path / "notes" / "plaintext" / "notes.jsonl").write_text('{"id":"r1","text":"one"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(machine: Machine, name: str, path: str) -> None:
    machine.ok("keys", "generate", name)
    Path(path).write_text(machine.ok("keys", "export", name))


def test_rotate_a_key(new_person, folder: Path) -> None:
    alice, acme = new_person(), new_person()
    guide = Guide("rotate-a-key.md", {"alice": alice, "acme": acme}, folder)
    own = guide.machine("alice", "alice")
    export(guide.machine("safe", "alice"), "default", "safe.pub")
    own.ok("push", "notes", f"{alice.name}/notes:1.0.0", "--public")
    guide.run("memcube keys announce alice --recovery safe.pub", "alice")
    guide.run("memcube keys rotate alice --to release-2027", "alice")
    guide.run("memcube push notes alice/notes:2.0.0 --key release-2027", "alice")
    assert "key document 2" in guide.run("memcube keys history alice", "alice")
    guide.run("memcube keys publish alice", "alice")
    own.ok("yank", f"{alice.name}/notes:1.0.0", "--key", "release-2027")

    for who in ("ann", "ben", "cleo"):
        guide.run("memcube keys generate", who, "acme")
        guide.run("memcube keys export > ann.pub", who, "acme")
        Path("ann.pub").rename(f"{who}.pem")
    for who in ("ann", "ben", "cleo"):
        Path(f"{who}.pem").rename(f"{who}.pub")
    guide.run(
        "memcube keys announce acme --to ann.pub --to ben.pub --to cleo.pub --threshold 2 --output acme.keys",
        *("ann", "acme"),
    )
    guide.run("memcube keys sign acme.keys", "ann", "acme")
    assert "Enough have signed" not in guide.machine("ann", "acme").ok("keys", "sign", "acme.keys")
    assert "Enough have signed" in guide.run("memcube keys sign acme.keys", "ben", "acme")
    guide.run("memcube keys publish acme.keys", "cleo", "acme")

    pushed = guide.run("memcube push notes acme/notes:1.0.0 --public", "ann", "acme")
    digest = re.search(r"sha256:([0-9a-f]{64})", pushed)
    assert digest
    place = {"…": digest[1]}
    guide.run("memcube inspect acme/notes@sha256:…", "ben", "acme", **place)
    assert "latest" in guide.run("memcube cosign acme/notes@sha256:…", "ben", "acme", **place)

    to = ("--to", "ann.pub", "--to", "ben.pub")
    guide.machine("ann", "acme").ok(
        "keys", "rotate", acme.name, *to, "--key", "default", "--output", "ann.keys"
    )
    Path("ben.keys").write_bytes(Path("ann.keys").read_bytes())
    guide.machine("ben", "acme").ok("keys", "sign", "ben.keys")
    guide.run("memcube keys publish ann.keys ben.keys", "cleo", "acme")

    export(guide.machine("team", "acme"), "team", "team.pub")
    export(guide.machine("eve", "acme"), "default", "eve.pub")
    guide.run("memcube keys delegate acme research 'research-*' --to team.pub", "ann", "acme")
    line = "memcube keys delegate acme research/eve research-birds --to eve.pub --key team"
    guide.run(line, "team", "acme")
    guide.machine("eve", "acme").ok("push", "notes", f"{acme.name}/research-birds:1.0.0")
    assert guide.left == set()


def test_when_a_key_is_stolen(new_person, bob: Person, folder: Path) -> None:
    alice = new_person()
    guide = Guide("when-a-key-is-stolen.md", {"alice": alice}, folder)
    own, reader = (
        guide.machine("alice", "alice"),
        Machine(folder / "bob", bob.server.url, bob.token),
    )
    own.ok("push", "notes", f"{alice.name}/notes:1.0.0", "--public")
    own.ok("keys", "announce", alice.name)
    reader.ok("pull", f"{alice.name}/notes:1.0.0")
    copy = f"{bob.name}/{fresh('copy')}"
    reader.ok("cp", f"{alice.name}/notes:1.0.0", copy)
    stolen = own.json("keys", "export")["id"]
    line = "memcube keys revoke alice KEY_ID --since 2026-02-27 --to release-2027"
    guide.run(line, "alice", KEY_ID=stolen)
    seen = guide.run("memcube log monitor alice", "alice", code=EXIT_TRUST)
    assert f"UNKNOWN key {stolen}" in seen
    assert reader.run("pull", f"{alice.name}/notes:1.0.0").returncode == EXIT_TRUST
    guide.run("memcube yank alice/notes:1.0.0 --key release-2027", "alice")
    own.ok("push", "notes", f"{alice.name}/notes:1.0.1", "--key", "release-2027", "--public")
    reader.ok("pull", f"{alice.name}/notes:1.0.1")
    assert "was told" in reader.fails(EXIT_TRUST, "cp", f"{alice.name}/notes:1.0.0", copy)
    assert reader.run("pull", f"{copy}:1.0.0").returncode == EXIT_TRUST
    assert {line.split()[2] for line in guide.left} == {"recover"}


def test_when_a_thief_was_faster(new_person, bob: Person, folder: Path) -> None:
    alice = new_person()
    guide = Guide("when-a-key-is-stolen.md", {"alice": alice}, folder)
    own, reader = (
        guide.machine("alice", "alice"),
        Machine(folder / "bob", bob.server.url, bob.token),
    )
    own.ok("push", "notes", f"{alice.name}/notes:1.0.0", "--public")
    export(own, "safe", "safe.pub")
    own.ok("keys", "announce", alice.name, "--recovery", "safe.pub")
    own.ok("keys", "rotate", alice.name, "--to", "second")
    own.ok("keys", "rotate", alice.name, "--key", "second", "--to", "thief")
    own.ok("push", "notes", f"{alice.name}/notes:1.1.0", "--key", "thief", "--public")
    reader.ok("pull", f"{alice.name}/notes:1.1.0")
    stolen = own.json("keys", "export", "second")["id"]
    line = (
        "memcube keys recover alice --key safe --to release-2027 --overrules 3 --stolen KEY_ID "
        "--since 2026-02-27"
    )
    guide.run(line, "alice", KEY_ID=stolen)
    assert reader.run("pull", f"{alice.name}/notes:1.1.0").returncode == EXIT_TRUST
    own.ok("push", "notes", f"{alice.name}/notes:1.2.0", "--key", "release-2027", "--public")
    reader.ok("pull", f"{alice.name}/notes:1.2.0")
