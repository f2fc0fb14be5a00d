"""Where blobs of the Hub lie: known for the cubes used last, and never without bound."""

from __future__ import annotations

from memcube.hub.places import Places
from memcube_protocol.digest import Digest


def paths(*texts: str) -> dict[Digest, str]:
    return {Digest.of(text.encode()): f"files/{text}" for text in texts}


def where(places: Places, name: str, text: str) -> tuple[str, str] | None:
    return places.find(name, Digest.of(text.encode()))


def test_the_commit_used_last_tells_where_a_blob_lies() -> None:
    places = Places()
    places.remember("ada/a", "1", paths("x", "y"))
    places.remember("ada/a", "2", {Digest.of(b"x"): "moved/x"})
    assert where(places, "ada/a", "x") == ("2", "moved/x")
    assert where(places, "ada/a", "y") == ("1", "files/y")
    assert where(places, "ada/b", "x") is None


def test_a_process_that_sees_many_cubes_remembers_few() -> None:
    places = Places(places_max=10)
    for number in range(1000):
        places.remember("ada/a", f"{number}", paths(f"{number}", f"more {number}"))
    assert len(places) == 10
    assert where(places, "ada/a", "0") is None
    assert where(places, "ada/a", "999") == ("999", "files/999")
    assert len(places._commits) == 10


def test_a_cube_in_use_outlives_those_that_came_after_it() -> None:
    places = Places(places_max=4)
    places.remember("ada/used", "1", paths("x"))
    for number in range(20):
        places.remember("ada/other", f"{number}", paths(f"{number}"))
        assert where(places, "ada/used", "x") == ("1", "files/x")


def test_a_cube_is_known_whole_however_many_files_it_has() -> None:
    places = Places(places_max=3)
    places.remember("ada/small", "1", paths("x"))
    texts = [str(number) for number in range(100)]
    places.remember("ada/large", "2", paths(*texts))
    assert all(where(places, "ada/large", text) for text in texts)
    assert where(places, "ada/small", "x") is None


def test_forgetting_a_version_keeps_what_an_older_one_shares_with_it() -> None:
    places = Places(places_max=3)
    places.remember("ada/a", "1", paths("x", "y"))
    places.remember("ada/a", "2", paths("x"))
    assert where(places, "ada/a", "y") == ("1", "files/y")
    places.remember("ada/a", "3", paths("z"))
    assert where(places, "ada/a", "x") == ("1", "files/x")
