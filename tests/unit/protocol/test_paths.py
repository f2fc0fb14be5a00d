from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_protocol.errors import UnsafePathError
from memcube_protocol.paths import require_distinct, require_safe
from support.attempts import attempt


@settings(max_examples=300)
@given(st.text(max_size=40) | st.text(alphabet="ab./\\: \u0301\u202e\x00\x85conCON", max_size=20))
def test_what_is_accepted_stays_inside_any_folder_on_any_system(path: str) -> None:
    if isinstance(attempt(lambda: require_safe(path)), UnsafePathError):
        return
    for pure in (PurePosixPath(path), PureWindowsPath(path)):
        assert not pure.is_absolute()
        assert not pure.drive
        assert ".." not in pure.parts
        assert pure.as_posix() == path
    assert unicodedata.is_normalized("NFC", path)
    assert not any(unicodedata.category(char).startswith("C") and ord(char) < 0xA0 for char in path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        "C:/a",
        "a\\b",
        "a\x00b",
        "a\x85b",
        "a\u202eb",
        "a\u2028b",
        "a.",
        "a ",
        " a",
        "con",
        "a/NUL.txt",
        "com1.tar.gz",
        "com¹",
        "con .txt",
        "CONIN$",
        "e\u0301",
        "\ud800",
        "a" * 256,
        "/".join(["a" * 200] * 6),
        "what?",
        "a|b",
    ],
)
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(UnsafePathError):
        require_safe(path)


@pytest.mark.parametrize(
    "path", ["README.md", "plaintext/记忆.jsonl", "a b/c-d_e.f", ".hidden", "console.txt", "é/ü"]
)
def test_ordinary_paths_are_accepted(path: str) -> None:
    assert require_safe(path) == path


@pytest.mark.parametrize(
    "paths", [["a", "A"], ["straße", "STRASSE"], ["a/b", "a"], ["A/b", "a/b/c"], ["a", "a"]]
)
def test_paths_that_a_disk_confuses_are_refused_together(paths: list[str]) -> None:
    with pytest.raises(UnsafePathError):
        require_distinct(paths)


def test_paths_side_by_side_are_accepted() -> None:
    require_distinct(["a/b", "a/c", "ab", "b"])
