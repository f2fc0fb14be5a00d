"""On real texts without secrets the rules are quiet: a finding that is none is a warning nobody reads."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest
from memcube.scanning.text import scan_lines, scan_text

DATA = Path(__file__).parents[5] / "shared" / "data"


def files_of(suffixes: tuple[str, ...]) -> list[Path]:
    return [path for path in sorted(DATA.rglob("*")) if path.suffix in suffixes]


def test_thousands_of_pages_of_help_have_at_most_a_finding_in_a_thousand_and_none_that_stops_a_push():
    pages = DATA / "tldr" / "pages.jsonl.gz"
    if not pages.is_file():
        pytest.skip("the data of others is not here")
    raw = gzip.decompress(pages.read_bytes())
    found = Counter(match.rule.severity for match in scan_lines(raw))
    assert not found["high"]
    assert found.total() <= raw.count(b"\n") / 1000


def test_memories_that_others_exported_have_no_finding_that_stops_a_push():
    texts = [path.read_text("utf-8", "replace") for path in files_of((".json", ".af", ".md"))]
    if not texts:
        pytest.skip("the data of others is not here")
    assert [
        m.rule.name for text in texts for m in scan_text(text) if m.rule.severity == "high"
    ] == []
