"""The files of a cube are scanned by what they are, into one statement."""

from __future__ import annotations

import io
import pickle
import zipfile
from datetime import UTC, datetime

import pytest
from memcube.scanning import RULES_VERSION, scan_cube
from memcube.scanning.files import scan_file
from memcube_protocol import media_types
from memcube_protocol.config import CubeConfig, Memory
from memcube_protocol.content import MemoryBlobs
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.records import Record
from memcube_protocol.shards import compress, cut
from memcube_signing.predicates import scan as scans

NOW = datetime(2026, 2, 1, 12, 0, 0, 5, tzinfo=UTC)
KEY = "AKIA" + "QWERTYUIOPASDFGH"


def rules(path: str, head: bytes) -> set[str]:
    return {finding.rule for finding in scan_file(path, head)}


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for name in names:
            opened.writestr(name, b"x")
    return content.getvalue()


@pytest.mark.parametrize(
    ("path", "head", "rule"),
    [
        ("a/tool", b"\x7fELF\x02", "native-program"),
        ("a/tool.dat", b"MZ\x90\x00", "native-program"),
        ("a/run", b"#!/bin/sh\nrm -rf /\n", "script"),
        ("a/model.bin", pickle.dumps({"a": [1, 2, 3]}), "pickle"),
        ("a/model.bin", archive("archive/data.pkl"), "pickle-in-archive"),
        ("a/x.bin", archive("Main.class"), "program-in-archive"),
        ("a/x.zip", archive("notes.txt"), "archive"),
        ("a/x.svg", b"<svg onload='x()'><script>x()</script></svg>", "active-document"),
        ("a/x.pdf", b"%PDF-1.7 /OpenAction /JavaScript", "active-document"),
        ("a/setup.exe", b"text", "name-of-a-program"),
        ("a/weights.pt", b"text", "name-of-a-program"),
    ],
)
def test_files_that_are_more_than_data_are_found(path, head, rule):
    assert rule in rules(path, head)


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("a/notes.txt", b"notes"),
        ("a/page.html", b"<!doctype html><p>text</p>"),
        ("a/image.png", b"\x89PNG\r\n\x1a\n" + bytes(40)),
        ("a/x.bin", b"\x80\x04 not a pickle"),
        ("a/empty", b""),
    ],
)
def test_data_passes(path, head):
    assert rules(path, head) == set()


def cube(*texts: str, attachment: bytes = b"fine") -> tuple[Cube, MemoryBlobs]:
    records = [Record(id=f"r{number:04}", text=text) for number, text in enumerate(texts)]
    (shard,) = cut(records)
    packed = compress(shard)
    blobs = MemoryBlobs([packed.content, attachment])
    layer = packed.descriptor("plaintext/a.jsonl.zst", "plaintext")
    files = [
        CubeFile.of(layer),
        CubeFile(
            "attachments/a.txt",
            media_types.ATTACHMENT,
            Digest.of(attachment),
            len(attachment),
            details={media_types.ATTACHMENT_TYPE: "text/plain"},
        ),
    ]
    memory = Memory("plaintext", "plaintext", (layer.digest,), records=len(records))
    config = CubeConfig("alice/notes", "1.0.0", NOW.replace(microsecond=0), memories=(memory,))
    return Cube.write(config, files), blobs


def scan(*texts: str, attachment: bytes = b"fine"):
    packed, blobs = cube(*texts, attachment=attachment)
    return scan_cube(packed, blobs, name="alice/notes", version="1", now=NOW)


def test_a_scan_says_where_and_how_often():
    found = scan("harmless", f"one {KEY}", f"two {KEY} {KEY}")
    assert found.counts["secrets"] == 3
    assert [(finding.path, finding.place) for finding in found.findings] == [
        ("plaintext/a.jsonl.zst", "record r0001"),
        ("plaintext/a.jsonl.zst", "record r0002"),
    ]
    assert found.rules_version == RULES_VERSION
    assert scans.read(found.to_statement()) == found


def test_nothing_that_was_found_stands_in_the_statement():
    assert KEY.encode() not in scan(f"{KEY}").to_statement().to_bytes()


def test_a_scan_of_very_many_findings_still_fits_a_statement():
    found = scan(*(f"mail p{number}@mail.net" for number in range(3000)))
    assert found.counts["personal-data"] == 3000
    assert len(found.findings) <= 200
    found.to_statement().to_bytes()


def test_attachments_are_scanned_as_files_and_as_text():
    found = scan("harmless", attachment=f"#!/bin/sh\nexport KEY={KEY}\n".encode())
    assert {finding.rule for finding in found.findings} >= {"script", "aws-access-key"}
    assert {finding.place for finding in found.findings if finding.check == "secrets"} == {"line 2"}


def test_a_clean_cube_has_no_findings():
    found = scan("harmless", "also harmless")
    assert found.findings == ()
    assert set(found.counts.values()) == {0}
    assert found.worst is None
