"""Addresses of the Hub's API: one spelling leads to each target, every other is refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import InvalidRequestError, MemcubeError, NotFoundError
from memcube_registry.hub import addresses
from memcube_registry.hub.addresses import Address

DIGEST = "sha256:" + "0" * 64
COMPONENTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"),
    min_size=1,
    max_size=20,
).filter(lambda text: text not in (".", ".."))


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/api/whoami-v2", Address("whoami")),
        ("/api/models/ada/x", Address("info", "ada/x")),
        ("/api/datasets/ada/x", Address("info", "ada/x")),
        ("/api/models/ada/x/revision/1.0", Address("info", "ada/x", "1.0")),
        (f"/api/models/ada/x/revision/{DIGEST}", Address("info", "ada/x", DIGEST)),
        ("/api/models/ada/x/revision/refs%2Fpr%2F1", Address("info", "ada/x", "refs/pr/1")),
        ("/api/models/ada/x/tree/main", Address("tree", "ada/x", "main")),
        ("/api/models/ada/x/tree/main/a/b", Address("tree", "ada/x", "main", "a/b")),
        ("/api/models/ada/x/tree/main/a%2Fb", Address("tree", "ada/x", "main", "a/b")),
        ("/api/models/ada/x/refs", Address("refs", "ada/x")),
        ("/api/models/ada/x/paths-info/main", Address("paths-info", "ada/x", "main")),
        ("/ada/x/resolve/main/a.txt", Address("file", "ada/x", "main", "a.txt")),
        ("/ada/x/resolve/sha256%3Aff/a/b", Address("file", "ada/x", "sha256:ff", "a/b")),
        ("/datasets/ada/x/resolve/main/a", Address("file", "ada/x", "main", "a")),
        ("/ada/x/resolve/main/resolve/x", Address("file", "ada/x", "main", "resolve/x")),
        ("/ada/resolve/resolve/main/a", Address("file", "ada/resolve", "main", "a")),
        ("/datasets/ada/resolve/resolve/main/a", Address("file", "ada/resolve", "main", "a")),
    ],
)
def test_canonical_paths_lead_to_their_targets(path: str, address: Address) -> None:
    assert addresses.is_ours(path.encode())
    assert addresses.parse(path.encode()) == address


@pytest.mark.parametrize(
    "path",
    [
        "/ada/x/resolve/main/",
        "/ada/x/resolve/main/a//b",
        "/ada/x/resolve//a",
        "/ada/x/resolve/main/../a",
        "/ada/x/resolve/main/%2e%2e/a",
        "/ada/x/resolve/main/%2E/a",
        "/ada/x/resolve/main/a%2Fb",
        "/ada/x/resolve/main/a%2fb",
        "/ada/x/resolve/main/a%5Cb",
        "/ada/x/resolve/main/a\\b",
        "/ada/x/resolve/main/%61",
        "/ada/x/resolve/main/a%00",
        "/ada/x/resolve/main/a%0Ab",
        "/ada/x/resolve/main/a%C0%AF",
        "/ada/x/resolve/main/a%",
        "/ada/x/resolve/main/a%zz",
        "/ada/x/resolve/main/a b",
        "/ada/x/resolve/main/\u00e9",
        "/ada/x/resolve/%6dain/a",
        "/ada/x/resolve/../a",
        "/ada%2Fx/y/resolve/main/a",
        "/%61da/x/resolve/main/a",
        "/api/models/ada%2Fx/y",
        "/api/models/ada/x/tree/main/a%2F%2Fb",
        "/api/models/ada/x/tree/main/a%2F..%2Fb",
        "/api/models/ada/x/tree/main/%2Fetc",
        "/api/models/ada//tree/main",
        "/ada/x/resolve/main/" + "a" * 5000,
    ],
)
def test_other_spellings_are_refused(path: str) -> None:
    raw = path.encode()
    assert addresses.is_ours(raw)
    with pytest.raises(InvalidRequestError):
        addresses.parse(raw)


@pytest.mark.parametrize(
    "path",
    [
        "/api/models",
        "/api/models/",
        "/api/models/ada",
        "/api/models/Ada/x",
        "/api/models/ada/x/",
        "/api/models/ada/x/tree",
        "/api/models/ada/x/refs/more",
        "/api/models/ada/x/revision/main/more",
        "/api/models/ada/x/commit/main",
        "/api/spaces/ada/x",
        "/api/whoami-v2/",
        "/ada/x/resolve/main",
        "/ada/x/resolve",
        "/spaces/ada/x/resolve/main/a",
        "/models/ada/x/resolve/main/a",
    ],
)
def test_what_is_no_address_of_this_api_is_not_found(path: str) -> None:
    if addresses.is_ours(path.encode()):
        with pytest.raises(NotFoundError):
            addresses.parse(path.encode())


@pytest.mark.parametrize(
    "path", ["/", "/ada/x", "/api/v1/cubes", "/v2/ada/x/blobs/y", "/api/models-x"]
)
def test_other_paths_are_left_to_others(path: str) -> None:
    assert not addresses.is_ours(path.encode())


@given(COMPONENTS, st.lists(COMPONENTS, min_size=1, max_size=4))
def test_whatever_is_encoded_is_decoded_to_itself(revision: str, components: list[str]) -> None:
    encoded = [quote(text, safe="") for text in [revision, *components]]
    address = addresses.parse(("/ada/x/resolve/" + "/".join(encoded)).encode())
    assert address == Address("file", "ada/x", revision, "/".join(components))


@given(st.binary(max_size=60))
def test_no_path_leaves_its_folder(rest: bytes) -> None:
    try:
        address = addresses.parse(b"/ada/x/resolve/" + rest)
    except MemcubeError:
        return
    assert not {"", ".", ".."} & set(address.path.split("/"))
    assert address.repository == "ada/x"
