"""Which final states and which reads a history of overlapping writes permits."""

from chaos.model import ABSENT, Read, Write, impossible_reads, permitted

FOREVER = float("inf")


def acknowledged(value: str, start: float, end: float, over: str | None = None) -> Write:
    return Write(value, start, end, True, over)


def unknown(value: str, start: float) -> Write:
    return Write(value, start, FOREVER, False)


def test_without_writes_the_old_value_stays() -> None:
    assert permitted("a", []) == {"a"}


def test_an_acknowledged_write_replaces_what_was_before() -> None:
    assert permitted("a", [acknowledged("b", 1, 2)]) == {"b"}


def test_of_two_writes_one_after_the_other_the_later_one_stays() -> None:
    assert permitted("a", [acknowledged("b", 1, 2), acknowledged("c", 3, 4)]) == {"c"}


def test_of_two_writes_that_overlap_either_may_be_the_last() -> None:
    assert permitted("a", [acknowledged("b", 1, 4), acknowledged("c", 2, 3)]) == {"b", "c"}


def test_a_write_without_an_answer_may_have_happened_or_not() -> None:
    assert permitted("a", [unknown("b", 1)]) == {"a", "b"}


def test_a_write_without_an_answer_may_still_happen_after_a_later_one() -> None:
    assert permitted("a", [unknown("b", 1), acknowledged("c", 2, 3)]) == {"b", "c"}


def test_an_acknowledged_deletion_leaves_nothing() -> None:
    assert permitted("a", [acknowledged(ABSENT, 1, 2)]) == {ABSENT}


def test_a_deletion_of_a_manifest_takes_its_own_tags_alone() -> None:
    deletion = acknowledged(ABSENT, 3, 4, over="a")
    assert permitted("a", [deletion]) == {ABSENT}
    assert permitted("b", [deletion]) == {"b"}


def test_a_deletion_that_may_have_met_its_manifest_may_have_taken_the_tag() -> None:
    deletion = acknowledged(ABSENT, 3, 6, over="b")
    assert permitted("a", [acknowledged("b", 4, 5), deletion]) == {ABSENT, "b"}


def test_a_read_may_show_every_write_that_overlaps_it() -> None:
    writes = [acknowledged("b", 1, 4)]
    reads = [Read("a", 2, 3), Read("b", 2, 3)]
    assert impossible_reads("a", writes, reads) == []


def test_a_read_that_goes_back_behind_an_acknowledged_write_is_impossible() -> None:
    writes = [acknowledged("b", 1, 2)]
    ((read, values),) = impossible_reads("a", writes, [Read("a", 3, 4)])
    assert (read.value, values) == ("a", {"b"})


def test_a_read_of_what_nobody_has_written_yet_is_impossible() -> None:
    assert impossible_reads("a", [acknowledged("b", 5, 6)], [Read("b", 3, 4)])
