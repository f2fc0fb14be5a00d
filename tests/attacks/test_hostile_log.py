"""A registry whose transparency log turns back, stands still, forks or promises: the real client is told.

The registry's operator holds the log's key. Where a test forks the log it signs with the real one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from memcube.context import Context
from memcube_protocol import canonical_json
from memcube_protocol.errors import MemcubeError, SignatureInvalidError
from memcube_signing import bundle as bundles
from memcube_signing.keys import PrivateKey
from memcube_signing.transparency.checkpoint import NoteKey
from support.hostile import Hostile
from support.log import Log, signer
from support.scripted import Answer, Received
from support.story import Story, reason_of

WELL_KNOWN = "/.well-known/memcube.json"
CHECKPOINT = "/log/checkpoint"


def operators_log(hostile: Hostile, **more: Any) -> Log:
    """A log under the registry's name, signed with the registry's own key: another tree."""
    key = NoteKey.parse(json.loads(hostile.honest(WELL_KNOWN).body)["features"]["log"]["key"])
    seed = (hostile.server.data / "log.key").read_bytes()
    log = Log(key.name, PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(seed)), **more)
    assert log.key == key
    return log


def show(hostile: Hostile, log: Log) -> None:
    """Let the registry show `log`, all of whose tiles are partial ones of level 0."""
    hostile.lie(CHECKPOINT, lambda _: Answer(200, {}, log.note(datetime.now(UTC)).text.encode()))

    def tile(request: Received, honest: Answer) -> Answer:
        if not request.path.startswith("/log/tile/0/"):
            return honest
        _, _, width = request.path.rpartition(".p/")
        hashes = b"".join(log.hash_at(0, index) for index in range(int(width or 256)))
        return Answer(200, {}, hashes)

    hostile.lies.append(tile)


def test_a_log_that_shows_an_older_state_is_refused(story: Story) -> None:
    """Entries that came later are hidden from whoever has seen them."""
    before = story.hostile.honest(CHECKPOINT)
    other = replace(story, name=f"{story.name}-more")
    other.published = {}
    other.push("1.0.0")
    story.pull("1.0.0")
    story.hostile.lie(CHECKPOINT, lambda _: before)
    story.refused("log-shrank", "1.0.0")


def test_a_log_that_stands_still_is_refused(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The freeze: what was true two days ago is shown for ever."""
    frozen = story.hostile.honest(CHECKPOINT)
    story.pull("1.0.0")
    story.hostile.lie(CHECKPOINT, lambda _: frozen)
    later = datetime.now(UTC) + timedelta(days=2)
    monkeypatch.setattr(Context, "now", lambda _: later)
    story.refused("log-stale", "1.0.0")
    story.refused("log-stale", "1.0.0", home="newcomer")


def test_a_log_with_another_key_is_refused(story: Story) -> None:
    story.pull("1.0.0")
    mine = Log(operators_log(story.hostile).origin, signer(11), leaves=[b"x"] * 9)
    said = json.loads(story.hostile.honest(WELL_KNOWN).body)
    said["features"]["log"]["key"] = str(mine.key)
    story.hostile.serve(WELL_KNOWN, canonical_json.dump(said), "application/json")
    show(story.hostile, mine)
    story.refused("log-key-changed", "1.0.0")


@pytest.mark.parametrize("answer", [Answer(404), Answer(200, {}, b"{}"), Answer(403)], ids=str)
def test_a_log_that_vanishes_is_refused(story: Story, answer: Answer) -> None:
    story.pull("1.0.0")
    story.hostile.lie(WELL_KNOWN, lambda _: answer)
    story.refused("log-vanished", "1.0.0")


def test_a_log_that_forks_is_refused(story: Story) -> None:
    """Larger than before, signed by the log's own key, and not what was seen before."""
    story.pull("1.0.0")
    show(story.hostile, operators_log(story.hostile, leaves=[b"%d" % n for n in range(99)]))
    story.refused("log-forked", "1.0.0")


def test_an_entry_that_was_promised_and_never_included_is_refused(story: Story) -> None:
    """The proof with the release holds, in a tree that the log has signed and shows to nobody else."""
    key = story.key().public_key
    aside = operators_log(story.hostile, leaves=[b"only for the victim"])
    _, bundle = story.attached("1.0.0")
    promised = aside.logged(bundles.parse(bundle), key, at=datetime.now(UTC))
    attached = story.carried(promised, story.raw("1.0.0"), story.key())
    story.hostile.attach(story.name, story.digest("1.0.0"), attached)
    story.refused("log-forked", "1.0.0")


def with_entries(bundle: bytes, entries: list[dict[str, Any]]) -> bytes:
    """`bundle` with other log entries: nobody's signature covers them."""
    value = json.loads(bundle)
    value["verificationMaterial"]["tlogEntries"] = entries
    return canonical_json.dump(value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entry: [], "log-entry-missing"),
        (
            lambda entry: [
                {k: v for k, v in entry.items() if k != "inclusionProof"}
                | {"inclusionPromise": {"signedEntryTimestamp": "AAAA"}}
            ],
            "unsupported-log-entry",
        ),
        (lambda entry: [entry | {"integratedTime": "1767225600"}], "unsupported-log-entry"),
    ],
    ids=["no entry", "a promise", "a time that nobody signed"],
)
def test_a_promise_instead_of_a_proof_is_refused(story: Story, change: Any, reason: str) -> None:
    _, bundle = story.attached("1.0.0")
    (entry,) = json.loads(bundle)["verificationMaterial"]["tlogEntries"]
    attached = story.carried(with_entries(bundle, change(entry)), story.raw("1.0.0"), story.key())
    story.hostile.attach(story.name, story.digest("1.0.0"), attached)
    story.pull("1.1.0")  # the log is known; under `warn` an entry that lacks is only warned of
    with pytest.raises(MemcubeError) as caught:
        story.pull("1.0.0")
    assert reason_of(caught.value) == reason


def test_the_entry_of_another_release_is_refused(story: Story) -> None:
    _, bundle = story.attached("1.0.0")
    entries = json.loads(story.attached("1.1.0")[1])["verificationMaterial"]["tlogEntries"]
    attached = story.carried(with_entries(bundle, entries), story.raw("1.0.0"), story.key())
    story.hostile.attach(story.name, story.digest("1.0.0"), attached)
    with pytest.raises(MemcubeError) as caught:
        story.pull("1.0.0")
    assert reason_of(caught.value) == "log-entry-mismatch"


def test_a_publisher_is_not_put_off_with_a_promise(own_story: Story) -> None:
    """The log answers a submission with a proof that does not hold: no tag leads to the release."""
    story = own_story

    def promise(request: Received, honest: Answer) -> Answer:
        if (request.method, request.path) != ("POST", "/api/v1/log/entries"):
            return honest
        entry = json.loads(honest.body)
        hashes = entry["inclusionProof"]["hashes"]
        entry["inclusionProof"]["hashes"] = ["A" * 43 + "=" for _ in hashes] or ["A" * 43 + "="]
        return replace(honest, headers={}, body=json.dumps(entry).encode())

    story.hostile.lies.append(promise)
    with pytest.raises(SignatureInvalidError):
        story.push("1.0.0")
    story.hostile.lies.clear()
    for tag in ("1.0.0", "latest"):
        assert story.hostile.honest(f"/v2/{story.name}/manifests/{tag}").status in (401, 404)


def test_a_clock_that_was_set_back_is_noticed(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what expired looks valid: the log's newest checkpoint lies in this clock's future."""
    story.pull("1.0.0")
    earlier = datetime.now(UTC) - timedelta(days=300)
    monkeypatch.setattr(Context, "now", lambda _: earlier)
    story.refused("clock-set-back", "1.0.0")
