"""The planner: for each memory, load it, prefill its text, look its records up, or leave it. Pure.

    plan((offer, …), Circumstances(speeds, has_model=True, prefill=figure))

| kind | with a model that it fits | with another model | without a model |
|---|---|---|---|
| parametric | load | leave | leave |
| activation | load, or prefill where that saves a quarter of a second; of a second one its text is looked up | leave; with `rebuild` prefill | its text as a prefix where the budget allows, else looked up |
| plaintext | look up | look up | look up |

Every choice says why, with bytes and seconds. Seconds come from what this machine was measured to do
(`memcube.speeds`); what was not measured is said, and then loading is preferred: it is exact and was
verified.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from memcube_protocol.config import ACTIVATION, PARAMETRIC, PLAINTEXT
from memcube_protocol.values import frozen

from memcube.context import CONTEXT_TOKENS
from memcube.figures import bytes_text, count_text, rate_text, seconds_text
from memcube.speeds import Prefill, Rate, Speeds

SAVING_S: Final = 0.25
"""Prefilling must save more than this: below it, what was made and verified is not worth leaving."""

PREFIX_SHARE: Final = 0.5
"""How much of the budget a text may take that every prompt starts with; the rest is for records."""

LITTLE_BYTES: Final = 1 << 20
"""So much is read from a disk in no time that is worth measuring."""

_LONGER: Final = 4
"""No text has so much fewer tokens than the careful estimate."""

ORDER: Final = (PARAMETRIC, ACTIVATION, PLAINTEXT)


class Act(StrEnum):
    """What is done with one memory."""

    LOAD = "load"
    PREFILL = "prefill"
    RETRIEVE = "retrieve"
    LEAVE = "leave"


@frozen
class Misfit:
    """Why a memory does not fit the model, and what to do about it."""

    why: str
    hint: str | None = None


@frozen
class Offer:
    """One memory of a cube, as its config and this machine know it before a layer is fetched.

    `size_bytes` are its layers, `absent_bytes` those that the local store lacks and `host` would
    send. `warm_share` of what is here lies in the page cache. `tokens` is how much of a KV cache of
    `whole_tokens` is wanted, `text_tokens` a careful estimate of its source text where
    that is here, `records` the number of records. `has_text` says whether a KV cache carries its source text: None
    where that is not known before its manifest is here. `forbidden` is why the cube's own rules forbid
    that it is mounted. `answers` is how many were given with it on this machine, `mounts` how often its
    cube was mounted here before. `spare` says that it was built of another memory which is offered too.
    """

    cube: str
    memory: str
    kind: str
    host: str = ""
    size_bytes: int = 0
    absent_bytes: int = 0
    warm_share: float = 0.0
    tokens: int = 0
    whole_tokens: int = 0
    text_tokens: int = 0
    records: int = 0
    has_text: bool | None = None
    misfit: Misfit | None = None
    forbidden: str | None = None
    answers: int = 0
    mounts: int = 0
    spare: bool = False

    @property
    def tokens_to_read(self) -> int:
        """What reading it anew takes: by its config, unless its text is plainly longer than that says."""
        wanted = self.text_tokens // _LONGER
        return max(self.tokens, wanted if self.tokens >= self.whole_tokens else 0)


@frozen
class Circumstances:
    """What the choice depends on besides the memories. `prefill` is how fast the model reads."""

    speeds: Speeds = field(default_factory=Speeds)
    has_model: bool = False
    prefill: Prefill | None = None
    rebuild: bool = False
    budget_tokens: int = CONTEXT_TOKENS
    compose: bool = False


@frozen
class Planned:
    """What is done with one memory and why; `seconds` is None where a figure is lacking.

    `keep` is whether a text that is read anew is kept as a cache on disk, for the mounts after this.
    """

    offer: Offer
    act: Act
    why: str
    fetch_bytes: int = 0
    seconds: float | None = 0.0
    keep: bool = False

    def to_json(self) -> dict[str, Any]:
        """The stable JSON of this choice."""
        return {
            "cube": self.offer.cube,
            "memory": self.offer.memory,
            "kind": self.offer.kind,
            "act": str(self.act),
            "why": self.why,
            "sizeBytes": self.offer.size_bytes,
            "fetchBytes": self.fetch_bytes,
            "seconds": None if self.seconds is None else round(self.seconds, 4),
        }


@frozen
class Plan:
    """What is done with every memory, in the order in which it is done."""

    choices: tuple[Planned, ...]

    @property
    def fetch_bytes(self) -> int:
        """What would be fetched."""
        return sum(choice.fetch_bytes for choice in self.choices)

    @property
    def seconds(self) -> float | None:
        """How long all of it takes; None where a figure is lacking for a part of it."""
        known = [choice.seconds for choice in self.choices if choice.seconds is not None]
        return sum(known) if len(known) == len(self.choices) else None

    @property
    def refused_kinds(self) -> tuple[str, ...]:
        """Kinds of which the cubes have memories, none of them fit for the model: a mount ends with that."""
        misfits = {
            one.offer.kind
            for one in self.choices
            if one.act is Act.LEAVE and one.offer.misfit and not one.offer.spare
        }
        used = {one.offer.kind for one in self.choices if one.act is not Act.LEAVE}
        return tuple(kind for kind in ORDER if kind in misfits - used)

    @property
    def refused_cubes(self) -> tuple[str, ...]:
        """Cubes whose own rules forbid it: a mount ends with that of the first, whatever the others allow."""
        forbidden = (one.offer.cube for one in self.choices if one.offer.forbidden)
        return tuple(dict.fromkeys(forbidden))

    def of(self, cube: str, memory: str) -> Planned | None:
        """The choice for one memory."""
        return next(
            (one for one in self.choices if (one.offer.cube, one.offer.memory) == (cube, memory)),
            None,
        )


def plan(offers: Iterable[Offer], at: Circumstances) -> Plan:
    """What is done with each of `offers`, given by priority of their cubes."""
    offers = sorted(offers, key=lambda offer: ORDER.index(offer.kind))  # stable: cubes keep theirs
    planner = _Planner(at, int(at.budget_tokens * PREFIX_SHARE))
    return Plan(tuple(map(planner.choose, offers)))


@dataclass(slots=True)
class _Planner:
    """Goes through the memories; `prefix` is the KV memory that every prompt starts with, once chosen."""

    at: Circumstances
    prefix_tokens: int
    prefix: Offer | None = None

    def choose(self, offer: Offer) -> Planned:
        """What is done with `offer`."""
        if offer.forbidden:
            return Planned(offer, Act.LEAVE, f"the cube's own rules forbid it: {offer.forbidden}")
        if offer.kind == PLAINTEXT:
            return self._fetched(offer, Act.RETRIEVE, count_text(offer.records, "record"))
        if offer.kind == ACTIVATION:
            return self._cache(offer) if self.at.has_model else self._without_model(offer)
        if not self.at.has_model:
            return Planned(offer, Act.LEAVE, "an adapter needs a model to be mounted on")
        return _refused(offer) if offer.misfit else self._fetched(offer, Act.LOAD, "")

    def _without_model(self, offer: Offer) -> Planned:
        """A KV cache where no model is at hand: only its text is of use, if it carries one."""
        if not offer.has_text:
            return Planned(offer, Act.LEAVE, f"a KV cache needs a model{_unknown_text(offer)}")
        tokens = offer.text_tokens
        if tokens > self.prefix_tokens:
            why = f"its text of about {tokens} tokens is more than a prefix may have"
            return Planned(
                offer, Act.RETRIEVE, f"{why} ({self.prefix_tokens}): passages are looked up"
            )
        self.prefix_tokens -= tokens
        why = f"its text of about {tokens} tokens starts every prompt"
        return Planned(offer, Act.PREFILL, why)

    def _cache(self, offer: Offer) -> Planned:
        """A KV cache and a model: load it, prefill its text, or look that up."""
        if offer.misfit and not (self.at.rebuild and offer.has_text):
            return _refused(offer)
        if self.prefix is not None:
            return self._second(offer)
        self.prefix = offer
        if offer.misfit:
            return self._prefilled(offer, f"it does not fit ({offer.misfit.why})")
        load_s, loading = self._loading(offer)
        prefill_s = self._prefill_s(offer)
        told = f"{loading}; {self._compared(offer, load_s, prefill_s)}{_used(offer)}"
        each_s = self._each_s(offer, load_s)
        if not offer.has_text or prefill_s is None or each_s is None:
            return Planned(offer, Act.LOAD, told, offer.absent_bytes, load_s)
        if each_s - prefill_s > SAVING_S:
            return self._prefilled(offer, f"loading {told}")
        return Planned(offer, Act.LOAD, told, offer.absent_bytes, load_s)

    def _each_s(self, offer: Offer, load_s: float | None) -> float | None:
        """What loading costs each time: what is fetched once serves as many mounts as there were so far."""
        network = self.at.speeds.networks.get(offer.host)
        if load_s is None or not network or offer.mounts < 2:
            return load_s
        fetch_s = network.seconds(offer.absent_bytes)
        return load_s - fetch_s + fetch_s / offer.mounts

    def _second(self, offer: Offer) -> Planned:
        assert self.prefix is not None
        if self.at.compose and not offer.misfit:
            behind = f"behind {self.prefix.memory} of {self.prefix.cube}, which is approximate"
            return self._fetched(offer, Act.LOAD, behind)
        why = f"one prefix is exact, and {self.prefix.memory} of {self.prefix.cube} is it"
        if not offer.has_text:
            return Planned(offer, Act.LEAVE, f"{why}{_unknown_text(offer)}")
        return Planned(offer, Act.RETRIEVE, f"{why}: passages of its text are looked up")

    def _prefilled(self, offer: Offer, why: str) -> Planned:
        seconds = self._prefill_s(offer)
        took = (
            "takes a time not measured yet" if seconds is None else f"takes {seconds_text(seconds)}"
        )
        told = f"reading its {count_text(offer.tokens_to_read, 'token')} anew {took}: {why}"
        cold = self.at.speeds.cold
        keep = not (seconds and cold) or seconds - cold.seconds(offer.size_bytes) > SAVING_S
        return Planned(offer, Act.PREFILL, told, 0, seconds, keep)

    def _fetched(self, offer: Offer, act: Act, what: str) -> Planned:
        seconds, told = self._loading(offer)
        return Planned(offer, act, f"{what}, {told}" if what else told, offer.absent_bytes, seconds)

    def _loading(self, offer: Offer) -> tuple[float | None, str]:
        """Seconds to have the bytes of `offer`, None where a figure is lacking; and how they are made up."""
        here, speeds = offer.size_bytes - offer.absent_bytes, self.at.speeds
        warm = round(here * offer.warm_share)
        parts = (
            _Portion(offer.absent_bytes, f"from {offer.host}", speeds.networks.get(offer.host)),
            _Portion(here - warm, "from disk", speeds.cold, is_local=True),
            # What has just come is in the page cache.
            _Portion(warm + offer.absent_bytes, "from the page cache", speeds.warm, is_local=True),
        )
        needed = [part for part in parts if part.size_bytes]
        known = [seconds for part in needed if (seconds := part.seconds) is not None]
        told = ", ".join(map(str, needed)) or "0 B"
        return (sum(known) if len(known) == len(needed) else None), told

    def _prefill_s(self, offer: Offer) -> float | None:
        figure = self.at.prefill
        tokens = offer.tokens_to_read
        return figure.seconds(tokens) if figure and tokens else None

    def _compared(self, offer: Offer, load_s: float | None, prefill_s: float | None) -> str:
        """What the other way would take, and from which bandwidth on loading pays."""
        if prefill_s is None:
            return "how fast this model reads is not measured here yet"
        pays = f"loading pays above {rate_text(offer.size_bytes / prefill_s)}"
        reading = f"reading its {count_text(offer.tokens_to_read, 'token')} anew takes {seconds_text(prefill_s)}"
        if offer.has_text is False:
            return f"{reading}, but it carries no text; {pays}"
        often = offer.mounts > 1 and offer.absent_bytes
        shared = f"; fetched once, where it was mounted {offer.mounts} times" if often else ""
        close = load_s is not None and 0 < load_s - prefill_s <= SAVING_S
        return f"{reading}; {pays}{', and little is lost' if close else ''}{shared}{_unknown_text(offer)}"


class _Portion(NamedTuple):
    """Bytes that are read from one place, and how fast that is."""

    size_bytes: int
    where: str
    rate: Rate | None
    is_local: bool = False

    @property
    def seconds(self) -> float | None:
        """How long it takes; None where that is not known. A little from this machine takes no time."""
        if self.rate is not None:
            return self.rate.seconds(self.size_bytes)
        return 0.0 if self._is_little else None

    @property
    def _is_little(self) -> bool:
        return self.is_local and self.size_bytes <= LITTLE_BYTES

    def __str__(self) -> str:
        told = f"{bytes_text(self.size_bytes)} {self.where}"
        if self.rate is None:
            return told if self._is_little else f"{told}, whose speed is not measured yet"
        took = seconds_text(self.rate.seconds(self.size_bytes))
        return f"{told} at {rate_text(self.rate.bytes_per_s)} in {took}"


def _refused(offer: Offer) -> Planned:
    assert offer.misfit is not None
    return Planned(offer, Act.LEAVE, offer.misfit.why)


def _used(offer: Offer) -> str:
    return f"; used for {count_text(offer.answers, 'answer')} here" if offer.answers else ""


def _unknown_text(offer: Offer) -> str:
    return (
        "; whether it carries its text is known once its manifest is here"
        if offer.has_text is None
        else ""
    )
