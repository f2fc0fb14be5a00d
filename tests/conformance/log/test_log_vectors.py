"""The golden vectors of the log: this reader agrees with them, and they never change."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from conformance.log.generate import FILES, FOLDER, text_of
from memcube_protocol.errors import MemcubeError
from memcube_signing import bundle as bundles
from memcube_signing.keys import PublicKey
from memcube_signing.transparency import bundled, checkpoint, fork, merkle, tiles
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import LogPolicy

decode = base64.b64decode


def cases(name: str, kind: str) -> list[Any]:
    values = json.loads((FOLDER / name).read_text("utf-8"))[kind]
    return [pytest.param(value, id=value["name"]) for value in values]


def refused(case: dict[str, Any], error: MemcubeError) -> None:
    assert error.code == case["code"]
    assert getattr(error, "reason", None) == case.get("reason", getattr(error, "reason", None))
    assert error.hint


@pytest.mark.parametrize("name", FILES)
def test_the_vectors_are_what_the_code_writes_today(name):
    """Change them only with a new version of the format, and then keep the old ones."""
    assert (FOLDER / name).read_text("utf-8") == text_of(name)


def prove(case: dict[str, Any]) -> None:
    if "inclusion" in case:
        found = case["inclusion"]
        proof = [decode(item) for item in found["proof"]]
        where = (found["index"], found["size"])
        merkle.verify_inclusion(decode(found["leaf"]), *where, proof, decode(found["root"]))
    else:
        found = case["consistency"]
        proof = [decode(item) for item in found["proof"]]
        old, new = decode(found["oldRoot"]), decode(found["newRoot"])
        merkle.verify_consistency(found["old"], old, found["new"], new, proof)


@pytest.mark.parametrize("case", cases("proofs.json", "accept"))
def test_a_proof_holds(case):
    prove(case)


@pytest.mark.parametrize("case", cases("proofs.json", "reject"))
def test_a_proof_is_refused(case):
    with pytest.raises(MemcubeError) as caught:
        prove(case)
    refused(case, caught.value)


@pytest.mark.parametrize("case", cases("checkpoints.json", "accept"))
def test_a_checkpoint_says_this(case):
    note = checkpoint.parse(case["checkpoint"])
    state = checkpoint.verify(note, NoteKey.parse(case["log"]))
    assert (state.origin, state.size, state.root) == (
        case["origin"],
        case["size"],
        decode(case["root"]),
    )
    seen = checkpoint.cosignatures(note, [NoteKey.parse(key) for key in case["witnesses"]])
    assert [int(one.at.timestamp()) for one in seen] == case["times"]
    assert note.text == case["checkpoint"]


@pytest.mark.parametrize("case", cases("checkpoints.json", "reject"))
def test_a_checkpoint_is_refused(case):
    with pytest.raises(MemcubeError) as caught:
        checkpoint.verify(checkpoint.parse(case["checkpoint"]), NoteKey.parse(case["log"]))
    refused(case, caught.value)


def verify(case: dict[str, Any]):
    whole = json.loads((FOLDER / "bundles.json").read_text("utf-8"))
    policy = LogPolicy(NoteKey.parse(whole["log"]))
    key = PublicKey.from_pem(whole["key"])
    return bundled.verify_logged(bundles.parse(decode(case["bundle"])), key, policy)


@pytest.mark.parametrize("case", cases("bundles.json", "accept"))
def test_a_bundle_is_in_the_log(case):
    logged = verify(case)
    assert logged.logged_at is not None
    assert (logged.index, int(logged.logged_at.timestamp())) == (case["index"], case["at"])


@pytest.mark.parametrize("case", cases("bundles.json", "reject"))
def test_a_bundle_is_refused(case):
    with pytest.raises(MemcubeError) as caught:
        verify(case)
    refused(case, caught.value)


@pytest.mark.parametrize("case", cases("paths.json", "accept"))
def test_a_path_names_this_tile(case):
    tile = tiles.parse_path(case["name"])
    assert (tile.level, tile.kind, tile.number, tile.width) == (
        case["level"],
        case["kind"],
        case["number"],
        case["width"],
    )


@pytest.mark.parametrize("case", cases("paths.json", "reject"))
def test_a_path_is_refused(case):
    with pytest.raises(MemcubeError) as caught:
        tiles.parse_path(case["name"])
    refused(case, caught.value)


@pytest.mark.parametrize("case", cases("forks.json", "accept"))
def test_a_fork_is_proved(case):
    found = fork.parse(case["proof"].encode())
    assert str(found.key) == case["key"]
    assert [found.smaller.checkpoint.size, found.larger.checkpoint.size] == case["sizes"]


@pytest.mark.parametrize("case", cases("forks.json", "reject"))
def test_no_fork_is_proved(case):
    with pytest.raises(MemcubeError) as caught:
        fork.parse(case["proof"].encode())
    refused(case, caught.value)
