"""Checkpoints, keys of logs and witnesses, and cosignatures: the edges of each."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from memcube_protocol.errors import InvalidStatementError, MemcubeError, SignatureInvalidError
from memcube_signing.transparency import checkpoint
from memcube_signing.transparency.checkpoint import (
    NOTE_BYTES,
    SIZE_MAX,
    Checkpoint,
    Cosigned,
    Line,
    NoteKey,
    SignedCheckpoint,
)
from support.log import WITNESS, WITNESS_KEY, signer
from support.signing import ALICE, NOW

LOG = signer(7)
LOG_KEY = NoteKey("log.example", LOG.public_key)
STATE = Checkpoint("log.example", 5, b"r" * 32)
NOTE = checkpoint.sign(STATE, LOG)
NO_NAMES = ["", "a b", "a\n", "a+b", "é", "x" * 256]
MINUTE = timedelta(minutes=1)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def refused(reason: str = "malformed-checkpoint"):
    return pytest.raises(InvalidStatementError, check=lambda e: e.reason == reason and e.hint)


def untrusted(reason: str):
    return pytest.raises(SignatureInvalidError, check=lambda e: e.reason == reason and e.hint)


@pytest.mark.parametrize("size", [0, 1, SIZE_MAX])
@pytest.mark.parametrize("origin", ["l", "log.example/one", "x" * 255])
def test_a_checkpoint_reads_back_from_its_three_lines(size, origin):
    state = Checkpoint(origin, size, b"r" * 32)
    assert Checkpoint.from_body(state.body) == state


@pytest.mark.parametrize("origin", NO_NAMES)
def test_a_checkpoint_is_of_a_log_with_a_name(origin):
    with refused():
        Checkpoint(origin, 1, b"r" * 32)


@pytest.mark.parametrize(("size", "root"), [(-1, 32), (SIZE_MAX + 1, 32), (1, 31), (1, 33), (1, 0)])
def test_a_checkpoint_has_a_size_and_a_root_in_range(size, root):
    with refused():
        Checkpoint("log.example", size, b"r" * root)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"log.example\n5\n", STATE.body + b"extension\n", STATE.body[:-1]),
        *(STATE.body + b"extension", STATE.body + b"\n"),
        *(
            STATE.body.replace(b"\n5\n", size)
            for size in (b"\n05\n", b"\n-5\n", b"\n+5\n", b"\n\n")
        ),
        *(STATE.body.replace(b"\n5\n", size) for size in (b"\n5 \n", b"\n1_0\n", b"\nx\n")),
        STATE.body.replace(b"\n5\n", b"\n" + b"1" * 17 + b"\n"),
        STATE.body.replace(b"log", "löğ".encode()),
        STATE.body.replace(b"=\n", b"\n"),
        b"log.example\n5\n*\n",
        b"log.example\n5\n" + b"c" * 42 + b"d=\n",
    ],
)
def test_a_checkpoint_has_one_form(body):
    with refused():
        Checkpoint.from_body(body)


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_key_has_a_name(name):
    with refused():
        NoteKey(name, LOG.public_key)


def test_a_log_signs_with_ed25519():
    with refused("unsupported-algorithm"):
        NoteKey("log.example", ALICE.public_key)


@pytest.mark.parametrize("cosigns", [False, True])
def test_a_key_reads_back_from_its_line(cosigns):
    key = NoteKey("log.example", LOG.public_key, cosigns)
    assert NoteKey.parse(str(key)) == key
    assert len(key.raw_key) == 32
    assert len(key.hint) == 4


def test_a_key_in_another_role_has_another_hint():
    assert not LOG_KEY.cosigns
    assert LOG_KEY.cosigner.cosigns
    assert LOG_KEY.cosigner.hint != LOG_KEY.hint
    assert (LOG_KEY.cosigner.name, LOG_KEY.cosigner.key) == (LOG_KEY.name, LOG_KEY.key)


def test_the_line_of_a_key_is_that_of_the_note_format():
    # The example of golang.org/x/mod/sumdb/note.
    text = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    assert str(NoteKey.parse(text)) == text


def test_a_key_whose_line_was_changed_is_refused():
    name, hint, encoded_key = str(LOG_KEY).split("+", 2)
    for other in ("00000000", "ffffffff"):
        assert other != hint
        with refused():
            NoteKey.parse(f"{name}+{other}+{encoded_key}")
    with refused():
        NoteKey.parse(f"{name}+{hint}+{encoded_key[:-1]}é")
    with refused():
        NoteKey.parse(f"{name}+{hint.upper()}x+{encoded_key}")
    for kind in (b"\x00", b"\x02", b"\x05", b""):
        with refused("unsupported-algorithm"):
            NoteKey.parse(f"{name}+{hint}+{encoded(kind + LOG_KEY.raw_key)}")
    for more in (LOG_KEY.raw_key + b"x", LOG_KEY.raw_key[:-1]):
        with refused("unsupported-algorithm"):
            NoteKey.parse(f"{name}+{hint}+" + encoded(b"\x01" + more))


def test_a_note_reads_back_and_takes_each_line_once():
    line = checkpoint.cosign(STATE, WITNESS_KEY.name, WITNESS, NOW)
    both = NOTE.with_lines([line, line, *NOTE.lines])
    assert both.lines == (*NOTE.lines, line)
    assert checkpoint.parse(both.text) == both
    assert checkpoint.parse_lines(str(line) + str(line)) == (line, line)


def test_a_note_is_not_too_large():
    assert NOTE_BYTES == 65536
    room = NOTE_BYTES - len(NOTE.text)
    big = Line("n", b"hint", b"v" * (room * 3 // 4 - 16))
    text = NOTE.text + str(big)
    name = "n" * (1 + NOTE_BYTES - len(text))
    exact = NOTE.text + str(replace(big, name=name))
    assert len(exact) == NOTE_BYTES
    assert checkpoint.parse(exact).text == exact
    longer = NOTE.text + str(replace(big, name=name + "n"))
    with refused():
        checkpoint.parse(longer)


def test_signature_lines_alone_are_not_too_large():
    big = Line("n", b"hint", b"v" * (NOTE_BYTES * 3 // 4 - 16))
    name = "n" * (1 + NOTE_BYTES - len(str(big)))
    exact = str(replace(big, name=name))
    assert len(exact) == NOTE_BYTES
    assert len(checkpoint.parse_lines(exact)) == 1
    with refused():
        checkpoint.parse_lines(str(replace(big, name=name + "n")))
    with refused():
        checkpoint.parse_lines(str(Line("n", b"hint", b"v")).removesuffix("\n"))


def test_a_note_has_up_to_64_signatures():
    lines = tuple(Line(f"w{number}", b"hint", b"v") for number in range(65))
    text = SignedCheckpoint(STATE, lines[:64]).text
    assert len(checkpoint.parse(text).lines) == 64
    with refused():
        checkpoint.parse(SignedCheckpoint(STATE, lines).text)


@pytest.mark.parametrize(
    "text",
    [
        *("", STATE.body.decode(), STATE.body.decode() + "\n", NOTE.text.removesuffix("\n")),
        NOTE.text[:-1] + "x",
        *(NOTE.text + "\n", NOTE.text.replace("log.example\n", "löğ.example\n", 1)),
    ],
)
def test_a_note_has_a_checkpoint_and_signatures(text):
    with refused():
        checkpoint.parse(text)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "",
            "- n aGludHY=",
            "— n",
            "—  aGludHY=",
            "— n aGludHY",
            "— n aGludA==",
            "— a+b aGludHY=",
        ),
        *("— a b aGludHY=", "— n aGludHZ=", f"— {'n' * 256} aGludHY=", "— n aGludHY= "),
        "— n aGludHZ2A0==",
    ],
)
def test_a_signature_line_has_one_form(line):
    with refused():
        checkpoint.parse_lines(line + "\n")
    with refused():
        checkpoint.parse_lines("— n aGludHY=x")
    assert checkpoint.parse_lines("— n aGludHZ2Aw==\n")
    assert checkpoint.parse_lines("— n aGludHY=\n") == (Line("n", b"hint", b"v"),)


def test_the_log_has_to_sign():
    assert checkpoint.verify(NOTE, LOG_KEY) == STATE
    with untrusted("log-unknown"):
        checkpoint.verify(NOTE, NoteKey("other.example", LOG.public_key))
    with untrusted("log-signature-missing"):
        checkpoint.verify(SignedCheckpoint(STATE, ()), LOG_KEY)
    with untrusted("log-signature-missing"):
        checkpoint.verify(NOTE, NoteKey("log.example", signer(8).public_key))
    (line,) = NOTE.lines
    for other in (replace(line, name="other.example"), replace(line, hint=b"else")):
        with untrusted("log-signature-missing"):
            checkpoint.verify(SignedCheckpoint(STATE, (other,)), LOG_KEY)
        assert checkpoint.verify(SignedCheckpoint(STATE, (other, line)), LOG_KEY) == STATE


def test_a_false_signature_of_the_log_is_refused_whatever_follows():
    (line,) = NOTE.lines
    forged = replace(line, value=bytes(64))
    for lines in ((forged,), (forged, line)):
        with pytest.raises(SignatureInvalidError):
            checkpoint.verify(SignedCheckpoint(STATE, lines), LOG_KEY)
    grown = replace(STATE, size=6)
    with pytest.raises(SignatureInvalidError):
        checkpoint.verify(SignedCheckpoint(grown, NOTE.lines), LOG_KEY)


def seen(*lines: Line, keys=(WITNESS_KEY,)) -> tuple[Cosigned, ...]:
    return checkpoint.cosignatures(SignedCheckpoint(STATE, lines), keys)


def by_witness(at: datetime = NOW) -> Line:
    return checkpoint.cosign(STATE, WITNESS_KEY.name, WITNESS, at)


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0)])
def test_of_a_witness_the_latest_time_counts(order):
    lines = [by_witness(NOW + MINUTE * at) for at in order]
    assert seen(*lines) == (Cosigned(WITNESS_KEY, NOW + MINUTE * max(order)),)


def test_only_the_witnesses_that_are_asked_for_count():
    log = LOG_KEY.cosigner
    own = checkpoint.cosign(STATE, log.name, LOG, NOW)
    other = checkpoint.cosign(STATE, "other.example", signer(8), NOW)
    assert seen(other, own, by_witness()) == (Cosigned(WITNESS_KEY, NOW),)
    assert seen(other, own, by_witness(), keys=(WITNESS_KEY, log)) == (
        Cosigned(log, NOW),
        Cosigned(WITNESS_KEY, NOW),
    )
    assert seen(*NOTE.lines, keys=(LOG_KEY,)) == ()
    assert seen() == ()


@pytest.mark.parametrize(
    "change",
    [{"name": "other.example"}, {"hint": b"else"}],
)
def test_the_line_of_another_is_passed_over(change):
    assert seen(replace(by_witness(), **change)) == ()


def timed(seconds: int, content: bytes | None = None) -> Line:
    """A cosignature with any time in it, as a hostile witness writes it."""
    body = b"cosignature/v1\ntime %d\n" % seconds + STATE.body
    value = seconds.to_bytes(8, "big") + WITNESS.sign(content or body)
    return Line(WITNESS_KEY.name, WITNESS_KEY.hint, value)


@pytest.mark.parametrize("seconds", [1, (1 << 36) - 1])
def test_a_time_in_range_is_read(seconds):
    assert seen(timed(seconds))[0].at == datetime.fromtimestamp(seconds, UTC)


@pytest.mark.parametrize("seconds", [0, 1 << 36, (1 << 64) - 1])
def test_a_time_out_of_range_is_refused(seconds):
    with untrusted("cosignature-invalid"):
        seen(timed(seconds))


def test_a_cosignature_covers_its_time_and_the_checkpoint():
    line = by_witness()
    earlier = (int(NOW.timestamp()) - 1).to_bytes(8, "big") + line.value[8:]
    for value in (earlier, line.value[:8] + bytes(64)):
        with pytest.raises(SignatureInvalidError):
            seen(replace(line, value=value))
    with pytest.raises(SignatureInvalidError):
        checkpoint.cosignatures(SignedCheckpoint(replace(STATE, size=6), (line,)), (WITNESS_KEY,))


@pytest.mark.parametrize("value", [b"", b"x" * 71, b"x" * 73])
def test_a_cosignature_has_one_length(value):
    with untrusted("cosignature-invalid"):
        seen(replace(by_witness(), value=value))
    short = by_witness().value
    for other in (short[:-1], short + b"x"):
        with pytest.raises(MemcubeError, check=lambda e: e.reason == "cosignature-invalid"):
            seen(replace(by_witness(), value=other))
