"""HTML in which every text is escaped: what is not made here as `Html` is text of strangers.

    tag("a", "text of anybody", href="/alice/notes")     <a href="/alice/notes">text of anybody</a>

Characters that nobody sees (controls, turned directions, zero width) are shown as U+FFFD, so that a
publisher's text cannot disguise itself or what stands beside it.
"""

from __future__ import annotations

from html import escape
from typing import Final, TypeAlias

_VOID: Final = frozenset({"link", "meta", "br"})
_SPACE: Final = "\n\t"


class Html(str):
    """Markup that this module made."""

    __slots__ = ()


Child: TypeAlias = "Html | str | int | None"


def tag(element: str, /, *children: Child, **attributes: str) -> Html:
    """The `element`; `class_` stands for the attribute `class`."""
    written = "".join(
        f' {key.rstrip("_")}="{_escaped(value)}"' for key, value in attributes.items()
    )
    if element in _VOID:
        return Html(f"<{element}{written}>")
    return Html(f"<{element}{written}>{join(*children)}</{element}>")


def join(*children: Child) -> Html:
    """`children` one behind the other; None is nothing."""
    return Html(
        "".join(
            child if isinstance(child, Html) else _escaped(str(child))
            for child in children
            if child is not None
        )
    )


def visible(text: str) -> str:
    """`text` with every character that nobody sees replaced."""
    return "".join(char if char.isprintable() or char in _SPACE else "\ufffd" for char in text)


def document(title: str, style_url: str, *body: Child) -> Html:
    """A whole page: no script, one style sheet of our own."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("title", title),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="stylesheet", href=style_url),
    )
    return join(Html("<!doctype html>"), tag("html", head, tag("body", *body), lang="en"))


def _escaped(text: str) -> str:
    return escape(visible(text), quote=True)
