from __future__ import annotations

from pathlib import Path

import pytest
from memcube.demo.corpus import handbook, tldr_records
from memcube_protocol.records import write_record
from memcube_protocol.shards import cut

PAGES = Path(__file__).parents[5] / "shared/data/tldr/pages.jsonl.gz"


def test_the_handbook_is_sorted_canonical_and_varied() -> None:
    records = list(handbook())
    assert len(records) >= 60
    assert sum(shard.count for shard in cut(records)) == len(records)
    assert len({record.type for record in records}) >= 8


@pytest.mark.skipif(not PAGES.exists(), reason="the shared tldr pages are not here")
def test_every_help_page_becomes_a_record_of_its_own() -> None:
    records = list(tldr_records(PAGES))
    assert len(records) > 8000
    assert len({record.id for record in records}) == len(records)
    assert all(len(write_record(record)) < 100_000 for record in records)
    tar = next(record for record in records if record.id == "en/common/tar")
    assert "tar" in tar.text
    assert tar.tags == ("common", "en")
