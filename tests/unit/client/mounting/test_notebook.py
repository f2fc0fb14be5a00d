"""What a notebook shows of memories is escaped text, whatever their publisher wrote."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.mounting import MountedMemory
from memcube.mounting.notebook import ROWS, TEXT_CHARS, table
from memcube.settings import Settings
from memcube_protocol.records import Record

HOSTILE = "<img src=x onerror=alert(1)></td></table><script>alert(2)</script> & \u202e copy"
ALLOWED = {"table", "thead", "tbody", "tr", "th", "td", "p"}


class Parsed(HTMLParser):
    """The tags and the text of a page; attributes only as we write them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert attributes in ([], [("style", "text-align:left;white-space:pre-wrap")])

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedMemory]:
    pytest.importorskip("qdrant_edge")
    folder = tmp_path_factory.mktemp("notebook")
    dumper = MemDumper(folder / "cube", name="alice/notes", version="1.0.0")
    dumper.add_records([Record(id="hostile", text=HOSTILE), Record(id="long", text="copy " * 200)])
    with Client(Settings.load({"MEMCUBE_HOME": str(folder / "home")})) as client:
        client.pack(dumper.folder)
        with client.mount("alice/notes") as memory:
            yield memory


def test_a_memory_shows_its_cubes_and_what_became_of_them(memory: MountedMemory) -> None:
    shown = Parsed(memory._repr_html_())
    assert set(shown.tags) <= ALLOWED
    for part in (memory.cubes[0].name, "mounted", "plaintext", memory.steps[0].why):
        assert part in shown.text


def test_a_line_names_what_is_mounted_also_once_it_is_no_more(
    memory: MountedMemory, tmp_path: Path
) -> None:
    pytest.importorskip("qdrant_edge")
    (cube,) = memory.cubes
    assert repr(memory) == "<MountedMemory: alice/notes:1.0.0>"
    assert repr(cube) == f"<MountedCube: alice/notes:1.0.0, priority {cube.priority}>"
    with Client(Settings.load({"MEMCUBE_HOME": str(tmp_path / "home")})) as client:
        own = client.mount(overlay=tmp_path / "own")
    assert repr(own) == "<MountedMemory: overlay own>"
    assert "your own overlay" in Parsed(own._repr_html_()).text
    own.close()
    assert repr(own) == "<MountedMemory: unmounted>"
    assert "unmounted" in Parsed(own._repr_html_()).text


def test_hits_show_text_and_nothing_that_runs(memory: MountedMemory) -> None:
    hits = memory.search("copy")
    assert hits == list(hits)
    shown = Parsed(hits._repr_html_())  # type: ignore[attr-defined]
    assert set(shown.tags) <= ALLOWED
    assert shown.tags.count("tr") == len(hits) + 1
    assert "<script>alert(2)</script>" in shown.text
    assert "\u202e" not in shown.text
    assert "hostile" in shown.text


def test_long_texts_and_long_lists_are_cut() -> None:
    shown = Parsed(table(("<b>",), [("x" * 1000,)] * (ROWS + 5)))
    assert shown.text.count("x") == ROWS * TEXT_CHARS
    assert shown.text.endswith("and 5 more")
    assert "<b>" in shown.text
    assert "b" not in shown.tags
