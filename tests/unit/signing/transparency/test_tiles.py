"""Paths and entry bundles of tlog-tiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube_protocol.errors import InvalidRequestError, InvalidStatementError, NotFoundError
from memcube_signing.transparency import tiles
from memcube_signing.transparency.tiles import Tile


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "0/000"),
        (Tile(3, 1234067), "3/x001/x234/067"),
        (Tile(1, 5, 1), "1/005.p/1"),
        (Tile(None, 999, kind="entries"), "entries/999"),
        (Tile(None, 1000, 255, kind="entries"), "entries/x001/000.p/255"),
        (Tile(None, 7, 3, kind="names"), "names/007.p/3"),
    ],
)
def test_paths_are_those_of_the_specification(tile, path):
    assert tile.path == path
    assert tiles.parse_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "0/1",
        "0/0000",
        "0/x000/001",
        "8/000",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/001/002",
        "entries/x001/x234/67",
        "0/٠٠٠",
        "-1/000",
        "0/000\n",
    ],
)
def test_other_paths_are_refused(path):
    with pytest.raises(InvalidRequestError):
        tiles.parse_path(path)


@given(st.integers(0, 7), st.integers(0, 10**15), st.integers(1, 256))
def test_every_path_is_read_back(level, number, width):
    tile = Tile(level, number, width)
    assert tiles.parse_path(tile.path) == tile


@given(st.lists(st.binary(max_size=40), max_size=256))
def test_every_entry_bundle_is_read_back(entries):
    assert tiles.parse_entries(tiles.encode_entries(entries)) == tuple(entries)


@pytest.mark.parametrize("content", [b"\x00", b"\x00\x02a", b"\x00\x01a\x00", b"\x00\x00" * 257])
def test_damaged_entry_bundles_are_refused(content):
    with pytest.raises(InvalidStatementError):
        tiles.parse_entries(content)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 63, 95, 97])
def test_a_tile_that_is_cut_off_is_never_half_believed(length):
    content = bytes(range(100))[:length]
    hash_at = tiles.reader(4, lambda *_: content)
    with pytest.raises(NotFoundError):
        hash_at(2, 0)
    with pytest.raises(NotFoundError):
        hash_at(0, length // 32)
