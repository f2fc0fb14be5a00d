"""Pinned publishers: the value, its file, and several processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import support
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.trust import Observation, Pins, PinStore
from memcube.trust.pins import PINS_FILE, parse
from memcube_protocol.errors import OriginMismatchError, PublisherChangedError, StorageError
from support.signing import ALICE, EDDIE, MALLORY, ORIGIN, next_release, release

MIRROR = "mirror.example/copies/notes"


def seen(key=ALICE, location=ORIGIN, tag="latest", **more) -> Observation:
    return Observation(location, tag, release(key), (key.public_key,), **more)


PINS = Pins().recording(seen()).recording(seen(location=MIRROR, tag=None))


def test_pins_read_back_from_their_file():
    assert parse(PINS.to_bytes()) == PINS
    assert parse(Pins().to_bytes()) == Pins()


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


def broken(**change) -> bytes:
    return json.dumps(json.loads(PINS.to_bytes()) | change).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        broken(format=2),
        broken(more=1),
        broken(origins=[]),
        broken(origins={"no host": {}}),
        broken(origins={ORIGIN: {}}),
        broken(origins={ORIGIN: {"publishers": [], "seen": {}}}),
        broken(origins={ORIGIN: {"publishers": ["*"], "seen": {}}}),
        broken(origins={ORIGIN: {"publishers": [1], "seen": {}}}),
        broken(places={MIRROR: {"origin": ORIGIN, "tags": {"latest": "1"}}}),
        broken(places={MIRROR: {"origin": ORIGIN, "tags": {"latest": 0}}}),
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


def test_several_processes_lose_no_pin(tmp_path: Path):
    command = [sys.executable, "-c", RECORD_MANY, str(tmp_path)]
    environ = os.environ | {"PYTHONPATH": str(Path(support.__file__).parent.parent)}
    started = [subprocess.Popen([*command, str(worker)], env=environ) for worker in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert len(PinStore(tmp_path).load().origins) == 30
