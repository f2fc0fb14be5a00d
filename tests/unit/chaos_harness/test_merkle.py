"""The checker's own tree, against the vectors of RFC 6962's reference implementation."""

import hashlib

import pytest
from chaos.merkle import Tree, leaf_hash, root_of_proof

LEAVES = [bytes.fromhex(leaf) for leaf in ("", "00", "10", "2021", "3031", "40414243")]
ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
}


@pytest.mark.parametrize("size", ROOTS)
def test_roots_are_those_of_the_reference(size: int) -> None:
    assert Tree([leaf_hash(leaf) for leaf in LEAVES]).root(size).hex() == ROOTS[size]


def test_a_proof_leads_to_the_root_and_another_leaf_does_not() -> None:
    leaves = [leaf_hash(leaf) for leaf in LEAVES[:3]]
    both = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    assert root_of_proof(leaves[2], 2, 3, [both]) == Tree(leaves).root(3)
    assert root_of_proof(leaves[1], 2, 3, [both]) != Tree(leaves).root(3)
    assert root_of_proof(leaves[2], 3, 3, [both]) is None
    assert root_of_proof(leaves[2], 2, 3, [both, both]) is None
