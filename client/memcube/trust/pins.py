"""What this user has seen: publishers pinned at first use, releases, and where copies lie.

`Pins` is a value, written as one JSON file; `PinStore` keeps it on disk for several processes. An
**origin** is the name in the release statement, a **location** the name that was asked for.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final

from memcube_protocol import canonical_json
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidError,
    OriginMismatchError,
    PublisherChangedError,
    StorageError,
)
from memcube_protocol.values import frozen
from memcube_signing.keys import PublicKey
from memcube_signing.release import Release, require_origin

from memcube.store.files import read_file, read_own_file, replace_file
from memcube.store.locks import hold_lock

PINS_FILE: Final = "pins.json"
_FORMAT: Final = 1
_FILE_BYTES: Final = 64 * 1024 * 1024
_LOCK_WAIT_S: Final = 30.0


@frozen
class Seen:
    """A release that was accepted once: its place in the order, and the manifest it names."""

    seq: int
    manifest: Digest


@frozen
class Pin:
    """What is known of one origin: the publisher's keys, and accepted releases by version."""

    publishers: tuple[PublicKey, ...]
    seen: Mapping[str, Seen] = field(default_factory=dict[str, Seen])

    @property
    def newest(self) -> Seen | None:
        """The accepted release with the highest `seq`."""
        return max(self.seen.values(), key=lambda seen: seen.seq, default=None)


@frozen
class Place:
    """What is known of one location: whose cube lies there, and the `seq` last seen by each tag."""

    origin: str
    tags: Mapping[str, int] = field(default_factory=dict[str, int])


@frozen
class Observation:
    """An accepted release, to be remembered: where it was found, by which tag, signed by whom.

    `replaces` says that the user accepted `publishers` instead of those pinned before, `moves` that
    the user accepted another origin at this location.
    """

    location: str
    tag: str | None
    release: Release
    publishers: tuple[PublicKey, ...]
    replaces: bool = False
    moves: bool = False


@frozen
class Pins:
    """All that was pinned, by origin and by location."""

    origins: Mapping[str, Pin] = field(default_factory=dict[str, Pin])
    places: Mapping[str, Place] = field(default_factory=dict[str, Place])

    def of(self, origin: str) -> Pin | None:
        """What is known of `origin`."""
        return self.origins.get(origin)

    def at(self, location: str) -> Place | None:
        """What is known of `location`."""
        return self.places.get(location)

    def recording(self, seen: Observation) -> Pins:
        """These pins with `seen` remembered. Recording it again changes nothing.

        Raises:
            PublisherChangedError: meanwhile another publisher was pinned for this origin.
            OriginMismatchError: meanwhile another origin was recorded for this location.
        """
        pins = self._with_publisher(seen)
        pin, place = pins.origins[seen.release.origin], pins._place_of(seen)
        entry = Seen(seen.release.seq, seen.release.subject)
        pin = replace(pin, seen={**pin.seen, seen.release.version: entry})
        if seen.tag is not None:
            place = replace(place, tags={**place.tags, seen.tag: seen.release.seq})
        return Pins(
            {**pins.origins, seen.release.origin: pin}, {**pins.places, seen.location: place}
        )

    def _with_publisher(self, seen: Observation) -> Pins:
        """These pins with the publishers of `seen`: new ones begin a new history."""
        origin = seen.release.origin
        pin = self.of(origin)
        if pin and {key.id for key in seen.publishers} & {key.id for key in pin.publishers}:
            return self
        if pin and not seen.replaces:
            raise PublisherChangedError(
                f"another publisher was pinned for {origin} in the meantime",
                hint="run the command again: it is judged by the new pin",
            )
        places = {
            location: Place(origin) if place.origin == origin else place
            for location, place in self.places.items()
        }
        return Pins({**self.origins, origin: Pin(seen.publishers)}, places)

    def _place_of(self, seen: Observation) -> Place:
        place = self.at(seen.location)
        if place is None or (seen.moves and place.origin != seen.release.origin):
            return Place(seen.release.origin)
        if place.origin != seen.release.origin:
            raise OriginMismatchError(
                f"{seen.location} was recorded as a copy of {place.origin} in the meantime",
                hint="run the command again: it is judged by the new record",
            )
        return place

    def with_copy(self, location: str, origin: str) -> Pins:
        """These pins knowing that `location` holds copies of `origin`, since this user made them."""
        require_origin(origin)
        known = self.at(location)
        place = known if known and known.origin == origin else Place(origin)
        return Pins(self.origins, {**self.places, location: place})

    def without(self, origin: str) -> Pins:
        """These pins with `origin` and its copies forgotten: the next use is a first use again."""
        return Pins(
            {name: pin for name, pin in self.origins.items() if name != origin},
            {name: place for name, place in self.places.items() if place.origin != origin},
        )

    def to_bytes(self) -> bytes:
        """These pins as canonical JSON."""
        return canonical_json.dump(
            {
                "format": _FORMAT,
                "origins": {origin: _pin_to_json(pin) for origin, pin in self.origins.items()},
                "places": {
                    location: {"origin": place.origin, "tags": dict(place.tags)}
                    for location, place in self.places.items()
                },
            }
        )


def parse(content: bytes) -> Pins:
    """The pins that `content` holds.

    Raises:
        StorageError: damaged or written by a newer version. It is never read as "no pins", which
            would switch the alarm off.
    """
    try:
        value = canonical_json.parse_object(content, what="pins")
        if value.pop("format", None) != _FORMAT:
            raise ValueError("unknown format")
        pins = Pins(
            {require_origin(name): _pin(pin) for name, pin in value.pop("origins").items()},
            {name: _place(place) for name, place in value.pop("places").items()},
        )
        if value:
            raise ValueError("unknown fields")
    except (InvalidError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"the pins of publishers cannot be read: {error}",
            hint=f"restore {PINS_FILE} from a backup; deleting it forgets every publisher you trust",
        ) from None
    return pins


class PinStore:
    """The pins of one user in a folder, safe for several processes at once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PINS_FILE

    def load(self) -> Pins:
        """The pins as they are now; none where nothing was pinned yet.

        Raises:
            StorageError: the file is damaged or cannot be read.
        """
        content = read_own_file(self._path, _FILE_BYTES)
        return parse(content) if content is not None else Pins()

    def record(self, *seen: Observation) -> None:
        """Remember all of `seen`, one after the other, judged against what other processes pinned meanwhile.

        Raises:
            PublisherChangedError, OriginMismatchError: see `Pins.recording`.
            StorageError: the file is damaged or cannot be written.
            ConflictError: another process held the lock for 30 seconds.
        """
        with self._locked():
            pins = self.load()
            for one in seen:
                pins = pins.recording(one)
            self._save(pins)

    def record_copy(self, location: str, origin: str) -> None:
        """Remember that this user copied `origin` to `location`.

        Raises:
            StorageError, ConflictError: as `record`.
        """
        with self._locked():
            self._save(self.load().with_copy(location, origin))

    def forget(self, origin: str) -> None:
        """Forget `origin`: its next use is a first use again.

        Raises:
            StorageError, ConflictError: as `record`.
        """
        with self._locked():
            self._save(self.load().without(origin))

    def _save(self, pins: Pins) -> None:
        content = pins.to_bytes()
        if read_file(self._path, _FILE_BYTES) != content:
            replace_file(self._path, content)

    def _locked(self) -> AbstractContextManager[None]:
        lock = self._path.with_name(f".{PINS_FILE}.lock")
        return hold_lock(lock, exclusive=True, wait_s=_LOCK_WAIT_S)


def _pin_to_json(pin: Pin) -> dict[str, Any]:
    return {
        "publishers": [base64.b64encode(key.der).decode() for key in pin.publishers],
        "seen": {
            version: {"seq": seen.seq, "manifest": str(seen.manifest)}
            for version, seen in pin.seen.items()
        },
    }


def _pin(value: Mapping[str, Any]) -> Pin:
    try:
        keys = tuple(
            PublicKey(base64.b64decode(text, validate=True)) for text in value["publishers"]
        )
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if not keys:
        raise ValueError("an origin without publisher")
    seen = {
        version: Seen(_count(entry["seq"]), Digest.parse(entry["manifest"]))
        for version, entry in value["seen"].items()
    }
    return Pin(keys, seen)


def _place(value: Mapping[str, Any]) -> Place:
    tags = {tag: _count(seq) for tag, seq in value["tags"].items()}
    return Place(require_origin(value["origin"]), tags)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("a seq that does not count from 1")
    return value
