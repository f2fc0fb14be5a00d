"""Hits of several cubes in one order: shares by priority, nothing lost, nothing told twice."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from memcube.memories.plaintext.hit import Hit
from memcube.mounting.hits import Ranking, fuse, gather
from memcube_protocol.records import Record

PRIORITIES = st.lists(st.integers(1, 20), min_size=1, max_size=4)


def ranking(cube: str, priority: int, count: int) -> Ranking:
    records = (Record(id=f"r{number}", text=f"{cube} {number}") for number in range(count))
    return Ranking(priority, [Hit(record, 1.0, cube) for record in records])


def test_equal_cubes_take_turns() -> None:
    found = fuse([ranking("a", 2, 3), ranking("b", 2, 3)], 4)
    assert [hit.record.text for hit in found] == ["a 0", "b 0", "a 1", "b 1"]


def test_twice_the_priority_gives_twice_the_hits() -> None:
    found = fuse([ranking("low", 1, 9), ranking("high", 2, 9)], 9)
    assert [hit.cube for hit in found].count("high") == 6
    assert found[0].cube == "high"


def test_a_text_that_two_cubes_hold_is_told_once_by_the_more_important_one() -> None:
    same = Record(id="x", text="the same words")
    found = fuse([Ranking(1, [Hit(same, 9.0, "a")]), Ranking(3, [Hit(same, 0.1, "b")])], 10)
    assert [hit.cube for hit in found] == ["b"]


@given(PRIORITIES)
def test_no_cube_is_drowned_by_another(priorities: list[int]) -> None:
    cubes = [ranking(f"c{at}", priority, 24) for at, priority in enumerate(priorities)]
    found = fuse(cubes, 24 * len(cubes))
    for at, own in enumerate(priorities):
        first = [hit.cube for hit in found].index(f"c{at}")
        others = [priority for other, priority in enumerate(priorities) if other != at]
        assert first <= sum(ceil(priority / own) for priority in others)


@given(PRIORITIES, st.integers(-1, 50))
def test_all_hits_come_in_the_order_of_their_cube(priorities: list[int], limit: int) -> None:
    cubes = [ranking(f"c{at}", priority, at + 3) for at, priority in enumerate(priorities)]
    found = fuse(cubes, limit)
    assert len(found) == min(max(limit, 0), sum(len(cube.hits) for cube in cubes))
    for at in range(len(cubes)):
        own = [hit.record.id for hit in found if hit.cube == f"c{at}"]
        assert own == [f"r{number}" for number in range(len(own))]


@given(st.integers(0, 400), st.integers(0, 8), st.integers(-1, 30))
def test_a_text_that_stands_in_a_cube_often_takes_no_place_of_another(
    copies: int, others: int, limit: int
) -> None:
    texts = ["the same words"] * copies + [f"other words {number}" for number in range(others)]
    cube = [Hit(Record(id=f"r{at}", text=text), 1.0, "a") for at, text in enumerate(texts)]
    found = gather([(2, lambda many: cube[: max(many, 0)])], limit)
    wanted = list(dict.fromkeys(texts))[: max(limit, 0)]
    assert [hit.record.text for hit in found] == wanted


def test_a_cube_without_duplicates_is_searched_once() -> None:
    asked: list[int] = []

    def search(many: int) -> list[Hit]:
        asked.append(many)
        return [*ranking("a", 1, many).hits]

    assert len(gather([(1, search)], 10)) == 10
    assert asked == [10]
