"""The files of a cube are scanned by what they are, into one statement."""

from __future__ import annotations

import io
import pickle
import zipfile
from datetime import UTC, datetime

import pytest
from memcube.scanning.encodings import decoded
from memcube.scanning.files import HEAD_BYTES, SAMPLE_BYTES, scan_file
from memcube.scanning.scanner import LayerScanner, scan_cube
from memcube.scanning.versions import RULES_VERSION
from memcube_protocol import media_types
from memcube_protocol.activation import encode_tokens
from memcube_protocol.config import CubeConfig, Memory
from memcube_protocol.content import MemoryBlobs
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.records import Record
from memcube_protocol.shards import compress, cut
from memcube_signing.predicates import scan as scans
from support.kv import IDS, kv_file, kv_manifest

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
    return scan_cube(packed, LayerScanner(blobs), name="alice/notes", version="1", now=NOW)


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


BINARY = bytes(range(1, 256)) * 64
"""No text, though no byte of it is 0."""


def test_a_text_is_told_from_other_data():
    assert decoded("schön, 漢字".encode()) == "schön, 漢字"
    assert decoded("Straße über Öl".encode("latin-1")) is not None
    assert decoded("hidden".encode("utf-16")) == "hidden"
    assert decoded(BINARY) is None
    assert decoded(b"abc\x00") is None


def test_a_text_of_two_bytes_a_character_hides_nothing():
    found = scan("harmless", attachment=f"key {KEY}".encode("utf-16"))
    assert [finding.rule for finding in found.findings] == ["aws-access-key"]


def test_of_data_that_is_no_text_a_bounded_sample_is_read_and_the_statement_says_so():
    packed, blobs = cube("harmless", attachment=BINARY * 256)
    asked: list[int | None] = []

    class Watched:
        def read(self, digest, *, start=0, stop=None):
            if digest == packed.files[-1].digest:
                asked.append(stop)
            return blobs.read(digest, start=start, stop=stop)

    found = scan_cube(packed, LayerScanner(Watched()), name="alice/notes", version="1", now=NOW)
    assert max(stop or 1 << 40 for stop in asked) == SAMPLE_BYTES
    assert found.findings == ()
    records = packed.files[0].size
    assert found.coverage == scans.Coverage(
        2, 1, 0, records + len(BINARY) * 256, records + SAMPLE_BYTES
    )
    assert scans.read(found.to_statement()) == found


def test_a_key_in_the_metadata_of_an_image_is_found_and_noise_is_not():
    found = scan("harmless", attachment=BINARY * 2 + KEY.encode())
    assert found.findings == ()
    found = scan("harmless", attachment=BINARY[:255] + KEY.encode() + BINARY * 8)
    assert [(f.rule, f.place) for f in found.findings] == [("aws-access-key", "")]


def test_of_a_long_text_the_first_mebibyte_is_read_and_the_statement_says_so():
    found = scan("harmless", attachment=b"plain words\n" * 100_000)
    assert found.coverage is not None
    assert found.coverage.sampled_files == 1
    assert found.coverage.read_bytes <= HEAD_BYTES + 200


def test_a_cache_is_labelled_as_what_nobody_can_read():
    for text, rule, severity in (
        (None, "cache-without-source-text", "medium"),
        ("a text", "cache-not-recomputed", "info"),
    ):
        found = scan_of_cache(kv_manifest(text).to_bytes())
        assert [(f.rule, f.severity) for f in found.findings] == [(rule, severity)]
        assert found.coverage is not None
        assert found.coverage.unread_files == 2


def test_the_text_of_a_cache_is_scanned():
    found = scan_of_cache(kv_manifest(f"the key is {KEY}").to_bytes())
    assert {f.rule for f in found.findings} == {"cache-not-recomputed", "aws-access-key"}


def scan_of_cache(manifest: bytes):
    contents = [manifest, encode_tokens(IDS), kv_file()]
    kinds = [media_types.KV_MANIFEST, media_types.KV_TOKENS, media_types.KV]
    names = ["manifest.json", "tokens.u32", "kv.safetensors"]
    files = [
        CubeFile(f"activation/kv/{name}", kind, Digest.of(content), len(content), "kv")
        for name, kind, content in zip(names, kinds, contents, strict=True)
    ]
    memory = Memory(
        "kv",
        "activation",
        tuple(file.digest for file in files),
        shape={"layers": 2, "tokens": len(IDS)},
        compatibility=kv_manifest().key.to_json(),
    )
    config = CubeConfig("alice/notes", "1.0.0", NOW.replace(microsecond=0), memories=(memory,))
    packed = Cube.write(config, files)
    return scan_cube(
        packed, LayerScanner(MemoryBlobs(contents)), name="alice/notes", version="1", now=NOW
    )
