"""What this machine was measured to do: bytes a second from disk and registries, seconds to prefill.

Kept in `speeds.json` of the user's home, written by mounts and pulls, read by the planner of mounts
(docs/adr/0033). Nothing in it leaves the machine; a file that is lost or damaged is measured anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from memcube_protocol.errors import MemcubeError
from memcube_protocol.fields import Fields, write_moment
from memcube_protocol.values import frozen

from memcube.store import files

FILE: Final = "speeds.json"
FORMAT: Final = 1
_BYTES: Final = 256 * 1024
_KEPT: Final = 64
"""Registries and models that are remembered: those that were measured last."""

_NEWS: Final = 0.5
"""What a new transfer weighs against those before: networks change by the hour."""

_SHORT_BYTES: Final = 1 << 20
"""A transfer of less says more of the distance than of the bandwidth."""


@frozen
class Rate:
    """Bytes a second, and when that was measured."""

    bytes_per_s: float
    measured_at: datetime

    def __post_init__(self) -> None:
        _require_positive(self.bytes_per_s)

    @classmethod
    def at(cls, bytes_per_s: float, now: datetime) -> Self:
        """A rate that was measured just `now`."""
        return cls(bytes_per_s, now.replace(microsecond=0))

    def seconds(self, size_bytes: int) -> float:
        """How long `size_bytes` take."""
        return size_bytes / self.bytes_per_s

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this rate."""
        return {
            "bytesPerSecond": self.bytes_per_s,
            "measuredAt": write_moment(self.measured_at),
        }


@frozen
class Prefill:
    """How long a model reads n tokens: `linear_s` n + `quadratic_s` n². Measured up to `tokens`."""

    linear_s: float
    quadratic_s: float
    tokens: int
    measured_at: datetime

    def __post_init__(self) -> None:
        _require_positive(self.linear_s)
        _require_positive(self.tokens)
        if not (math.isfinite(self.quadratic_s) and self.quadratic_s >= 0):
            raise ValueError("no figure")

    @classmethod
    def through(cls, short: tuple[int, float], long: tuple[int, float], now: datetime) -> Self:
        """The curve through two measurements (tokens, seconds), the longer one last.

        Where the second took no more a token than the first, it is a line through the second.
        """
        (few, few_s), (many, many_s) = short, long
        quadratic = (many_s / many - few_s / few) / (many - few) if many > few else 0.0
        quadratic = max(quadratic, 0.0)
        linear = many_s / many - quadratic * many
        if linear <= 0:
            linear, quadratic = many_s / many, 0.0
        return cls(linear, quadratic, many, now.replace(microsecond=0))

    def seconds(self, tokens: int) -> float:
        """How long `tokens` tokens take."""
        return self.linear_s * tokens + self.quadratic_s * tokens * tokens

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this figure."""
        return {
            "linearSeconds": self.linear_s,
            "quadraticSeconds": self.quadratic_s,
            "tokens": self.tokens,
            "measuredAt": write_moment(self.measured_at),
        }


Figure = TypeVar("Figure", Rate, Prefill)


@frozen
class Speeds:
    """All that is known of this machine; None, or absent, is what was not measured yet.

    `cold` and `warm` are reading and checking a file that is not, or that is, in the page cache.
    `networks` holds a rate by host of a registry, `prefills` a figure by `measuring.model_mark`.
    """

    cold: Rate | None = None
    warm: Rate | None = None
    networks: Mapping[str, Rate] = field(default_factory=dict[str, Rate])
    prefills: Mapping[str, Prefill] = field(default_factory=dict[str, Prefill])

    def with_transfer(self, host: str, moved_bytes: int, seconds: float, now: datetime) -> Speeds:
        """These speeds, with a transfer from `host`; a short one tells nothing."""
        if moved_bytes < _SHORT_BYTES or seconds <= 0:
            return self
        rate, before = moved_bytes / seconds, self.networks.get(host)
        if before is not None:
            rate = _NEWS * rate + (1 - _NEWS) * before.bytes_per_s
        return replace(self, networks=_latest({**self.networks, host: Rate.at(rate, now)}))

    def with_prefill(self, mark: str, figure: Prefill) -> Speeds:
        """These speeds, with the figure of a model."""
        return replace(self, prefills=_latest({**self.prefills, mark: figure}))

    def to_json(self) -> dict[str, Any]:
        """The JSON object of these speeds."""
        disk = {"cold": self.cold, "warm": self.warm}
        return {
            "format": FORMAT,
            "disk": {name: rate.to_json() for name, rate in disk.items() if rate},
            "networks": {host: rate.to_json() for host, rate in self.networks.items()},
            "prefills": {mark: figure.to_json() for mark, figure in self.prefills.items()},
        }

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Speeds that a file holds.

        Raises:
            ValueError, MemcubeError: it is damaged, or of another format.
        """
        fields = Fields(json.loads(raw), FILE)
        if fields.integer("format") != FORMAT:
            raise fields.refuse("format", "is another one")
        disk = {name: _rate(value) for name, value in fields.object("disk").items()}
        networks = {host: _rate(value) for host, value in fields.object("networks").items()}
        prefills = {mark: _prefill(value) for mark, value in fields.object("prefills").items()}
        fields.finish()
        return cls(disk.get("cold"), disk.get("warm"), networks, prefills)


class SpeedStore:
    """`speeds.json` in the folder `home`."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE

    def load(self) -> Speeds:
        """What is known; nothing where the file is absent or damaged, or somebody else could write it."""
        try:
            raw = files.read_own_file(self._path, _BYTES)
            return Speeds.parse(raw) if raw else Speeds()
        except (ValueError, TypeError, OverflowError, RecursionError, MemcubeError):
            return Speeds()

    def keep(self, speeds: Speeds) -> None:
        """Remember `speeds`. Of two processes the last one wins: the other measures again.

        A disk that refuses is no reason to end a mount: then nothing is remembered.
        """
        try:
            files.make_folder(self._path.parent)
            content = json.dumps(speeds.to_json()).encode()
            files.replace_file(self._path, content, lasting=False)
        except MemcubeError:
            return

    def note_transfer(self, host: str, moved_bytes: int, seconds: float, now: datetime) -> None:
        """Remember how fast `host` sent something."""
        before = self.load()
        after = before.with_transfer(host, moved_bytes, seconds, now)
        if after is not before:
            self.keep(after)


def _require_positive(number: float) -> None:
    if not (math.isfinite(number) and number > 0):
        raise ValueError("no figure")


def _rate(value: Any) -> Rate:
    fields = Fields(value, "rate")
    return Rate(_number(fields, "bytesPerSecond"), _moment(fields))


def _prefill(value: Any) -> Prefill:
    fields = Fields(value, "prefill")
    linear, quadratic = _number(fields, "linearSeconds"), _number(fields, "quadraticSeconds")
    return Prefill(linear, quadratic, fields.integer("tokens") or 0, _moment(fields))


def _number(fields: Fields, key: str) -> float:
    value = fields.take(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise fields.refuse(key, "is no number")
    return float(value)


def _moment(fields: Fields) -> datetime:
    moment = fields.moment("measuredAt")
    if moment is None:
        raise fields.refuse("measuredAt", "is missing")
    return moment


def _latest(figures: dict[str, Figure]) -> dict[str, Figure]:
    """The figures that were measured last, as many as are kept."""
    latest = sorted(figures.items(), key=lambda item: item[1].measured_at, reverse=True)
    return dict(latest[:_KEPT])
