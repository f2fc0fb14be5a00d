"""What licences ask of those who use or derive a cube, and what a derived cube inherits.

    obligations_of("CC-BY-SA-4.0")         {attribution, share-alike}
    inherited(child, ancestors)            what every ancestor asks, and which rules the child breaks

This is a reading aid over SPDX ids, not legal advice: a licence that is not in the table is shown as
`unknown`, which a person has to read.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from memcube_protocol.governance import Governance
from memcube_protocol.values import frozen


class Obligation(StrEnum):
    """One thing that a licence asks."""

    ATTRIBUTION = "attribution"
    SHARE_ALIKE = "share-alike"
    NON_COMMERCIAL = "non-commercial"
    NO_DERIVATIVES = "no-derivatives"
    DISCLOSE_SOURCE = "disclose-source"
    STATE_CHANGES = "state-changes"
    NO_REDISTRIBUTION = "no-redistribution"
    UNKNOWN = "unknown"


_A: Final = Obligation.ATTRIBUTION
_SA: Final = Obligation.SHARE_ALIKE
_NC: Final = Obligation.NON_COMMERCIAL
_ND: Final = Obligation.NO_DERIVATIVES
_SRC: Final = Obligation.DISCLOSE_SOURCE
_CHG: Final = Obligation.STATE_CHANGES

_CREATIVE_COMMONS: Final = {
    "BY": {_A, _CHG},
    "BY-SA": {_A, _CHG, _SA},
    "BY-NC": {_A, _CHG, _NC},
    "BY-NC-SA": {_A, _CHG, _NC, _SA},
    "BY-ND": {_A, _ND},
    "BY-NC-ND": {_A, _NC, _ND},
}
_ATTRIBUTION: Final = (
    *("MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "ODC-By-1.0", "Zlib"),
    *("CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "OGL-UK-3.0"),
)
_FREE: Final = ("CC0-1.0", "PDDL-1.0", "Unlicense", "0BSD", "MIT-0", "WTFPL")
_COPYLEFT: Final = ("GPL-2.0", "GPL-3.0", "AGPL-3.0", "LGPL-2.1", "LGPL-3.0")
_FORMS: Final = ("only", "or-later")
_OTHERS: Final[dict[str, set[Obligation]]] = {
    **{licence: set[Obligation]() for licence in _FREE},
    **{licence: {_A} for licence in _ATTRIBUTION},
    **{f"{name}-{form}": {_A, _CHG, _SA, _SRC} for name in _COPYLEFT for form in _FORMS},
    **{f"GFDL-{number}-{form}": {_A, _CHG, _SA} for number in ("1.2", "1.3") for form in _FORMS},
    "Apache-2.0": {_A, _CHG},
    "CDLA-Sharing-1.0": {_A, _SA},
    "ODbL-1.0": {_A, _SA},
    "MPL-2.0": {_A, _SRC},
}


@frozen
class Work:
    """A cube with the rules on it: how people call it, its licence, and its governance if known."""

    name: str
    licence: str
    governance: Governance | None = None


@frozen
class Inherited:
    """What a derived cube owes: each obligation with the works that ask for it, and what it breaks."""

    owed: tuple[tuple[Obligation, tuple[str, ...]], ...]
    conflicts: tuple[str, ...]


def obligations_of(licence: str) -> frozenset[Obligation]:
    """What the licence of this SPDX id asks; `{unknown}` for one that is not in the table."""
    if licence in _OTHERS:
        return frozenset(_OTHERS[licence])
    parts = licence.split("-")
    if parts[0] == "CC" and len(parts) > 2:
        terms = _CREATIVE_COMMONS.get("-".join(part for part in parts[1:] if part.isalpha()))
        if terms is not None:
            return frozenset(terms)
    return frozenset({Obligation.UNKNOWN})


def inherited(child: Work, ancestors: Iterable[Work]) -> Inherited:
    """What `child` owes because it was made from `ancestors`, and where its own terms break theirs."""
    owed: dict[Obligation, list[str]] = {}
    conflicts: list[str] = []
    for work in ancestors:
        asked = _asked(work)
        for obligation in asked:
            owed.setdefault(obligation, []).append(work.name)
        conflicts += _conflicts(child, work, asked)
    order = tuple(Obligation)
    return Inherited(
        tuple((key, tuple(owed[key])) for key in sorted(owed, key=order.index)),
        tuple(conflicts),
    )


def _asked(work: Work) -> frozenset[Obligation]:
    asked = obligations_of(work.licence)
    if work.governance and work.governance.redistribution == "forbidden":
        asked |= {Obligation.NO_REDISTRIBUTION}
    if work.governance and work.governance.redistribution == "same-licence":
        asked |= {Obligation.SHARE_ALIKE}
    return asked


def _conflicts(child: Work, parent: Work, asked: frozenset[Obligation]) -> list[str]:
    own = _asked(child)
    found: list[str] = []
    if Obligation.NO_DERIVATIVES in asked:
        found.append(f"{parent.name} ({parent.licence}) allows no derived works")
    if Obligation.NO_REDISTRIBUTION in asked and Obligation.NO_REDISTRIBUTION not in own:
        found.append(f"{parent.name} may not be redistributed, {child.name} may")
    if Obligation.SHARE_ALIKE in asked and child.licence != parent.licence:
        found.append(f"{parent.name} asks for {parent.licence}, {child.name} has {child.licence}")
    if Obligation.NON_COMMERCIAL in asked and not own & {_NC, Obligation.UNKNOWN}:
        found.append(f"{parent.name} is not for commercial use, {child.licence} allows it")
    return found + _uses(child, parent)


def _uses(child: Work, parent: Work) -> list[str]:
    """Uses that `child` allows and `parent` does not; an empty list allows what the licence does."""
    if not child.governance or not parent.governance or not parent.governance.allowed_uses:
        return []
    allowed = set(parent.governance.allowed_uses)
    extra = sorted(set(child.governance.allowed_uses) - allowed)
    if not child.governance.allowed_uses:
        extra = ["every use"]
    return [
        f"{parent.name} allows only {', '.join(sorted(allowed))}; {child.name} allows {use}"
        for use in extra
    ]
