"""BM25 in memory: it forgets as exactly as it learns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from memcube.overlay.term_index import TermIndex

names = st.sampled_from("abcde")
texts = st.lists(st.sampled_from(["cat", "dog", "owl", "温度"]), max_size=5).map(" ".join)
steps = st.lists(st.tuples(names, st.none() | texts), max_size=12)


@given(steps)
def test_an_index_after_changes_ranks_as_one_that_was_made_anew(
    steps: list[tuple[str, str | None]],
) -> None:
    index, left = TermIndex(), dict[str, str]()
    for name, content in steps:
        if content is None:
            index.remove(name)
            left.pop(name, None)
        else:
            index.add(name, content)
            left[name] = content
    anew = TermIndex()
    for name, content in left.items():
        anew.add(name, content)
    assert len(index) == len(left)
    for terms in (["cat"], ["cat", "dog"], ["owl", "温度"], ["absent"]):
        weights = dict.fromkeys(terms, 1.0)
        ranked = list(index.ranked(weights))
        assert ranked == list(anew.ranked(weights))
        assert ranked == sorted(ranked, key=lambda one: (-one[1], one[0]))


def test_a_term_counts_as_much_as_is_asked() -> None:
    index = TermIndex()
    index.add("cat", "cat and others")
    index.add("dog", "dog and others")
    assert [name for name, _ in index.ranked({"cat": 1.0, "dog": 0.7})] == ["cat", "dog"]
    assert [name for name, _ in index.ranked({"cat": 0.7, "dog": 1.0})] == ["dog", "cat"]


def test_rarer_terms_weigh_more() -> None:
    index = TermIndex()
    for number in range(5):
        index.add(f"common-{number}", "backup")
    index.add("rare", "restore")
    ranked = dict(index.ranked({"backup": 1.0, "restore": 1.0}))
    assert ranked["rare"] > ranked["common-0"] > 0
