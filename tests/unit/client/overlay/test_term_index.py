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
        assert index.ranked(terms) == anew.ranked(terms)


def test_texts_with_all_terms_come_before_those_with_a_rare_one() -> None:
    index = TermIndex()
    index.add("rare", "zebra zebra zebra")
    index.add("both", "a zebra and a horse, and a long line of other words around the two of them")
    index.add("horse", "horse")
    assert next(name for name, _ in index.ranked(["zebra", "horse"])) == "both"


def test_rarer_terms_weigh_more() -> None:
    index = TermIndex()
    for number in range(5):
        index.add(f"common-{number}", "backup")
    index.add("rare", "restore")
    ranked = dict(index.ranked(["backup", "restore"]))
    assert ranked["rare"] > ranked["common-0"] > 0
