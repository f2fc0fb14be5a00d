from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.text import (
    TERM_CHARS,
    measured_terms,
    normalise,
    query_terms,
    term_id,
    terms,
)

SCRIPTS = st.text(alphabet="aZ9 _-éßİ温度传感器カナひ한국ไทย้ำहिन्दीﬁⅧ①\u200d\u202e😀", max_size=40)


@settings(max_examples=300)
@given(st.text(max_size=60) | SCRIPTS)
def test_what_is_asked_for_is_found_in_the_text_itself(text: str) -> None:
    kept = terms(text)
    assert set(query_terms(text)) <= set(kept)
    assert bool(query_terms(text)) == bool(kept)
    assert all(0 < len(term) <= 2 * TERM_CHARS for term in kept)
    assert terms(normalise(text)) == kept


@settings(max_examples=200)
@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
def test_the_short_cut_for_ascii_changes_nothing(text: str) -> None:
    assert terms(text) == [term for term in terms(text + " 温") if term != "温"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Check the CPU", ["check", "the", "cpu"]),
        ("温度", ["温", "度", "温度"]),
        ("CPU温度2", ["cpu", "温", "度", "温度", "2"]),
        ("Straße ﬁle Ⅷ", ["strasse", "file", "viii"]),
        ("한국어", ["한", "국", "어", "한국", "국어"]),
        ("カタ", ["カ", "タ", "カタ"]),
        ("ｶﾀ", ["カ", "タ", "カタ"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("cafe\u0301", ["café"]),
        ("snake_case-and.dots", ["snake", "case", "and", "dot"]),
        ("", []),
        ("… !? 😀", []),
        ("x" * 200, ["x" * TERM_CHARS]),
    ],
)
def test_terms_of_many_scripts(text: str, found: list[str]) -> None:
    assert terms(text) == found


def test_thai_is_found_by_its_syllables() -> None:
    document = terms("ฉันดื่มน้ำชาทุกเช้า")
    assert set(query_terms("น้ำชา")) <= set(document)
    assert not set(query_terms("กาแฟ")) <= set(document)


def test_queries_ask_for_pairs_of_unsegmented_runs() -> None:
    assert query_terms("温度传感器 CPU cpu") == ["温度", "度传", "传感", "感器", "cpu"]
    assert query_terms("度") == ["度"]


def test_a_word_inside_a_chinese_sentence_is_found() -> None:
    document = terms("每月第一个星期一用软布清洁雷达水位计的天线")
    assert set(query_terms("水位计")) <= set(document)
    assert not set(query_terms("位水")) <= set(document)


@given(st.text(min_size=1, max_size=10))
def test_dimensions_are_the_head_of_sha_256(term: str) -> None:
    expected = hashlib.sha256(term.encode("utf-8", "replace")).digest()[:4]
    assert term_id(term).to_bytes(4, "big") == expected


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("files", "file"),
        ("batteries", "battery"),
        ("shoes", "shoe"),
        ("Windows", "window"),
        ("class", "class"),
        ("status", "status"),
        ("dns", "dns"),
        ("cafés", "cafés"),
        ("x86s", "x86s"),
    ],
)
def test_english_plurals_are_found_by_their_singular(plural: str, singular: str) -> None:
    assert terms(plural) == [singular]
    assert query_terms(plural) == [singular]


def test_the_length_of_a_text_counts_characters_in_pairs_once() -> None:
    assert measured_terms("温度传感器 CPU fans")[1] == 4 + 2
    assert measured_terms("度 CPU")[1] == 2
    assert measured_terms("check the fans, fans")[1] == 4
