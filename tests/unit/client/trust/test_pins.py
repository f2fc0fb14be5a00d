"""Pinned publishers: the value, its file, and several processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import support
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.store.locks import hold_lock
from memcube.trust import Observation, Pin, Pins, PinStore, Place
from memcube.trust.pins import PINS_FILE, parse
from memcube_protocol.errors import (
    ConflictError,
    InvalidStatementError,
    OriginMismatchError,
    PublisherChangedError,
    StorageError,
)
from support.signing import ALICE, EDDIE, MALLORY, ORIGIN, next_release, release

MIRROR = "mirror.example/copies/notes"


def seen(key=ALICE, location=ORIGIN, tag="latest", **more) -> Observation:
    return Observation(location, tag, release(key), (key.public_key,), **more)


PINS = Pins().recording(seen()).recording(seen(location=MIRROR, tag=None))


def test_pins_read_back_from_their_file():
    assert parse(PINS.to_bytes()) == PINS
    assert parse(Pins().to_bytes()) == Pins()
    later = PINS.recording(replace(seen(), release=next_release(release(), "two")))
    assert parse(later.to_bytes()) == later
    assert later.at(ORIGIN).tags == {"latest": 2}


def test_recording_again_changes_nothing():
    assert PINS.recording(seen()) == PINS


def test_another_publisher_is_not_recorded_over_the_pinned_one():
    with pytest.raises(PublisherChangedError):
        PINS.recording(seen(MALLORY))
    assert PINS.recording(seen(MALLORY, replaces=True)).of(ORIGIN).publishers == (
        MALLORY.public_key,
    )


def test_another_origin_is_not_recorded_over_the_known_one():
    other = replace(release(), origin="registry.example/bob/facts")
    moved = Observation(MIRROR, None, other, (ALICE.public_key,))
    with pytest.raises(OriginMismatchError):
        PINS.recording(moved)
    assert PINS.recording(replace(moved, moves=True)).at(MIRROR).origin == other.origin


def test_one_of_several_pinned_keys_is_enough():
    both = (ALICE.public_key, EDDIE.public_key)
    pins = Pins().recording(replace(seen(), publishers=both))
    assert pins.recording(seen(EDDIE)).of(ORIGIN).publishers == both


def test_the_newest_release_is_known():
    second = next_release(release(), "two")
    pins = PINS.recording(replace(seen(), release=second))
    assert pins.of(ORIGIN).newest.seq == 2
    assert PINS.of(ORIGIN).newest.seq == 1


def test_forgetting_an_origin_forgets_its_copies():
    assert PINS.without(ORIGIN) == Pins()
    assert PINS.without("x.example/y") == PINS


KEY = json.loads(PINS.to_bytes())["origins"][ORIGIN]["publishers"][0]
OF = {"manifest": str(release().subject)}


def broken(**change) -> bytes:
    return json.dumps(json.loads(PINS.to_bytes()) | change).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        broken(format=2),
        broken(format=0),
        broken(more=1),
        broken(origins=[]),
        broken(origins={"no host": {}}),
        broken(origins={ORIGIN: {}}),
        broken(origins={ORIGIN: {"publishers": [], "seen": {}}}),
        broken(origins={ORIGIN: {"publishers": ["*"], "seen": {}}}),
        broken(origins={ORIGIN: {"publishers": [1], "seen": {}}}),
        broken(places={MIRROR: {"origin": ORIGIN, "tags": {"latest": "1"}}}),
        broken(places={MIRROR: {"origin": ORIGIN, "tags": {"latest": 0}}}),
        broken(places={MIRROR: {"origin": ORIGIN, "tags": {"latest": 1.5}}}),
        broken(places={MIRROR: {"origin": ORIGIN, "tags": {"latest": -1}}}),
        broken(places={MIRROR: {"origin": ORIGIN, "tags": {"latest": True}}}),
        broken(places={MIRROR: {"origin": "no host", "tags": {}}}),
        broken(places={MIRROR: {"origin": ORIGIN}}),
        broken(origins={ORIGIN: {"publishers": [KEY], "seen": {"1.0.0": {"seq": 0} | OF}}}),
        broken(origins={ORIGIN: {"publishers": [KEY], "seen": {"1.0.0": {"seq": True} | OF}}}),
        broken(origins={ORIGIN: {"publishers": [KEY], "seen": {"1.0.0": {"seq": 1}}}}),
        broken(origins={ORIGIN: {"publishers": [f"{KEY[:8]}\n{KEY[8:]}"], "seen": {}}}),
        broken(format=None),
        broken(places={MIRROR: None}),
        PINS.to_bytes()[:-10],
    ],
)
def test_a_damaged_file_is_an_error_and_never_an_empty_one(content, tmp_path: Path):
    (tmp_path / PINS_FILE).write_bytes(content)
    with pytest.raises(StorageError) as caught:
        PinStore(tmp_path).load()
    assert caught.value.hint
    with pytest.raises(StorageError):
        PinStore(tmp_path).record(seen())
    assert (tmp_path / PINS_FILE).read_bytes() == content


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_random_bytes_raise_only_our_error(content):
    with pytest.raises(StorageError):
        parse(content)


def test_the_store_begins_empty_and_keeps_what_is_recorded(tmp_path: Path):
    store = PinStore(tmp_path / "trust")
    assert store.load() == Pins()
    store.record(seen())
    store.record_copy(MIRROR, ORIGIN)
    assert PinStore(tmp_path / "trust").load().at(MIRROR).origin == ORIGIN
    assert ((tmp_path / "trust" / PINS_FILE).stat().st_mode & 0o777) == 0o600
    store.forget(ORIGIN)
    assert store.load() == Pins()


RECORD_MANY = """
import sys
from dataclasses import replace
from pathlib import Path
from memcube.trust import Observation, PinStore
from support.signing import ALICE, release
for number in range(10):
    said = replace(release(), origin=f"registry.example/w{sys.argv[2]}/c{number}")
    seen = Observation(said.origin, "latest", said, (ALICE.public_key,))
    PinStore(Path(sys.argv[1])).record(seen)
"""


def test_a_file_larger_than_any_is_not_read(tmp_path: Path):
    path = tmp_path / PINS_FILE
    path.touch(mode=0o600)
    os.truncate(path, 64 * 1024 * 1024 + 1)
    with pytest.raises(StorageError, match="larger than 67108864 bytes"):
        PinStore(tmp_path).load()


def test_for_another_process_half_a_minute_is_waited(tmp_path: Path, monkeypatch):
    ticks = SimpleNamespace(monotonic=count(step=10).__next__, sleep=lambda _: None)
    monkeypatch.setattr("memcube.store.locks.time", ticks)
    with (
        hold_lock(tmp_path / f".{PINS_FILE}.lock", exclusive=False, wait_s=1),
        pytest.raises(ConflictError, match="for 30 s"),
    ):
        PinStore(tmp_path).record(seen())


def test_nothing_is_recorded_while_another_process_reads_and_writes(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("memcube.trust.pins._LOCK_WAIT_S", 0.1)
    with (
        hold_lock(tmp_path / f".{PINS_FILE}.lock", exclusive=False, wait_s=1),
        pytest.raises(ConflictError),
    ):
        PinStore(tmp_path).record(seen())
    assert PinStore(tmp_path).load() == Pins()


def test_several_processes_lose_no_pin(tmp_path: Path):
    command = [sys.executable, "-c", RECORD_MANY, str(tmp_path)]
    environ = os.environ | {"PYTHONPATH": str(Path(support.__file__).parent.parent)}
    started = [subprocess.Popen([*command, str(worker)], env=environ) for worker in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert len(PinStore(tmp_path).load().origins) == 30


def test_a_new_publisher_begins_a_new_history_in_every_place():
    known = PINS.recording(seen(location=MIRROR)).with_copy("other.example/a", "r.example/b/c")
    replaced = known.recording(seen(MALLORY, tag=None, replaces=True))
    assert replaced.of(ORIGIN).publishers == (MALLORY.public_key,)
    assert replaced.of(ORIGIN).newest.seq == 1
    assert replaced.at(MIRROR) == Place(ORIGIN)
    assert replaced.at("other.example/a") == known.at("other.example/a")


def test_a_place_keeps_its_tags_unless_it_moves():
    second = replace(seen(tag="v"), release=next_release(release(), "two"))
    pins = PINS.recording(second)
    assert pins.at(ORIGIN) == Place(ORIGIN, {"latest": 1, "v": 2})
    assert pins.at(MIRROR) == Place(ORIGIN)
    again = pins.recording(replace(seen(), moves=True))
    assert again.at(ORIGIN) == pins.at(ORIGIN)
    for name in ("a.example/a/a", "z.example/z/z"):
        other = replace(release(), origin=name)
        moved = pins.recording(Observation(ORIGIN, "w", other, (ALICE.public_key,), moves=True))
        assert moved.at(ORIGIN) == Place(name, {"w": 1})
        with pytest.raises(OriginMismatchError):
            pins.recording(Observation(ORIGIN, "w", other, (ALICE.public_key,)))


def test_what_is_copied_keeps_the_tags_of_the_same_origin_only():
    pins = PINS.recording(seen(location=MIRROR))
    assert pins.with_copy(MIRROR, ORIGIN) == pins
    for name in ("a.example/a/a", "z.example/z/z"):
        assert pins.with_copy(MIRROR, name).at(MIRROR) == Place(name)
    with pytest.raises(InvalidStatementError):
        pins.with_copy(MIRROR, "no host")


def test_forgetting_one_origin_keeps_the_others():
    for name in ("a.example/a/a", "z.example/z/z"):
        other = Observation(name, "latest", replace(release(), origin=name), (ALICE.public_key,))
        assert PINS.recording(other).without(name) == PINS


def test_the_newest_of_nothing_is_none():
    assert Pin((ALICE.public_key,)).newest is None


def test_what_is_recorded_twice_is_written_once(tmp_path: Path):
    store = PinStore(tmp_path)
    store.record(seen())
    before = (tmp_path / PINS_FILE).stat().st_ino
    store.record(seen())
    assert (tmp_path / PINS_FILE).stat().st_ino == before
    store.record(seen(tag="other"))
    assert store.load().at(ORIGIN).tags == {"latest": 1, "other": 1}
