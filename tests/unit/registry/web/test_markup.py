"""HTML in which nothing of strangers is markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_registry.web.markup import Html, document, join, tag, visible


def test_an_element_holds_text_elements_and_nothing() -> None:
    assert tag("p", "a", None, tag("b", 2), class_="x y") == '<p class="x y">a<b>2</b></p>'
    assert tag("meta", name="viewport", content="w") == '<meta name="viewport" content="w">'
    assert isinstance(tag("p"), Html)


@settings(max_examples=100, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("<>&\"'=/ abscriptonload:\u202e\u200b\x00\x1b"), max_size=60)
)
def test_no_text_becomes_an_element_or_an_attribute(text: str) -> None:
    seen: list[tuple[str, list[tuple[str, str | None]]]] = []

    class Seen(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append((tag, attrs))

    Seen().feed(tag("p", text, title=text))
    assert seen == [("p", [("title", visible(text))])]


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200b", "\x00", "\x1b", "\U000e0041"])
def test_what_nobody_sees_is_shown(char: str) -> None:
    assert char not in tag("p", f"a{char}b", title=char)
    assert visible("two\nlines\tand 漢字") == "two\nlines\tand 漢字"


def test_a_document_is_whole() -> None:
    page = document("a<b", "/style.css", "text & more")
    assert page.startswith('<!doctype html><html lang="en"><head>')
    assert "<title>a&lt;b</title>" in page
    assert "<body>text &amp; more</body>" in page
    assert join("<", tag("i")) == "&lt;<i></i>"
