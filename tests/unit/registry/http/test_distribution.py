"""Paths of the distribution API: the canonical form leads to its target, every other is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import InvalidReferenceError, InvalidRequestError, MemcubeError
from memcube_registry.http.distribution import ROOT, Target, parse_path

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v2/", ROOT),
        ("/v2/ada/x/manifests/latest", Target("manifest", "ada/x", "latest")),
        (f"/v2/ada/x/manifests/{DIGEST}", Target("manifest", "ada/x", DIGEST)),
        (f"/v2/ada/x/blobs/{DIGEST}", Target("blob", "ada/x", DIGEST)),
        ("/v2/ada/x/blobs/uploads/", Target("uploads", "ada/x", "blobs/uploads/")),
        ("/v2/ada/x/blobs/uploads", Target("uploads", "ada/x", "blobs/uploads")),
        ("/v2/ada/x/blobs/uploads/" + "a" * 32, Target("upload", "ada/x", "a" * 32)),
        ("/v2/ada/x/tags/list", Target("tags", "ada/x", "tags/list")),
        (f"/v2/ada/x/referrers/{DIGEST}", Target("referrers", "ada/x", DIGEST)),
        ("/v2/a/b/c/d/tags/list", Target("tags", "a/b/c/d", "tags/list")),
        ("/v2/ada/blobs/manifests/v1", Target("manifest", "ada/blobs", "v1")),
        ("/v2/ada/tags/list/tags/list", Target("tags", "ada/tags/list", "tags/list")),
        ("/v2/ada/manifests/blobs/uploads/", Target("uploads", "ada/manifests", "blobs/uploads/")),
    ],
)
def test_canonical_paths_lead_to_their_targets(path: str, target: Target) -> None:
    assert parse_path(path.encode()) == target


@pytest.mark.parametrize(
    "path",
    [
        "/v2//ada/x/tags/list",
        "/v2/ada//x/tags/list",
        "/v2/ada/x//tags/list",
        "/v2/ada/x/../y/tags/list",
        "/v2/ada/./x/tags/list",
        "/v2/ada%2Fx/tags/list",
        "/v2/ada/x/tags%2flist",
        "/v2/ada/%2e%2e/y/tags/list",
        "/v2/ada/x/tags/list ",
        "/v2/ada\\x/tags/list",
        "/v2/ada/x\x00/tags/list",
        "/v2/" + "a/" * 600 + "x/tags/list",
    ],
)
def test_other_spellings_are_refused(path: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_path(path.encode("latin-1"))


@pytest.mark.parametrize(
    "path",
    ["/v2/Ada/x/tags/list", "/v2/ada/x-/tags/list", "/v2/-/x/tags/list", "/v2/a..b/x/tags/list"],
)
def test_malformed_names_are_refused(path: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_path(path.encode())


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/x",
        "/v2/ada/x/tags/list/",
        "/v2/ada/x/tags",
        "/v2/ada/x/manifests/",
        "/v2/tags/list",
        "/v2/ada/x/blobs/uploads/" + "A" * 32,
        "/v2/ada/x/blobs/uploads/1/2",
    ],
)
def test_what_is_no_path_of_this_api_is_refused(path: str) -> None:
    with pytest.raises(MemcubeError):
        parse_path(path.encode())


@given(st.binary(max_size=80))
def test_any_bytes_give_a_target_or_one_of_our_errors(raw: bytes) -> None:
    for path in (raw, b"/v2/" + raw, b"/v2/ada/x/" + raw, b"/v2/" + raw + b"/tags/list"):
        try:
            target = parse_path(path)
        except MemcubeError:
            continue
        assert target == ROOT or target.repository == target.repository.lower()
