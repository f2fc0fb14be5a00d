"""What this machine knows when a cube's rules are asked: whose it is, what for, up to which sensitivity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from memcube import rules
from memcube.client import Client
from memcube.consuming.verifying import Verified
from memcube.context import Context
from memcube.profiles import Profile
from memcube.settings import Settings
from memcube.trust.verdict import Standing
from memcube_protocol.errors import RuleRefusedError
from memcube_signing.keys import PrivateKey

Opened = Callable[..., tuple[Client, Verified]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """A client with such variables, and a cube with such governance that was packed there."""

    def make(governance: str, **variables: str) -> tuple[Client, Verified]:
        folder = tmp_path / "source"
        (folder / "plaintext").mkdir(parents=True)
        (folder / "plaintext" / "notes.jsonl").write_text('{"id":"r1","text":"a note"}\n')
        toml = f'name = "acme/atlas"\nversion = "1.0.0"\n[governance]\n{governance}\n'
        (folder / "memcube.toml").write_text(toml)
        environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0", **variables}
        client = Client(Settings.load(environ))
        client.pack(folder)
        return client, client.open("acme/atlas")

    return make


def held_by(verified: Verified, publisher: PrivateKey | None = None) -> Verified:
    """The same cube as somebody else's: unsigned, or released by `publisher`."""
    verdict = replace(
        verified.verdict,
        standing=Standing.TRUSTED if publisher else Standing.UNSIGNED,
        publisher=publisher.public_key if publisher else None,
    )
    return replace(verified, verdict=verdict)


def test_who_packed_a_cube_is_its_owner_and_a_holder_is_not(opened: Opened) -> None:
    client, verified = opened('allowed_uses = ["research"]')
    rules.require_mount(client.context, verified)
    for other in (held_by(verified), held_by(verified, PrivateKey.generate())):
        with pytest.raises(RuleRefusedError, match="nobody said"):
            rules.require_mount(client.context, other)


def test_whose_key_is_in_charge_of_the_name_is_an_owner(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")
    client, verified = opened('allowed_uses = ["research"]')
    key, colleague = PrivateKey.generate(), PrivateKey.generate()
    client.context.keys.keep(key, "mine")
    assert client.context.keys.ids() == {key.public_key.id}
    assert rules.owns(client.context, held_by(verified, key))
    theirs = held_by(verified, colleague)
    assert not rules.owns(client.context, theirs)
    verdict = replace(theirs.verdict, partners=(key.public_key,))
    assert rules.owns(client.context, replace(theirs, verdict=verdict))


@pytest.mark.parametrize("harm", ["damaged", "absent"])
def test_a_public_half_without_its_private_one_or_a_damaged_one_makes_no_owner(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")
    client, _ = opened("")
    entry = client.context.keys.keep(PrivateKey.generate(), "mine").entry
    if harm == "damaged":
        entry.path.with_suffix(".pub").write_text("rubbish")
    else:
        entry.path.unlink()
    assert client.context.keys.ids() == frozenset()


def test_the_uses_and_the_ceiling_are_those_of_the_settings_or_of_the_profile(
    opened: Opened,
) -> None:
    client, verified = opened(
        'allowed_uses = ["research"]\nsensitivity = "internal"',
        MEMCUBE_USE="commercial",
        MEMCUBE_SENSITIVITY="public",
    )
    other = held_by(verified)
    said = rules.mount_rulings(client.context, other)
    assert [(one.rule, one.allows) for one in said] == [
        ("allowed_uses", False),
        ("sensitivity", False),
    ]
    thesis = Profile("thesis", (), sensitivity="internal", uses=frozenset({"research"}))
    rules.require_mount(client.context, other, profile=thesis)
    with pytest.raises(RuleRefusedError, match="commercial"):
        rules.require_mount(client.context, other, profile=replace(thesis, uses=None))
    with pytest.raises(RuleRefusedError, match="at most public"):
        rules.require_mount(client.context, other, profile=replace(thesis, sensitivity=None))


def test_an_owner_too_mounts_nothing_that_is_over_or_above_their_own_ceiling(
    opened: Opened,
) -> None:
    client, verified = opened(
        'expires_at = 2020-01-01T00:00:00Z\nsensitivity = "restricted"',
        MEMCUBE_SENSITIVITY="internal",
    )
    with pytest.raises(RuleRefusedError, match="it is over; also sensitivity") as caught:
        rules.require_mount(client.context, verified)
    assert caught.value.hint
    assert "pack it again" in caught.value.hint


def test_what_expires_while_it_is_mounted_says_no_more(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("qdrant_edge")
    client, _ = opened("expires_at = 2100-01-01T00:00:00Z")
    with client.mount("acme/atlas") as memory:
        assert memory.search("note")
        monkeypatch.setattr(Context, "now", lambda _: datetime(2100, 1, 2, tzinfo=UTC))
        for use in (memory.search, memory.context, memory.read):
            with pytest.raises(RuleRefusedError, match="it is over"):
                use("r1")
        with pytest.raises(RuleRefusedError, match="it is over"):
            list(memory.records())


def test_this_machine_is_no_other_machine(opened: Opened) -> None:
    client, verified = opened('processing = "local"')
    other = held_by(verified)
    near = ("127.0.0.1:11434", "localhost", "[::1]:80")
    rules.require_mount(client.context, other, leaves_to=near)
    with pytest.raises(RuleRefusedError, match=r"to api\.example:443") as caught:
        rules.require_mount(client.context, other, leaves_to=(*near, "api.example:443"))
    assert "localhost" not in str(caught.value)
