"""The tree of RFC 6962: known roots, proofs that hold, and proofs that were tampered with."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.errors import SignatureInvalidError
from memcube_signing.transparency import merkle, tiles

# The example of Certificate Transparency's own tests (RFC 6962 reference implementation).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def hashes(count):
    return [merkle.leaf_hash(str(number).encode()) for number in range(count)]


def over(leaves):
    """Hashes of complete subtrees over a list of leaf hashes."""
    return lambda level, index: merkle.complete_root(leaves[index << level : (index + 1) << level])


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_reference(size):
    leaves = [merkle.leaf_hash(leaf) for leaf in LEAVES[:size]]
    assert merkle.root(size, over(leaves)).hex() == ROOTS[size - 1]


def test_an_empty_tree_has_the_hash_of_nothing():
    assert merkle.root(0, over([])) == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("size", [*range(1, 34), 255, 256, 257])
def test_every_leaf_has_an_inclusion_proof_and_no_other_index_fits(size):
    leaves = hashes(size)
    root = merkle.root(size, over(leaves))
    for index in {0, 1, size // 2, size - 2, size - 1} & set(range(size)):
        proof = merkle.inclusion_proof(index, size, over(leaves))
        merkle.verify_inclusion(leaves[index], index, size, proof, root)
        for wrong in {index - 1, index + 1, size, size * 2}:
            with pytest.raises(SignatureInvalidError):
                merkle.verify_inclusion(leaves[index], wrong, size, proof, root)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_inclusion_proof_is_refused(data):
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    leaves = hashes(size)
    root = merkle.root(size, over(leaves))
    proof = list(merkle.inclusion_proof(index, size, over(leaves)))
    change = data.draw(st.sampled_from(["drop", "add", "flip", "leaf", "root"]))
    leaf = leaves[index]
    if change == "add" or not proof:
        proof.append(b"\x00" * 32)
    elif change == "drop":
        proof.pop(data.draw(st.integers(0, len(proof) - 1)))
    elif change == "flip":
        at = data.draw(st.integers(0, len(proof) - 1))
        proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    elif change == "leaf":
        leaf = merkle.leaf_hash(b"another")
    else:
        root = merkle.leaf_hash(b"another")
    with pytest.raises(SignatureInvalidError):
        merkle.verify_inclusion(leaf, index, size, proof, root)


@pytest.mark.parametrize("new", [*range(18), 255, 256, 257])
def test_every_start_of_a_tree_has_a_consistency_proof(new):
    leaves = hashes(new)
    whole = merkle.root(new, over(leaves))
    for old in range(new + 1):
        start = merkle.root(old, over(leaves))
        proof = merkle.consistency_proof(old, new, over(leaves))
        merkle.verify_consistency(old, start, new, whole, proof)
        if old:
            with pytest.raises(SignatureInvalidError):
                merkle.verify_consistency(old, merkle.leaf_hash(b"fork"), new, whole, proof)
        with pytest.raises(SignatureInvalidError):
            merkle.verify_consistency(
                old, start, new, merkle.leaf_hash(b"fork"), proof
            ) if old else (
                merkle.verify_consistency(old, merkle.leaf_hash(b"fork"), new, whole, proof)
            )
        with pytest.raises(SignatureInvalidError):
            merkle.verify_consistency(old, start, new, whole, (*proof, b"\x00" * 32))


def test_no_proof_is_made_of_what_lies_outside_of_the_tree():
    leaves = hashes(9)
    for index, size in ((-1, 5), (5, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match="is not in a tree of"):
            merkle.inclusion_proof(index, size, over(leaves))
    for old, new in ((-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="is not the start of"):
            merkle.consistency_proof(old, new, over(leaves))


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 3), (3, 7), (4, 8), (5, 6), (6, 13)])
def test_a_path_has_the_one_length_that_the_sizes_ask_for(old, new):
    leaves = hashes(new)
    start, proof = merkle.root(old, over(leaves)), merkle.consistency_proof(old, new, over(leaves))
    path = (start, *proof) if old & (old - 1) == 0 else proof
    roots = (start, merkle.root(new, over(leaves)))
    assert merkle.roots_of_path(old, new, path) == roots
    for other in ((), path[:-1], (*path, start), (*path, start, start)):
        assert merkle.roots_of_path(old, new, other) is None


def test_a_log_that_shrinks_is_named():
    with pytest.raises(SignatureInvalidError) as caught:
        merkle.verify_consistency(5, b"a" * 32, 4, b"b" * 32, ())
    assert caught.value.reason == "log-shrank"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_tiles_give_the_tree_that_the_leaves_give(portions):
    leaves = hashes(sum(portions))
    kept: dict[tuple[int, int], bytes] = {}
    size = 0
    for portion in portions:
        edge = {key: kept[key] for key in tiles.edge_keys(size)}
        changed, hash_at = tiles.appended(size, edge, leaves[size : size + portion])
        size += portion
        kept.update(changed)
        assert merkle.root(size, hash_at) == merkle.root(size, over(leaves[:size]))
    for (level, number), tile in kept.items():
        assert len(tile) == 32 * tiles.width_at(level, number, size)
    read = tiles.reader(size, lambda level, number: kept[level, number])
    for index in {0, size // 3, size - 1}:
        proof = merkle.inclusion_proof(index, size, read)
        assert proof == merkle.inclusion_proof(index, size, over(leaves))
