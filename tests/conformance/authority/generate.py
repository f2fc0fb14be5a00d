"""The golden vectors of key documents, made from fixed keys: `python -m conformance.authority.generate`.

Any language can read them. A chain is the bundles that were found, in any order; `accept` tells the number
of the document in force and its digest, `reject` the code and the reason of the refusal. A judgement asks
whether `signers` (key id: when the log took the signature, or null) may release `origin` at `createdAt`.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from memcube_protocol import canonical_json
from memcube_signing.authority.document import KeyDocument, Revocation
from memcube_signing.authority.proposal import Proposal
from memcube_signing.keys import PrivateKey
from support import authority, signing
from support.authority import (
    ALICE_AT,
    DAY,
    EVE,
    NEW,
    OLD,
    SAFE,
    SPARE,
    START,
    TEAM,
    THIEF,
    after,
    first,
    quorum,
    role,
    signed,
)
from support.log import Log

FILE = Path(__file__).parent / "documents.json"
Json = dict[str, Any]
NOTES = f"{ALICE_AT}/notes"
TIME = "%Y-%m-%dT%H:%M:%SZ"

FIRST = first()
ROTATED = after(FIRST, quorum=quorum(NEW))
REVOKING = after(
    FIRST, quorum=quorum(NEW), revoked=(Revocation(OLD.public_key.id, START + DAY / 2),)
)
SAVED = first(recovery=quorum(SAFE, SPARE, of=2))
STOLEN = after(SAVED, quorum=quorum(THIEF))
BACK = after(SAVED, quorum=quorum(NEW), revoked=(Revocation(OLD.public_key.id, START),))
TWO = first(quorum=quorum(OLD, NEW, SPARE, of=2))
TEAMS = first(delegations=(role("research", "research-*", TEAM),))
MEMBER = after(TEAMS, delegations=(*TEAMS.delegations, role("research/eve", "research-birds", EVE)))


def texts(*found: tuple[bytes, ...]) -> list[str]:
    """Bundles as text."""
    return [raw.decode() for one in found for raw in one]


def payload(document: KeyDocument, change: Json, drop: tuple[str, ...] = ()) -> bytes:
    """A right signature over `document` with fields of its predicate changed or dropped."""
    value = json.loads(document.to_statement().to_bytes())
    value["predicate"] |= change
    for name in drop:
        del value["predicate"][name]
    return signing.signed_payload(canonical_json.dump(value), OLD)


def chains() -> list[Json]:
    """What is found, and which document is in force then."""
    cases: list[tuple[str, KeyDocument | None, list[tuple[bytes, ...]]]] = [
        ("a first document", FIRST, [signed(FIRST, OLD)]),
        ("a first document that its keys did not sign", None, [signed(FIRST, THIEF)]),
        ("a rotation", ROTATED, [signed(FIRST, OLD), signed(ROTATED, OLD, NEW)]),
        ("a rotation, found in another order", ROTATED, [signed(ROTATED, NEW, OLD), signed(FIRST, OLD)]),
        ("a rotation that the old key did not sign", FIRST, [signed(FIRST, OLD), signed(ROTATED, NEW)]),
        ("a rotation that the new key did not sign", FIRST, [signed(FIRST, OLD), signed(ROTATED, OLD)]),
        ("a revocation", REVOKING, [signed(FIRST, OLD), signed(REVOKING, OLD, NEW)]),
        (
            "a revocation that is taken back",
            REVOKING,
            [signed(FIRST, OLD), signed(REVOKING, OLD, NEW), signed(after(REVOKING, revoked=()), NEW)],
        ),
        (
            "recovery keys that overrule a thief",
            BACK,
            [signed(SAVED, OLD), signed(STOLEN, OLD, THIEF), signed(BACK, SAFE, SPARE, NEW)],
        ),
        (
            "one of two recovery keys",
            STOLEN,
            [signed(SAVED, OLD), signed(STOLEN, OLD, THIEF), signed(BACK, SAFE, NEW)],
        ),
        (
            "recovery keys that the authority takes away",
            SAVED,
            [signed(SAVED, OLD), signed(after(SAVED, recovery=None), OLD)],
        ),
        ("two of three", TWO, [signed(TWO, OLD, SPARE)]),
        ("one of three", None, [signed(TWO, OLD)]),
        ("a member, added by her team", MEMBER, [signed(TEAMS, OLD), signed(MEMBER, TEAM)]),
        ("a member, added by herself", TEAMS, [signed(TEAMS, OLD), signed(MEMBER, EVE)]),
        (
            "a team that widens itself",
            TEAMS,
            [
                signed(TEAMS, OLD),
                signed(after(TEAMS, delegations=(role("research", "*", TEAM),)), TEAM),
            ],
        ),
        (
            "a document that goes back in time",
            FIRST,
            [signed(FIRST, OLD), signed(after(FIRST, created_at=START - DAY), OLD)],
        ),
    ]  # fmt: skip
    return [
        {
            "name": name,
            "bundles": texts(*found),
            "seq": document.seq if document else None,
            "digest": str(document.digest) if document else None,
        }
        for name, document, found in cases
    ]


def refused_chains() -> list[Json]:
    """What no reader passes over."""
    fork = after(FIRST, quorum=quorum(THIEF))
    escalating = {
        "delegations": [
            *json.loads(TEAMS.to_statement().to_bytes())["predicate"]["delegations"],
            {
                "role": "research/eve",
                "patterns": [f"{ALICE_AT}/finance"],
                "quorum": {"keys": [text_of(EVE)], "threshold": 1},
            },
        ]
    }
    spaced = FIRST.to_statement().to_bytes().replace(b'"seq":1', b'"seq": 1')
    both = {"revoked": [{"keyId": OLD.public_key.id, "compromisedSince": START.strftime(TIME)}]}
    invalid, untrusted = "invalid-statement", "key-not-authorised"
    unsorted = [text_of(one) for one in sorted((OLD, NEW), key=lambda one: one.public_key.id)][::-1]
    cases: list[tuple[str, list[tuple[bytes, ...]], str, str]] = [
        ("a fork", [signed(FIRST, OLD), signed(ROTATED, OLD, NEW), signed(fork, OLD, THIEF)], untrusted, "keys-forked"),
        ("two first documents", [signed(FIRST, OLD), signed(first(quorum=quorum(NEW)), NEW)], untrusted, "keys-forked"),
        ("another namespace", [signed(first(authority="registry.example/bob"), OLD)], invalid, "wrong-authority"),
        ("a release", [(signing.signed().raw,)], invalid, "wrong-predicate-type"),
        ("a role that reaches further than its own", [(payload(TEAMS, escalating),)], invalid, "escalation"),
        ("a key that is revoked and in charge", [(payload(FIRST, both),)], invalid, "revoked-key-in-charge"),
        ("not canonical", [(signing.signed_payload(spaced, OLD),)], invalid, "not-canonical"),
    ] + [
        (name, [(payload(FIRST, change, drop),)], invalid, reason)
        for name, change, drop, reason in (
            ("an unknown field", {"extra": 1}, (), "unknown-field"),
            ("no quorum", {}, ("quorum",), "malformed-key-document"),
            ("a number that does not count from 1", {"seq": 0}, (), "malformed-key-document"),
            ("a first document that follows another", {"previous": str(FIRST.digest)}, (), "malformed-key-document"),
            ("a time with fractions", {"createdAt": "2026-01-01T00:00:00.5Z"}, (), "malformed-key-document"),
            ("a threshold that cannot be met", {"quorum": {"keys": [text_of(OLD)], "threshold": 2}}, (), "malformed-key-document"),
            ("a threshold of nobody", {"quorum": {"keys": [text_of(OLD)], "threshold": 0}}, (), "malformed-key-document"),
            ("keys that are not sorted", {"quorum": {"keys": unsorted, "threshold": 1}}, (), "malformed-key-document"),
            ("one key twice", {"quorum": {"keys": [text_of(OLD), text_of(OLD)], "threshold": 2}}, (), "malformed-key-document"),
            ("a pattern outside the namespace", {"delegations": [{"role": "team", "patterns": ["registry.example/bob/*"], "quorum": {"keys": [text_of(TEAM)], "threshold": 1}}]}, (), "malformed-key-document"),
            ("a role without the one above it", {"delegations": [{"role": "team/eve", "patterns": [f"{ALICE_AT}/x"], "quorum": {"keys": [text_of(TEAM)], "threshold": 1}}]}, (), "malformed-key-document"),
        )
    ]  # fmt: skip
    return [
        {"name": name, "bundles": texts(*found), "code": code, "reason": reason}
        for name, found, code, reason in cases
    ]


def text_of(key: PrivateKey) -> str:
    """The public key as documents write it."""
    return base64.b64encode(key.public_key.der).decode()


def judgements() -> list[Json]:
    """Who may have released what, and when."""
    rotated, revoked = (
        (signed(FIRST, OLD), signed(ROTATED, OLD, NEW)),
        (signed(FIRST, OLD), signed(REVOKING, OLD, NEW)),
    )
    two, roles = (signed(TWO, OLD, SPARE),), (signed(TEAMS, OLD), signed(MEMBER, TEAM))
    birds = f"{ALICE_AT}/research-birds"
    cases: list[tuple[str, Any, str, dict[PrivateKey, datetime | None], datetime, Json]] = [
        ("the new key", rotated, NOTES, {NEW: None}, START + 2 * DAY, by(2, NEW)),
        ("the old key, before", rotated, NOTES, {OLD: None}, START, by(1, OLD, retired=True)),
        ("the old key, after", rotated, NOTES, {OLD: None}, START + 2 * DAY, no("key-retired")),
        ("the old key, dated back and logged after", rotated, NOTES, {OLD: START + 2 * DAY}, START, no("key-retired")),
        ("a revoked key, not logged", revoked, NOTES, {OLD: None}, START, no("key-revoked")),
        ("a revoked key, logged before", revoked, NOTES, {OLD: START}, START, by(1, OLD, retired=True)),
        ("a revoked key, logged at that time", revoked, NOTES, {OLD: START + DAY / 2}, START, no("key-revoked")),
        ("a stranger", rotated, NOTES, {THIEF: None}, START, no("key-not-authorised")),
        ("two of three", two, NOTES, {NEW: None, OLD: None}, START, by(1, NEW, OLD)),
        ("one of three", two, NOTES, {NEW: None}, START, no("threshold-not-met")),
        ("one of three, and a stranger", two, NOTES, {NEW: None, THIEF: None}, START, no("threshold-not-met")),
        ("a member, hers", roles, birds, {EVE: None}, START + DAY, by(2, EVE)),
        ("a member, not hers", roles, f"{ALICE_AT}/research-bees", {EVE: None}, START + DAY, no("key-not-authorised")),
        ("her team, hers", roles, birds, {TEAM: None}, START + DAY, by(2, TEAM)),
        ("her team, not theirs", roles, NOTES, {TEAM: None}, START + DAY, no("key-not-authorised")),
    ]  # fmt: skip
    return [
        {
            "name": name,
            "bundles": texts(*found),
            "origin": origin,
            "signers": {
                key.public_key.id: at.strftime(TIME) if at else None
                for key, at in sorted(signers.items(), key=lambda one: one[0].public_key.id)
            },
            "createdAt": created_at.strftime(TIME),
            **outcome,
        }
        for name, found, origin, signers, created_at, outcome in cases
    ]


def by(seq: int, *keys: PrivateKey, retired: bool = False) -> Json:
    """Valid by that document."""
    ids = sorted(key.public_key.id for key in keys)
    return {"accept": {"seq": seq, "keyIds": ids, "retired": retired}}


def no(reason: str) -> Json:
    """Refused."""
    return {"reject": {"code": "key-not-authorised", "reason": reason}}


def logged() -> Json:
    """Which of the documents the log shows; `unlogged` is the number of the first that it does not."""
    log = Log(leaves=[b"others"])
    old = authority.logged(log, FIRST, START, OLD)
    new = authority.logged(log, ROTATED, START + DAY, OLD, NEW)
    bare = signed(ROTATED, OLD, NEW)
    cases: list[tuple[str, list[tuple[bytes, ...]], int | None]] = [
        ("all of them", [old, new], None),
        ("found without and with their entries", [old, new, bare], None),
        ("nothing", [signed(FIRST, OLD), bare], 1),
        ("a rotation that is not logged", [old, bare], 2),
        ("a rotation of which one signature is logged", [old, (new[0], bare[1])], 2),
    ]
    return {
        "logKey": str(log.key),
        "chains": [
            {"name": name, "bundles": texts(*found), "unlogged": seq} for name, found, seq in cases
        ],
    }


def proposals() -> Json:
    """Files that go from one holder of a key to the next."""
    empty, one = Proposal(TWO), Proposal(TWO).signed([SPARE])
    both = one.signed([OLD])
    value = json.loads(both.to_bytes())
    turned = value | {"signatures": value["signatures"][::-1]}
    moved = value | {"document": json.loads(Proposal(FIRST).to_bytes())["document"]}
    written = {
        "another format": value | {"format": "application/json"},
        "signatures that are not sorted": turned,
        "signatures of another document": moved,
        "one signature twice": value | {"signatures": [value["signatures"][0]] * 2},
        "an unknown field": value | {"note": "please sign"},
    }
    reasons = {"an unknown field": "unknown-field"}
    return {
        "accept": [
            {"name": name, "file": one.to_bytes().decode(), "signedBy": sorted(one.key_ids)}
            for name, one in (("nobody", empty), ("one of two", one), ("two of two", both))
        ],
        "reject": [
            {
                "name": name,
                "file": canonical_json.dump(changed).decode(),
                "code": "invalid-statement",
                "reason": reasons.get(name, "malformed-key-document"),
            }
            for name, changed in written.items()
        ],
    }


def text() -> str:
    """The file as it must be."""
    value = {
        "about": "docs/spec/keys.md",
        "authority": ALICE_AT,
        "chains": {"accept": chains(), "reject": refused_chains()},
        "judgements": judgements(),
        "logged": logged(),
        "proposals": proposals(),
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
