"""A publisher writes where a cube comes from: whoever follows that is not led into their own network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube import Client
from memcube.provenance.tree import trace
from memcube.settings import Settings
from support.scripted import Answer, Scripted, scripted

DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def bystander(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """A service of this machine that nobody should reach; every name is one of another machine."""
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        inside = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "inside.test": "10.0.0.5"}
        return real(inside.get(str(host), "93.184.215.14"), *rest, **more)

    with scripted(lambda request: Answer(404)) as server:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        yield server


def fork(folder: Path, origin: str) -> Path:
    (folder / "plaintext").mkdir(parents=True)
    (folder / "plaintext" / "records.jsonl").write_text('{"id": "a", "text": "x"}\n')
    (folder / "memcube.toml").write_text(
        f'''name = "bob/fork"
version = "1.0.0"
[governance]
licence = "MIT"
[[lineage.parents]]
origin = "{origin}"
digest = "{DIGEST}"
relation = "forked-from"
'''
    )
    return folder


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_cube_of_another_machine_leads_nobody_to_a_service_of_this_one(
    tmp_path: Path, bystander: Scripted, host: str
) -> None:
    folder = fork(tmp_path / "fork", f"{host}:{bystander.port}/admin/purge")
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_ENDPOINT": "https://registry.test"}
    with Client(Settings.load(environ)) as client:
        tree = trace(client.context, client.pack(folder).reference)
    assert not bystander.received
    assert "into a loopback network" in (tree.parents[0].why_unknown or "")


def test_nor_one_whose_registry_is_said_to_lie_on_this_machine(
    tmp_path: Path, bystander: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: real("127.0.0.1", *rest, **more)
    )
    folder = fork(tmp_path / "fork", f"127.0.0.1:{bystander.port}/admin/purge")
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_ENDPOINT": "https://registry.test"}
    with Client(Settings.load(environ)) as client:
        tree = trace(client.context, client.pack(folder).reference)
    assert not bystander.received
    assert "into a loopback network" in (tree.parents[0].why_unknown or "")


def test_nor_into_the_network_that_this_one_is_in(tmp_path: Path, bystander: Scripted) -> None:
    folder = fork(tmp_path / "fork", "inside.test/admin/purge")
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_ENDPOINT": "https://registry.test"}
    with Client(Settings.load(environ)) as client:
        tree = trace(client.context, client.pack(folder).reference)
    assert "into a private network" in (tree.parents[0].why_unknown or "")


def test_a_cube_of_this_machine_may(tmp_path: Path, bystander: Scripted) -> None:
    folder = fork(tmp_path / "fork", f"127.0.0.1:{bystander.port}/alice/notes")
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_ENDPOINT": "http://127.0.0.1:1"}
    with Client(Settings.load(environ)) as client:
        trace(client.context, client.pack(folder).reference)
    assert [one.path for one in bystander.received] == [f"/v2/alice/notes/manifests/{DIGEST}"]
