"""A log that shows two clients two histories: each of them alone is content, together they have a proof."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from memcube.consuming import proofs
from memcube.log import comparing, forks, monitoring
from memcube.log.comparing import Compared
from memcube.log.watching import follow
from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidError, LogError, SignatureInvalidError, TrustError
from memcube_protocol.reference import Reference
from memcube_signing import bundle as bundles
from memcube_signing.dsse import Envelope
from memcube_signing.keys import PrivateKey, PublicKey
from memcube_signing.transparency import fork
from memcube_signing.transparency.checkpoint import NoteKey
from support.hostile import Hostile
from support.log import Log, signer
from support.machine import Machine
from support.scripted import Answer, Received
from support.story import Story

CHECKPOINT = "/log/checkpoint"


def log_of_the_operator(hostile: Hostile, size: int) -> Log:
    """Another history of `size` entries, signed with the registry's own log key."""
    said = json.loads(hostile.honest("/.well-known/memcube.json").body)
    key = NoteKey.parse(said["features"]["log"]["key"])
    seed = (hostile.server.data / "log.key").read_bytes()
    leaves = [b"another history %d" % number for number in range(size)]
    log = Log(key.name, PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(seed)), leaves)
    assert log.key == key
    return log


def size_of(hostile: Hostile) -> int:
    """Entries of the honest history."""
    return int(hostile.honest(CHECKPOINT).body.split(b"\n")[1])


def show(hostile: Hostile, log: Log) -> None:
    """Let whoever asks from now on see `log`; it is small, so that all its tiles are of level 0."""
    hostile.lie(CHECKPOINT, lambda _: Answer(200, {}, log.note(datetime.now(UTC)).text.encode()))

    def tile(request: Received, honest: Answer) -> Answer:
        if not request.path.startswith("/log/tile/0/"):
            return honest
        width = int(request.path.rpartition(".p/")[2])
        return Answer(200, {}, b"".join(log.hash_at(0, at) for at in range(width)))

    hostile.lies.append(tile)


def seen_by(story: Story, home: str, to: Path) -> Path:
    """The newest checkpoint of whoever lives in `home`, who looks at the log now, as a file."""
    with story.client(home) as client:
        known = follow(client.context, story.hostile.host)
        assert known is not None
        to.write_text(known.note.text, encoding="utf-8")
    return to


def compared(story: Story, home: str, source: Path) -> Compared:
    with story.client(home) as client:
        return comparing.compare(client.context, str(source))


@pytest.mark.parametrize("longer_by", [-1, 0, 1])
def test_two_clients_who_were_shown_two_histories_prove_it(
    story: Story, tmp_path: Path, longer_by: int
) -> None:
    """Neither notices alone; whoever compares has a proof that third parties check by themselves."""
    of_ann = seen_by(story, "ann", tmp_path / "ann.note")
    other = log_of_the_operator(story.hostile, size_of(story.hostile) + longer_by)
    show(story.hostile, other)
    seen_by(story, "bob", tmp_path / "bob.note")
    source = of_ann if longer_by >= 0 else tmp_path / "bob.note"
    if longer_by < 0:
        story.hostile.lies.clear()
    found = compared(story, "bob" if longer_by >= 0 else "ann", source)
    assert found.fork is not None
    with story.client("bob") as client:
        proof = forks.keep(client.context, found.fork, tmp_path / "fork.json")
    story.hostile.lies.clear()
    seen_by(story, "carol", tmp_path / "carol.note")
    assert compared(story, "carol", proof).fork == found.fork


def test_those_who_were_shown_one_history_have_nothing_to_prove(
    story: Story, tmp_path: Path
) -> None:
    earlier = seen_by(story, "ann", tmp_path / "ann.note")
    replace(story, name=f"{story.name}-grown", published={}).push("1.0.0")
    newer = seen_by(story, "bob", tmp_path / "bob.note")
    for home, source in (("bob", earlier), ("ann", newer), ("ann", earlier)):
        assert compared(story, home, source).fork is None


def test_a_proof_file_from_the_other_side_shows_the_fork(story: Story, tmp_path: Path) -> None:
    """The victim pulls happily in a tree made for it alone; its `.memproof` tells others."""
    story.pull("1.0.0", home="ann")
    aside = log_of_the_operator(story.hostile, size_of(story.hostile) - 4)
    for version in ("1.0.0", "1.1.0"):
        _, bundle = story.attached(version)
        logged = aside.logged(bundles.parse(bundle), story.key().public_key, at=datetime.now(UTC))
        attached = story.carried(logged, story.raw(version), story.key())
        story.hostile.attach(story.name, story.digest(version), attached)
    show(story.hostile, aside)
    story.pull("1.1.0")
    path = tmp_path / "notes.memproof"
    with story.client() as client:
        wanted = Reference.parse(f"{story.hostile.host}/{story.name}:1.1.0")
        proofs.export(client.context, wanted, path)
    story.hostile.lies.clear()
    found = compared(story, "ann", path)
    assert found.fork is not None


def test_a_pull_that_meets_a_fork_keeps_the_proof(story: Story) -> None:
    story.pull("1.0.0")
    show(story.hostile, log_of_the_operator(story.hostile, size_of(story.hostile) + 3))
    error = story.refused("log-forked", "1.0.0")
    with story.client() as client:
        known = client.context.logs.load().of(story.hostile.host)
        kept = list((client.context.settings.home / "trust" / forks.FOLDER).iterdir())
    assert known is not None
    assert [fork.parse(path.read_bytes()).key for path in kept] == [known.key] * len(kept)
    assert len(kept) >= 1
    assert any(path.name in (error.hint or "") for path in kept)


def test_a_registry_that_hides_what_it_has_shown_others_is_refused(
    story: Story, tmp_path: Path
) -> None:
    before = story.hostile.honest(CHECKPOINT)
    replace(story, name=f"{story.name}-hidden", published={}).push("1.0.0")
    of_ann = seen_by(story, "ann", tmp_path / "ann.note")
    story.hostile.lie(CHECKPOINT, lambda _: before)
    seen_by(story, "bob", tmp_path / "bob.note")
    with pytest.raises(LogError) as caught:
        compared(story, "bob", of_ann)
    assert caught.value.reason == "log-shrank"


def test_an_audit_finds_that_a_promised_entry_was_never_included(own_story: Story) -> None:
    """The publisher has a proof of inclusion, in a tree that nobody else is shown."""
    story = own_story
    aside = log_of_the_operator(story.hostile, 5)

    def promise(request: Received, honest: Answer) -> Answer:
        if (request.method, request.path) != ("POST", "/api/v1/log/entries"):
            return honest
        asked = json.loads(request.body)
        envelope = Envelope.from_json(asked["envelope"])
        key = PublicKey(base64.b64decode(asked["publicKey"]))
        made = aside.logged(bundles.write(envelope, key.id), key, at=datetime.now(UTC))
        return replace(honest, headers={}, body=canonical_json.dump(made.log_entries[0]))

    story.hostile.lies.append(promise)
    story.push("1.0.0")
    story.hostile.lies.clear()
    with story.client("publisher") as client, pytest.raises(TrustError) as caught:
        monitoring.audit(client.context, story.hostile.host)
    assert caught.value.reason == "log-forked"


@pytest.mark.parametrize("what", ["another key", "another log", "no log", "a made-up proof"])
def test_nobody_can_make_a_client_distrust_an_honest_log(
    story: Story, tmp_path: Path, what: str
) -> None:
    seen_by(story, "ann", tmp_path / "ann.note")
    honest = log_of_the_operator(story.hostile, 4)
    source = tmp_path / "source"
    forged = Log(honest.origin, signer(11), leaves=[b"x"] * 4)
    if what == "another key":
        source.write_text(forged.note().text, encoding="utf-8")
    elif what == "another log":
        source.write_text(Log("other.example").note().text, encoding="utf-8")
    elif what == "no log":
        source.write_text("nothing", encoding="utf-8")
    else:
        two = Log(honest.origin, signer(11), leaves=[b"y"] * 4)
        found = fork.find(forged.key, forged.note(), two.note(), forged.hash_at)
        assert found is not None
        source.write_bytes(found.to_bytes())
    with pytest.raises((SignatureInvalidError, LogError, InvalidError)):
        compared(story, "ann", source)


def test_the_commands_tell_of_a_fork_by_their_exit_code(story: Story, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "ann", story.hostile.front.url)
    note, proof = tmp_path / "ann.note", tmp_path / "fork.json"
    machine.ok("log", "checkpoint", "-o", note)
    assert machine.json("log", "compare", note)["consistent"] is True
    other = log_of_the_operator(story.hostile, int(note.read_text().split("\n")[1]))
    note.write_text(other.note().text, encoding="utf-8")
    done = machine.run("log", "compare", note, "-o", proof)
    assert (done.returncode, "TWO HISTORIES" in done.stdout) == (13, True), done.stderr
    assert fork.parse(proof.read_bytes()).key == other.key
    assert machine.run("log", "compare", proof).returncode == 13
