"""Watching a real registry's log: its people see who signs, auditors its whole tree, clients its growth."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.client import Client
from memcube.log import monitoring, watching
from memcube.log.monitoring import Frontier
from memcube.remote.log import RemoteLog
from memcube.trust.log_state import KnownLog
from memcube_protocol.errors import LogError, NotFoundError, TrustError
from memcube_protocol.reference import Reference
from memcube_signing.transparency import merkle, tiles
from memcube_signing.transparency.checkpoint import SignedCheckpoint
from support.log import Log
from support.machine import client_on


@pytest.fixture(autouse=True)
def keys_without_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")


def push(client: Client, folder: Path, name: str, version: str = "1.0.0") -> str:
    source = folder / "source" / name / version / "plaintext"
    source.mkdir(parents=True)
    (source / "notes.jsonl").write_text(f'{{"id":"r1","text":"{name} {version}"}}\n')
    client.push(source.parent, f"{name}:{version}", public=True)
    return f"{name}:{version}"


def host_of(person: Person) -> str:
    return person.server.url.partition("://")[2]


def test_a_monitor_shows_what_is_signed_in_ones_name_and_by_whom(new_person, bob, tmp_path):
    ada = new_person()
    name = f"{ada.name}/{fresh('notes')}"
    namespace = Reference(host_of(ada), ada.name)
    with client_on(tmp_path / "ada", ada) as client:
        push(client, tmp_path, name)
        seen = monitoring.monitor(client.context, namespace)
        mine = [one for one in seen.sightings if one.said and one.said.name.endswith(name)]
        # The release, the registry's countersignature of it, and the scan.
        assert [one.known for one in mine] == [True, True, True]
        since = seen.audited.checkpoint.size
        again = monitoring.monitor(client.context, namespace, since=since)
        assert again.sightings == ()
        with pytest.raises(LogError, match="none from"):
            monitoring.monitor(client.context, namespace, since=since + 1)
    with client_on(tmp_path / "thief", ada) as thief:
        push(thief, tmp_path, f"{ada.name}/{fresh('stolen')}")
    with client_on(tmp_path / "ada", ada) as client:
        later = monitoring.monitor(client.context, namespace, since=since)
        assert [one.known for one in later.strangers] == [False, False]
        assert later.strangers[0].index >= since
    with client_on(tmp_path / "bob", bob) as client, pytest.raises(NotFoundError):
        monitoring.monitor(client.context, namespace)


def test_an_audit_computes_the_whole_tree(ada, tmp_path, monkeypatch):
    with client_on(tmp_path, ada) as client:
        push(client, tmp_path, f"{ada.name}/{fresh('notes')}")
        audited = monitoring.audit(client.context, host_of(ada))
        assert audited.checkpoint.size > 0
        honest = RemoteLog.tile

        def lying(self, tile):
            content = honest(self, tile)
            return (
                content[:-1] + bytes([content[-1] ^ 1]) if tile.kind == tiles.ENTRIES else content
            )

        monkeypatch.setattr(RemoteLog, "tile", lying)
        with pytest.raises(LogError) as caught:
            monitoring.audit(client.context, host_of(ada))
        assert caught.value.reason == "log-forked"


def replaced(client: Client, host: str, log: Log) -> None:
    """Let the client have seen another history of the same log before."""
    known = client.context.logs.load().of(host)
    note: SignedCheckpoint = log.note(client.context.now())
    (client.context.settings.home / "trust" / "logs.json").unlink()
    client.context.logs.keep(host, KnownLog(log.key, note))
    assert known is not None


def test_a_registry_that_serves_another_log_is_refused_at_the_next_pull(ada, bob, tmp_path):
    name, host = f"{ada.name}/{fresh('notes')}", host_of(ada)
    with client_on(tmp_path / "ada", ada) as client:
        reference = push(client, tmp_path, name)
    with client_on(tmp_path / "bob", bob) as client:
        client.pull(reference)
        assert client.context.logs.load().of(host) is not None
        replaced(client, host, Log(leaves=[b"x"]))
        with pytest.raises(LogError) as caught:
            client.pull(reference)
        assert caught.value.reason == "log-key-changed"


@pytest.mark.parametrize("reason", ["log-shrank", "log-forked", "log-vanished", "log-stale"])
def test_a_log_that_turns_back_is_refused(ada, tmp_path, monkeypatch, reason):
    name, host = f"{ada.name}/{fresh('notes')}", host_of(ada)
    with client_on(tmp_path, ada) as client:
        reference = push(client, tmp_path, name)
        found = watching.find_log(client.context.registry(host))
        assert found is not None
        ours = Log(origin=found.key.name, leaves=[b"a", b"b", b"c"])
        monkeypatch.setattr(watching, "find_log", lambda registry: RemoteLog(registry, ours.key))
        now = client.context.now()
        monkeypatch.setattr(RemoteLog, "checkpoint", lambda self: ours.note(now))
        monkeypatch.setattr(RemoteLog, "tile", lambda self, tile: tile_of(ours, tile))
        watching.follow(client.context, host)
        ours.leaves.append(b"d")
        watching.follow(client.context, host)
        assert client.context.logs.load().of(host).state.size == 4
        if reason == "log-shrank":
            ours.leaves.pop()
        elif reason == "log-forked":
            ours.leaves[0] = b"other"
            ours.leaves.append(b"e")
        elif reason == "log-vanished":
            monkeypatch.setattr(watching, "find_log", lambda registry: None)
        else:
            monkeypatch.setattr(
                RemoteLog, "checkpoint", lambda self: ours.note(now.replace(year=2020))
            )
        with pytest.raises(TrustError) as caught:
            client.pull(reference)
        assert caught.value.reason == reason
        assert client.context.logs.load().of(host).state.size == 4


def tile_of(log: Log, tile: tiles.Tile) -> bytes:
    assert tile.level == 0
    return b"".join(merkle.leaf_hash(leaf) for leaf in log.leaves[: tile.width])


@pytest.mark.parametrize("start", [0, 1, 2, 3, 6, 8, 21])
def test_a_tree_goes_on_from_the_hashes_of_its_start(start):
    log = Log(leaves=[b"%d" % number for number in range(21)])
    tree = Frontier(start, log.hash_at)
    assert tree.root() == merkle.root(start, log.hash_at)
    tree.extend(merkle.leaf_hash(leaf) for leaf in log.leaves[start:])
    assert tree.root() == merkle.root(21, log.hash_at)
