"""The golden vectors of the log, made from fixed keys: `python -m conformance.log.generate`.

Text fields are text, bytes are base64. `accept` says what a reader must find, `reject` the code and
reason of the refusal.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from memcube_protocol import canonical_json
from memcube_signing.transparency import bundled, checkpoint, entry, fork, merkle
from memcube_signing.transparency.checkpoint import Checkpoint, NoteKey
from memcube_signing.transparency.tiles import Tile
from support.log import Log
from support.logged import AT, BUNDLE, KEY, LOG_KEY, OTHER_LOG, WITNESS, WITNESS_KEY, logged
from support.signing import MALLORY

FOLDER = Path(__file__).parent
Json = dict[str, Any]
LEAVES = [merkle.leaf_hash(str(number).encode()) for number in range(300)]


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def hash_at(level: int, index: int) -> bytes:
    return merkle.complete_root(LEAVES[index << level : (index + 1) << level])


def inclusion(index: int, size: int, /, **changes: Any) -> Json:
    found = {
        "leaf": encode(LEAVES[index]),
        "index": index,
        "size": size,
        "proof": [encode(item) for item in merkle.inclusion_proof(index, size, hash_at)],
        "root": encode(merkle.root(size, hash_at)),
    }
    return found | changes


def consistency(old: int, new: int, /, **changes: Any) -> Json:
    found = {
        "old": old,
        "oldRoot": encode(merkle.root(old, hash_at)),
        "new": new,
        "newRoot": encode(merkle.root(new, hash_at)),
        "proof": [encode(item) for item in merkle.consistency_proof(old, new, hash_at)],
    }
    return found | changes


def proofs() -> Json:
    """Inclusion and consistency in trees whose leaf n holds the digits of n."""
    other = encode(merkle.leaf_hash(b"other"))
    wrong = {"code": "signature-invalid", "reason": "log-proof-invalid"}
    fork = {"code": "signature-invalid", "reason": "log-forked"}
    return {
        "about": "RFC 6962 §2.1; leaf n holds the decimal digits of n; hashes in base64",
        "accept": [
            *(
                {"name": f"leaf {index} of {size}", "inclusion": inclusion(index, size)}
                for index, size in ((0, 1), (0, 2), (1, 3), (6, 7), (3, 8), (255, 256), (256, 300))
            ),
            *(
                {"name": f"{old} then {new}", "consistency": consistency(old, new)}
                for old, new in ((0, 3), (1, 2), (3, 7), (4, 7), (8, 8), (255, 256), (256, 300))
            ),
        ],
        "reject": [
            {"name": "another leaf", "inclusion": inclusion(3, 8, leaf=other), **wrong},
            {"name": "another index", "inclusion": inclusion(3, 8, index=2), **wrong},
            {"name": "index outside", "inclusion": inclusion(3, 8, index=8), **wrong},
            {"name": "no proof", "inclusion": inclusion(3, 8, proof=[]), **wrong},
            {
                "name": "a hash too many",
                "inclusion": inclusion(0, 1, proof=[other]),
                **wrong,
            },
            {"name": "another past", "consistency": consistency(3, 7, oldRoot=other), **fork},
            {"name": "another future", "consistency": consistency(3, 7, newRoot=other), **fork},
            {"name": "same size", "consistency": consistency(8, 8, newRoot=other), **fork},
            {
                "name": "shrunk",
                "consistency": consistency(3, 7, old=7, new=3),
                "code": "signature-invalid",
                "reason": "log-shrank",
            },
        ],
    }


def checkpoints() -> Json:
    """Signed checkpoints: who signed them, and what is none."""
    note = logged().checkpoint
    text, bad = note.text, {"code": "invalid-statement", "reason": "malformed-checkpoint"}
    witnessed = note.with_lines([checkpoint.cosign(note.checkpoint, WITNESS_KEY.name, WITNESS, AT)])
    stranger = NoteKey(LOG_KEY.name, OTHER_LOG.public_key)
    state = note.checkpoint
    return {
        "about": "C2SP tlog-checkpoint and tlog-cosignature; keys as in signed-note",
        "accept": [
            {
                "name": "signed by the log, cosigned by log and witness",
                "checkpoint": witnessed.text,
                "log": str(LOG_KEY),
                "witnesses": [str(LOG_KEY.cosigner), str(WITNESS_KEY)],
                "origin": state.origin,
                "size": state.size,
                "root": encode(state.root),
                "times": [int(AT.timestamp())] * 2,
            }
        ],
        "reject": [
            {"name": "extension line", "checkpoint": text.replace("\n\n", "\nmore\n\n", 1), **bad},
            {"name": "leading zero", "checkpoint": text.replace("\n2\n", "\n02\n", 1), **bad},
            {"name": "no signature", "checkpoint": text.partition("\n\n")[0] + "\n", **bad},
            {"name": "hyphen", "checkpoint": text.replace("—", "-"), **bad},
            {"name": "no last line end", "checkpoint": text[:-1], **bad},
            {
                "name": "another log's key under the same name",
                "checkpoint": text,
                "log": str(stranger),
                "code": "signature-invalid",
                "reason": "log-signature-missing",
            },
            {
                "name": "another origin",
                "checkpoint": logged(name="other.example").checkpoint.text,
                "log": str(LOG_KEY),
                "code": "signature-invalid",
                "reason": "log-unknown",
            },
            {
                "name": "signature over another size",
                "checkpoint": text.replace("\n2\n", "\n3\n", 1),
                "log": str(LOG_KEY),
                "code": "signature-invalid",
                "reason": "bad-signature",
            },
        ],
    }


def bundles() -> Json:
    """Bundles with log entries, verified with the log required."""
    good = bundled.attach(BUNDLE, [logged()])

    def refused(
        name: str, entries: list[Any], reason: str, code: str = "signature-invalid"
    ) -> Json:
        raw = bundled.attach(BUNDLE, entries).raw
        return {"name": name, "bundle": encode(raw), "code": code, "reason": reason}

    other = entry.leaf(BUNDLE.envelope.signed, MALLORY.sign(BUNDLE.envelope.signed), KEY)
    return {
        "about": "bundles in base64; key in PEM; log as in signed-note",
        "key": KEY.to_pem(),
        "log": str(LOG_KEY),
        "accept": [
            {
                "name": "one entry",
                "bundle": encode(good.raw),
                "index": 1,
                "at": int(AT.timestamp()),
            },
            {
                "name": "an entry of another log beside it",
                "bundle": encode(bundled.attach(BUNDLE, [logged(key=OTHER_LOG), logged()]).raw),
                "index": 1,
                "at": int(AT.timestamp()),
            },
        ],
        "reject": [
            refused("no entry", [], "log-entry-missing", "signature-missing"),
            refused("another log", [logged(key=OTHER_LOG)], "log-unknown"),
            refused("another index", [replace(logged(), index=0)], "log-proof-invalid"),
            refused("no proof", [replace(logged(), proof=())], "log-proof-invalid"),
            refused("another signature", [replace(logged(), body=other)], "log-entry-mismatch"),
        ],
    }


def paths() -> Json:
    """Paths of tiles, and what is none."""
    named = [
        Tile(0, 0),
        Tile(3, 1234067),
        Tile(1, 5, 1),
        Tile(None, 1000, 255, "entries"),
        Tile(None, 7, 3, "names"),
    ]
    wrong = [
        "0",
        "0/1",
        "0/x000/001",
        "8/000",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/001/002",
    ]
    return {
        "about": "C2SP tlog-tiles; below /log/tile/",
        "accept": [
            {
                "name": tile.path,
                "level": tile.level,
                "kind": tile.kind,
                "number": tile.number,
                "width": tile.width,
            }
            for tile in named
        ],
        "reject": [{"name": path, "code": "invalid-request"} for path in wrong],
    }


def forks() -> Json:
    """Proofs of forks, and what proves none."""
    here = Log(leaves=[str(number).encode() for number in range(7)])
    there = Log(leaves=[b"0", b"other", *here.leaves[2:4]])
    empty = checkpoint.sign(Checkpoint(here.origin, 0, merkle.leaf_hash(b"")), here.signer)
    found = fork.find(here.key, here.note(), there.note(), here.hash_at)
    longer = fork.find(here.key, here.note(), there.note(size=3), here.hash_at)
    same = fork.find(here.key, here.note(size=4), there.note(), here.hash_at)
    nothing = fork.find(here.key, here.note(), empty, here.hash_at)
    assert found
    assert longer
    assert same
    assert nothing
    value = json.loads(found.to_bytes())
    bad = {"code": "invalid-statement", "reason": "malformed-fork"}

    def changed(name: str, refusal: Json, /, **fields: Any) -> Json:
        content = canonical_json.dump(value | fields).decode()
        return {"name": name, "proof": content, **refusal}

    return {
        "about": "what one log signed and no one tree can have; files as text",
        "accept": [
            {
                "name": name,
                "proof": one.to_bytes().decode(),
                "key": str(here.key),
                "sizes": [one.smaller.checkpoint.size, one.larger.checkpoint.size],
            }
            for name, one in (
                ("four entries and seven", found),
                ("three entries and seven", longer),
                ("twice four entries", same),
                ("no entry with a root of its own", nothing),
            )
        ],
        "reject": [
            changed("one tree", bad, smaller=here.note(size=4).text),
            changed("no hashes", bad, prefix=[]),
            changed("a hash too many", bad, prefix=[*value["prefix"], value["prefix"][0]]),
            changed("other hashes", bad, prefix=value["prefix"][::-1]),
            changed("the wrong order", bad, smaller=value["larger"], larger=value["smaller"]),
            changed("another format", bad, format="application/json"),
            changed("a field too many", bad, more=1),
            {"name": "not canonical", "proof": json.dumps(value), **bad},
            changed(
                "another key",
                {"code": "signature-invalid", "reason": "log-signature-missing"},
                key=str(NoteKey(here.origin, OTHER_LOG.public_key)),
            ),
        ],
    }


FILES: dict[str, Callable[[], Json]] = {
    "proofs.json": proofs,
    "checkpoints.json": checkpoints,
    "bundles.json": bundles,
    "paths.json": paths,
    "forks.json": forks,
}


def text_of(name: str) -> str:
    """The content of one file of vectors."""
    return json.dumps(FILES[name](), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file in FILES:
        (FOLDER / file).write_text(text_of(file), encoding="utf-8")
