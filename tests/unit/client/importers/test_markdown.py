from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memcube.importers import read_markdown_folder
from memcube.importers.markdown import front_matter, sections
from memcube_protocol.errors import NotFoundError
from memcube_protocol.records import parse_record, write_record

NOTE = """---
title: On tea
tags: [tea, "hot drinks"]
author: Ada
date: 2026-01-02T03:04:05Z
mood: calm
aliases:
- chai
- 茶
---
Before any heading.

# Tea

Leaves and water.

```sh
# not a heading
```

## Green #
Eighty degrees.

## Green
Again.

# 茶 道
水。
"""


def test_each_section_becomes_a_record_with_a_stable_id(tmp_path: Path) -> None:
    (tmp_path / "drinks").mkdir()
    (tmp_path / "drinks/tea.md").write_text(NOTE)
    imported = read_markdown_folder(tmp_path)
    records = list(imported.records)
    assert [record.id for record in records] == [
        "drinks/tea.md",
        "drinks/tea.md#tea",
        "drinks/tea.md#tea/green",
        "drinks/tea.md#tea/green~2",
        "drinks/tea.md#茶-道",
    ]
    tea = records[1]
    assert tea.text == "Tea\n\nLeaves and water.\n\n```sh\n# not a heading\n```"
    assert tea.tags == ("tea", "hot drinks")
    assert tea.subject == "On tea"
    assert tea.created_at == "2026-01-02T03:04:05Z"
    assert tea.source is not None
    assert (tea.source.uri, tea.source.author) == ("drinks/tea.md", "Ada")
    assert tea.extensions == {"markdown": {"mood": "calm", "aliases": ["chai", "茶"]}}
    assert records[2].text == "Tea › Green\n\nEighty degrees."
    assert imported.report.records == 5


def test_hidden_files_links_and_other_encodings_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("fine")
    (tmp_path / "latin.md").write_bytes(b"caf\xe9")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/x.md").write_text("hidden")
    (tmp_path / "link.md").symlink_to(tmp_path / "a.md")
    imported = read_markdown_folder(tmp_path)
    assert [record.id for record in imported.records] == ["a.md"]
    assert imported.report.skipped == ["latin.md: not text in UTF-8"]


def test_a_link_to_the_folder_itself_may_be_given_but_none_inside_is_followed(
    tmp_path: Path,
) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.md").write_text("fine")
    (tmp_path / "notes/b.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "link").symlink_to(tmp_path / "notes")
    assert [record.id for record in read_markdown_folder(tmp_path / "link").records] == ["a.md"]


def test_a_folder_without_markdown_is_no_import(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_markdown_folder(tmp_path)


def test_one_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\nb")
    assert [record.id for record in read_markdown_folder(tmp_path / "a.md").records] == ["a.md#a"]


def test_a_million_blanks_behind_a_heading_are_none_and_take_no_hours() -> None:
    blanks, closing = " " * 1_000_000, " #" * 500_000
    found = list(sections(f"# Tea{blanks}\n## Green {blanks}#\n### 茶{blanks}道\n# A{closing}"))
    assert [section.headings[-1:] for section in found[1:4]] == [
        ("Tea",),
        ("Green",),
        (f"茶{blanks}道",),
    ]
    assert len(found) == 5


def test_a_list_of_half_a_million_items_is_read_in_one_go() -> None:
    values, _ = front_matter("---\naliases:\n" + "- x\n" * 500_000 + "---\n")
    assert len(values["aliases"]) == 500_000


def test_headings_lose_the_signs_that_close_them() -> None:
    text = "# a #\n# b ##  \n# c#\n# # d\n# #\n####### e\n# f\t##"
    assert [section.headings for section in sections(text)][1:] == [
        ("a",),
        ("b",),
        ("c#",),
        ("# d",),
        ("#",),
        ("f",),
    ]


def test_a_huge_section_is_cut_into_parts(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n" + "line of text\n" * 40_000)
    records = list(read_markdown_folder(tmp_path).records)
    assert [record.id for record in records] == ["a.md#a", "a.md#a~part2", "a.md#a~part3"]
    assert all(len(write_record(record)) < 300_000 for record in records)


@settings(max_examples=150)
@given(st.text(alphabet="#- \n`~abé:[],\"'\t\r\x0c", max_size=80))
def test_any_text_is_read_and_no_line_is_lost(text: str) -> None:
    matter, rest = front_matter(text)
    found = list(sections(rest))
    kept = "".join("".join(section.headings) + section.body for section in found)
    missing = set("abé") & set(rest) - set(kept)
    assert not missing
    assert isinstance(matter, dict)


@settings(max_examples=50)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_file_gives_valid_records(
    tmp_path_factory: pytest.TempPathFactory, heading: str, body: str
) -> None:
    folder = tmp_path_factory.mktemp("notes")
    content = f"---\ntags: {body}\n{heading}: {body}\n---\n# {heading}\n{body}\n"
    (folder / "a.md").write_bytes(content.encode("utf-8", "replace"))
    for record in read_markdown_folder(folder).records:
        assert parse_record(write_record(record)) == record
