"""A cube's own rules: what its governance asks of whoever holds it, decided act by act (docs/spec/rules.md).

    rulings(governance, Asked(Act.COPY, now))      every rule that has a say, and what it says
    require("acme/atlas", governance, asked)       raises what forbids it

Pure: who asks, when, for what and where to is told by the caller. These rules bind those who want to
keep them; whoever controls the machine can read the bytes that it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from memcube_protocol.errors import InvalidSettingError, RuleRefusedError
from memcube_protocol.fields import write_moment
from memcube_protocol.governance import PERSONAL_DATA, SENSITIVITIES, USES, Governance
from memcube_protocol.values import frozen

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
_CLOSED: Final = ("confidential", "restricted")
_PERSONAL: Final = ("personal", "special-category")


class Act(StrEnum):
    """What somebody wants to do with a cube."""

    MOUNT = "mount"
    """Let a model, or who asks through it, use its memories."""
    EMBED = "embed"
    """Have vectors made of its texts, or of questions that are asked of it."""
    EXPORT = "export"
    """Write its files for other programs: a folder, the path of a memory, an OCI layout."""
    COPY = "copy"
    """Give the same cube to another place."""
    REPUBLISH = "republish"
    """Push a cube that was made from it under another name."""
    PUBLISH = "publish"
    """Let everybody read it: its owner's own act."""


@frozen
class Asked:
    """An act, and all that the rules want to know of it.

    `owner`: who acts made the cube, or released it. `uses` is what they say that they use it for,
    `ceiling` the highest sensitivity that they take. `held_since` is when the copy came that is used.
    `leaves_to` names the machines, other than this one, that get content of it. `made` is the
    governance of the cube that was made from it.

    Raises:
        InvalidSettingError: an unknown use or sensitivity.
    """

    act: Act
    now: datetime
    owner: bool = False
    uses: frozenset[str] = frozenset()
    ceiling: str = SENSITIVITIES[-1]
    held_since: datetime | None = None
    leaves_to: tuple[str, ...] = ()
    made: Governance | None = None

    def __post_init__(self) -> None:
        for what, values, known in (
            ("use", self.uses, USES),
            ("sensitivity", {self.ceiling}, SENSITIVITIES),
        ):
            if unknown := sorted(set(values) - set(known)):
                raise InvalidSettingError(
                    f"{what} {unknown[0][:60]!r} is unknown", hint=f"one of {', '.join(known)}"
                )


@frozen
class Ruling:
    """What one rule says of an act: `refusal` is why it forbids it, None where it does not.

    `rule` is the field of the governance that asks, as memcube.toml spells it; `hint` the next step.
    """

    rule: str
    value: str
    refusal: str | None = None
    hint: str = ""

    @property
    def allows(self) -> bool:
        """Whether the rule has nothing against the act."""
        return self.refusal is None


class _Rule(NamedTuple):
    """A rule of the governance: when it is asked, whether of the owner too, and how it is read."""

    name: str
    acts: frozenset[Act]
    binds_owner: bool
    read: Callable[[Governance, Asked], Ruling | None]


def rulings(governance: Governance, asked: Asked) -> tuple[Ruling, ...]:
    """What each rule of the cube says that is asked at this act; rules at their default say nothing."""
    return tuple(_rulings(governance, asked))


def require(cube: str, governance: Governance, asked: Asked) -> None:
    """That no rule of `cube` (its name for the message) forbids what is asked.

    Raises:
        RuleRefusedError: one or more do: the first with its value, and the names of the others.
    """
    refused = [ruling for ruling in _rulings(governance, asked) if not ruling.allows]
    if not refused:
        return
    first, *others = refused
    also = "".join(f"; also {other.rule} = {other.value}" for other in others)
    raise RuleRefusedError(
        f"{cube} says {first.rule} = {first.value}: {first.refusal}{also}",
        hint=first.hint,
        rule=first.rule,
        value=first.value,
        act=str(asked.act),
    )


def _rulings(governance: Governance, asked: Asked) -> Iterator[Ruling]:
    for rule in _RULES:
        if asked.act in rule.acts and (rule.binds_owner or not asked.owner):
            ruling = rule.read(governance, asked)
            if ruling:
                yield ruling


def _expiry(governance: Governance, asked: Asked) -> Ruling | None:
    if governance.expires_at is None:
        return None
    value = write_moment(governance.expires_at)
    if asked.now <= governance.expires_at + CLOCK_TOLERANCE:
        return Ruling("expires_at", value)
    hint = (
        "raise expires_at in memcube.toml, and the version, and pack it again"
        if asked.owner
        else "pull a newer version; there may be none"
    )
    return Ruling("expires_at", value, "it is over", hint)


def _retention(governance: Governance, asked: Asked) -> Ruling | None:
    if governance.retention_days is None:
        return None
    value = str(governance.retention_days)
    if asked.held_since is None:
        return Ruling("retention_days", value)
    until = asked.held_since + timedelta(days=governance.retention_days)
    if asked.now <= until:
        return Ruling("retention_days", value)
    return Ruling(
        "retention_days",
        value,
        f"this copy came on {asked.held_since:%Y-%m-%d} and was to go by {until:%Y-%m-%d}",
        "remove it with `memcube rm` and `memcube prune`, or pull it anew while its publisher offers it",
    )


def _uses(governance: Governance, asked: Asked) -> Ruling | None:
    if not governance.allowed_uses:
        return None
    value = ", ".join(governance.allowed_uses)
    allowed = set(governance.allowed_uses)
    if asked.act is Act.REPUBLISH:
        made = set(asked.made.allowed_uses) if asked.made else set[str]()
        return Ruling(
            "allowed_uses",
            value,
            None if made and made <= allowed else "what is made from it allows other uses",
            f"write allowed_uses = {list(governance.allowed_uses)} into its memcube.toml",
        )
    if not asked.uses:
        return Ruling(
            "allowed_uses",
            value,
            "and nobody said what it is used for here",
            'say it once in config.toml, as use = ["research"], or for one run with MEMCUBE_USE=research',
        )
    other = sorted(asked.uses - allowed)
    return Ruling(
        "allowed_uses",
        value,
        f"and the use here is {', '.join(other)}" if other else None,
        "leave this cube out for that use (profiles keep uses apart), or ask its publisher",
    )


def _processing(governance: Governance, asked: Asked) -> Ruling | None:
    if governance.processing != "local":
        return None
    left = ", ".join(asked.leaves_to)
    return Ruling(
        "processing",
        "local",
        f"its content would leave this machine, to {left}" if left else None,
        "use a model, an embedder and a registry of this machine (127.0.0.1)",
    )


def _redistribution(governance: Governance, asked: Asked) -> Ruling | None:
    if governance.redistribution == "allowed":
        return None
    value = governance.redistribution
    if value == "forbidden":
        return Ruling(
            "redistribution",
            value,
            "who holds it may use it, and pass it to nobody",
            "let the others pull it from its publisher, or ask the publisher for a licence that allows it",
        )
    made = asked.made
    same = made is not None and (made.licence, made.licence_url) == (
        governance.licence,
        governance.licence_url,
    )
    other = asked.act is Act.REPUBLISH and not same
    return Ruling(
        "redistribution",
        value,
        f"what is made from it is to have its licence, {governance.licence}" if other else None,
        f'write licence = "{governance.licence}" into memcube.toml, as the cube has it',
    )


def _sensitivity(governance: Governance, asked: Asked) -> Ruling | None:
    value = governance.sensitivity
    if value == SENSITIVITIES[0]:
        return None
    why, hint = _SENSITIVITY_OF[asked.act](value, asked)
    return Ruling("sensitivity", value, why, hint)


def _above_ceiling(value: str, asked: Asked) -> tuple[str | None, str]:
    if SENSITIVITIES.index(value) <= SENSITIVITIES.index(asked.ceiling):
        return None, ""
    return (
        f"here at most {asked.ceiling} is taken",
        "leave it out, mount it under another profile, or raise `sensitivity` in config.toml",
    )


def _passed_on(value: str, asked: Asked) -> tuple[str | None, str]:
    if value == "restricted":
        return (
            "it stays with those who got it from its publisher",
            "let the others pull it from there",
        )
    made = asked.made if asked.act is Act.REPUBLISH else None
    if made and SENSITIVITIES.index(made.sensitivity) < SENSITIVITIES.index(value):
        return (
            f"what is made from it calls itself {made.sensitivity}",
            f'write sensitivity = "{value}" into its memcube.toml',
        )
    return None, ""


def _to_everybody(value: str, _asked: Asked) -> tuple[str | None, str]:
    return ("everybody could read it" if value in _CLOSED else None), _EXPOSE


_EXPOSE: Final = "correct governance in memcube.toml, leave --public away, or repeat with --yes"
_SENSITIVITY_OF: Final = {
    Act.MOUNT: _above_ceiling,
    Act.COPY: _passed_on,
    Act.REPUBLISH: _passed_on,
    Act.PUBLISH: _to_everybody,
}


def _personal_data(governance: Governance, asked: Asked) -> Ruling | None:
    value = governance.personal_data
    if value == PERSONAL_DATA[0]:
        return None
    if asked.act is Act.PUBLISH:
        exposed = value in _PERSONAL
        return Ruling(
            "personal_data", value, "everybody could read it" if exposed else None, _EXPOSE
        )
    made = asked.made.personal_data if asked.made else PERSONAL_DATA[0]
    hides = PERSONAL_DATA.index(made) < PERSONAL_DATA.index(value)
    return Ruling(
        "personal_data",
        value,
        f"what is made from it says {made}" if hides else None,
        f'write personal_data = "{value}" into its memcube.toml',
    )


def _watermark(governance: Governance, _asked: Asked) -> Ruling | None:
    if governance.watermark != "required":
        return None
    return Ruling(
        "watermark",
        "required",
        "each copy of it is made for one holder",
        "let each holder pull their own from its publisher",
    )


_ALL: Final = frozenset({Act.MOUNT, Act.EXPORT, Act.COPY, Act.REPUBLISH})
_USED: Final = frozenset({Act.MOUNT, Act.EXPORT})
_PASSED: Final = frozenset({Act.COPY, Act.REPUBLISH})
_MADE: Final = frozenset({Act.REPUBLISH})
_SHOWN: Final = frozenset({Act.PUBLISH})

_RULES: Final = (
    _Rule("expires_at", _ALL, True, _expiry),
    _Rule("retention_days", _ALL, False, _retention),
    _Rule("allowed_uses", _USED | _MADE, False, _uses),
    _Rule("processing", _PASSED | {Act.MOUNT}, False, _processing),
    _Rule("processing", frozenset({Act.EMBED}), True, _processing),
    _Rule("redistribution", _PASSED, False, _redistribution),
    _Rule("watermark", _PASSED, False, _watermark),
    _Rule("sensitivity", _PASSED, False, _sensitivity),
    _Rule("sensitivity", _SHOWN | {Act.MOUNT}, True, _sensitivity),
    _Rule("personal_data", _MADE, False, _personal_data),
    _Rule("personal_data", _SHOWN, True, _personal_data),
)
"""Which rule is asked at which act, and whether its owner is bound by it too."""
