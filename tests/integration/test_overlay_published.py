"""What an agent remembers becomes a cube of its own: signed, pushed, pulled and found on another machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube_protocol.errors import RuleRefusedError
from support.machine import Machine, client_on

pytest.importorskip("qdrant_edge")


def test_what_was_remembered_is_signed_pushed_and_found_on_another_machine(
    ada: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")
    name, own = f"{ada.name}/{fresh('bought')}", f"{ada.name}/{fresh('learned')}"
    folder = tmp_path / "bought"
    (folder / "plaintext").mkdir(parents=True)
    (folder / "memcube.toml").write_text(f'name = "{name}"\nversion = "1.0.0"\n')
    (folder / "plaintext" / "r.jsonl").write_text(
        '{"id":"ferry","text":"The ferry leaves at 9."}\n'
    )
    publisher = Machine(tmp_path / "publisher", ada.server.url, ada.token)
    publisher.ok("push", folder)
    before = publisher.json("inspect", name)["digest"]
    with client_on(tmp_path / "publisher", ada) as client:
        with client.mount(name, overlay=tmp_path / "learned") as memory:
            kept = memory.remember("Ada takes the ferry at ten.", tags=["ferry"])
        with pytest.raises(RuleRefusedError, match="everybody could read it"):
            client.push(tmp_path / "learned", f"{own}:0.1.0", public=True)
        client.push(tmp_path / "learned", f"{own}:0.1.0")
    assert publisher.json("inspect", name)["digest"] == before, "the bought cube is as it was"
    with client_on(tmp_path / "laptop", ada) as client:
        verified = client.pull(own)
        assert verified.verdict.release is not None
        with client.mount(own) as memory:
            (hit,) = memory.search("when does Ada take the ferry", 1)
    assert (hit.record.id, hit.record.text) == (kept.id, kept.text)
