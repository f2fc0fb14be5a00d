"""Proofs of forks: every fork has one, no honest log can be accused, and no byte may be changed."""

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol import canonical_json
from memcube_protocol.errors import InvalidError, SignatureInvalidError
from memcube_signing.transparency import fork, merkle
from memcube_signing.transparency.checkpoint import Checkpoint, NoteKey, sign
from memcube_signing.transparency.fork import Fork
from support.log import Log, signer
from support.signing import NOW


def log_of(size: int, other_at: int | None = None) -> Log:
    """A log of `size` leaves, the one at `other_at` another than usual."""
    leaves = [b"%d" % number for number in range(size)]
    if other_at is not None:
        leaves[other_at] = b"other"
    return Log(leaves=leaves)


SIZES = st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(0, 69)).map(
    lambda drawn: (min(drawn[:2]), max(drawn[:2]), drawn[2] % min(drawn[:2]))
)


@settings(max_examples=80, deadline=None)
@given(SIZES)
def test_two_histories_give_a_proof_that_needs_nothing_else(sizes):
    small, large, other_at = sizes
    here, there = log_of(large), log_of(small, other_at)
    found = fork.find(here.key, here.note(), there.note(), here.hash_at)
    assert found is not None
    assert fork.parse(found.to_bytes()) == found
    assert (found.smaller.checkpoint.size, found.larger.checkpoint.size) == (small, large)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 70), st.integers(0, 70))
def test_a_log_that_only_grew_gives_none(one, other):
    log = log_of(max(one, other))
    notes = (log.note(size=one), log.note(NOW + timedelta(hours=1), size=other))
    assert fork.find(log.key, *notes, log.hash_at) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.binary(min_size=32, max_size=32)))
def test_nobody_can_accuse_a_log_that_only_grew(one, other, made_up):
    log = log_of(max(one, other))
    small, large = sorted((one, other))
    for prefix in ((), tuple(made_up), merkle.consistency_proof(small, large, log.hash_at)):
        with pytest.raises(InvalidError):
            Fork(log.key, log.note(size=small), log.note(size=large), prefix)


def test_another_logs_checkpoint_proves_nothing():
    here, there = log_of(5), log_of(5, 2)
    for stranger in (
        Log("other.example", leaves=there.leaves),
        Log(signer=signer(11), leaves=there.leaves),
    ):
        with pytest.raises(SignatureInvalidError):
            fork.find(here.key, here.note(), stranger.note(), here.hash_at)


def test_tiles_that_are_not_the_larger_trees_prove_nothing():
    here, there = log_of(9), log_of(4, 0)
    with pytest.raises(InvalidError):
        fork.find(here.key, here.note(), there.note(), log_of(9, 3).hash_at)


def test_an_empty_tree_with_a_root_of_its_own_is_a_fork():
    log = log_of(3)
    strange = sign(Checkpoint(log.origin, 0, b"\x01" * 32), log.signer)
    found = fork.find(log.key, strange, log.note(), log.hash_at)
    assert found is not None
    assert fork.parse(found.to_bytes()) == found


def changed(**fields):
    value = json.loads(a_fork().to_bytes()) | fields
    return canonical_json.dump({name: one for name, one in value.items() if one is not None})


def a_fork() -> Fork:
    here = log_of(6)
    found = fork.find(here.key, here.note(), log_of(4, 1).note(), here.hash_at)
    assert found is not None
    return found


def mallorys() -> NoteKey:
    return NoteKey("registry.example", signer(11).public_key)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        changed(format="application/vnd.memcube.proof.v1+json"),
        changed(more=1),
        changed(key=None),
        changed(key=str(mallorys())),
        changed(key=7),
        changed(prefix=[]),
        changed(prefix="x"),
        changed(prefix=["x"]),
        changed(prefix=["A" * 43 + "="] * 2),
        changed(prefix=["A" * 43 + "="] * 100),
        changed(smaller=log_of(4).note().text),
        changed(smaller=log_of(6).note().text, larger=log_of(4, 1).note().text),
        json.dumps(json.loads(a_fork().to_bytes()), indent=1).encode(),
        b" " * (fork.PROOF_BYTES + 1),
    ],
)
def test_what_proves_no_fork_is_refused(content):
    with pytest.raises((InvalidError, SignatureInvalidError)):
        fork.parse(content)


HASH = "A" * 43 + "="


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (changed(smaller=log_of(6).note().text, larger=log_of(4, 1).note().text), "wrong order"),
        (b" " * (fork.PROOF_BYTES + 1), "too large"),
        (changed(format=fork.FORMAT + "x"), "exactly the fields"),
        (changed(format="a"), "exactly the fields"),
        (changed(more=1), "exactly the fields"),
        (changed(key=None), "exactly the fields"),
        (changed(prefix="x"), "another type"),
        (changed(prefix={}), "another type"),
        (changed(prefix=[HASH] * (merkle.PROOF_HASHES + 2)), "more hashes than any proof"),
        (changed(prefix=[HASH] * (merkle.PROOF_HASHES + 1)), "not those of the larger"),
        *(
            (changed(prefix=[text]), "a hash has not 32 bytes")
            for text in ("x", "é", "!" + HASH, "A" * 42 + "==", "A" * 44, 7)
        ),
        (a_fork().to_bytes().replace(b"application/", b"application\\/"), "not canonical"),
        (json.dumps(json.loads(a_fork().to_bytes()), indent=1).encode(), "not canonical"),
    ],
)
def test_what_is_wrong_with_a_proof_is_told(content, why):
    with pytest.raises(InvalidError, match=why):
        fork.parse(content)


def test_a_proof_may_be_as_large_as_the_limit_says():
    assert fork.PROOF_BYTES == 262144
    with pytest.raises(InvalidError) as caught:
        fork.parse(b" " * fork.PROOF_BYTES)
    assert "too large" not in str(caught.value)


def test_hashes_that_prove_nothing_are_refused():
    log = log_of(3)
    empty = sign(Checkpoint(log.origin, 0, b"\x01" * 32), log.signer)
    for smaller, larger in ((empty, log.note()), (log.note(), log_of(3, 1).note())):
        assert Fork(log.key, smaller, larger)
        with pytest.raises(InvalidError, match="prove nothing"):
            Fork(log.key, smaller, larger, (b"\x01" * 32,))
