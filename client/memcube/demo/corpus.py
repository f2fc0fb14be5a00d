"""Plaintext memories for the demonstration: help pages where they are at hand, else our own handbook."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.records import Record, Source, read_lines, split_lines

from memcube.importers.foreign import record_id

HANDBOOK: Final = "handbook.jsonl"


def handbook() -> Iterator[Record]:
    """The records that come with memcube: the handbook of an invented tide station."""
    content = resources.files("memcube.demo").joinpath(HANDBOOK).read_bytes()
    return read_lines([content], what=HANDBOOK)


def tldr_records(path: Path) -> Iterator[Record]:
    """Records of a gzipped JSON Lines file of command-line help pages, one a page (CC BY 4.0).

    Raises:
        InvalidJsonError, LimitExceededError: the file is not one.
    """
    with gzip.open(path, "rb") as file, io.BufferedReader(file, 256 * limits.KIB) as lines:
        for line in split_lines(lines, what=path.name):
            yield _page(canonical_json.parse_object(line, what=path.name))


def _page(page: dict[str, Any]) -> Record:
    examples = (f"{example['task']}:\n  {example['command']}" for example in page["examples"])
    name = f"{page['language']}/{page['platform']}/{page['page']}"
    return Record(
        id=record_id(name),
        text="\n".join((page["title"], page["description"], *examples)),
        type="procedure",
        subject=page["title"],
        tags=(page["platform"], page["language"]),
        source=Source(system="tldr", uri=f"pages/{name}"),
    )
