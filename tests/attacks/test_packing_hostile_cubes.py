"""Cubes that somebody else's registry hands out: evil paths, wrong kinds, bombs. Nothing is half-visible."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from conftest import Person
from memcube_protocol import canonical_json, media_types, oci
from memcube_protocol.config import CubeConfig, Memory
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    EXIT_INVALID,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_TRUST,
)
from support.machine import Machine
from support.repository import Repository

CARD = b"# Hello\n"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def place(ada: Person) -> Repository:
    return ada.repository()


@pytest.fixture
def reader(ada: Person, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home", ada.server.url, ada.token)


def offered(place: Repository, change: Change = lambda manifest: None, config: bytes = b"") -> str:
    """A cube pushed past our client, its manifest changed, unsigned; its reference."""
    card = CubeFile("README.md", media_types.CARD, place.add_blob(CARD), len(CARD))
    own = CubeConfig("a/b", "1.0.0", datetime(2026, 1, 1, tzinfo=UTC))
    cube = Cube.write(own, [card])
    manifest = json.loads(cube.manifest.raw)
    raw = config or own.write()
    manifest["config"] |= {"digest": str(place.add_blob(raw)), "size": len(raw)}
    change(manifest)
    reply = place.put_manifest("1.0.0", canonical_json.dump(manifest))
    assert reply.status == 201, reply
    return f"{place.name}:1.0.0"


def titled(path: str) -> Change:
    def change(manifest: dict[str, Any]) -> None:
        for key in (media_types.TITLE, media_types.FILEPATH):
            manifest["layers"][0]["annotations"][key] = path

    return change


def refused(reader: Machine, reference: str, code: int) -> str:
    told = reader.fails(code, "pull", reference, "--trust", "warn")
    assert reader.json("ls")["cubes"] == []
    target = reader.home / "out"
    reader.fails(code, "unpack", reference, target, "--trust", "warn")
    assert not target.exists()
    return told


def test_an_unsigned_cube_is_refused_unless_the_user_says_otherwise(
    place: Repository, reader: Machine
) -> None:
    reference = offered(place)
    reader.fails(EXIT_TRUST, "pull", reference)
    assert reader.json("ls")["cubes"] == []
    told = reader.ok("pull", reference, "--trust", "warn")
    assert "warning: " in told


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "/etc/cron.d/evil",
        "a/../../evil",
        ".",
        "con",
        "a\\b",
        "a:b",
        "\u202egpj.exe",
        "a ",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(
    place: Repository, reader: Machine, path: str
) -> None:
    refused(reader, offered(place, titled(path)), EXIT_INVALID)


def test_two_files_that_one_disk_confuses_are_refused(place: Repository, reader: Machine) -> None:
    def change(manifest: dict[str, Any]) -> None:
        twin = json.loads(json.dumps(manifest["layers"][0]))
        for key in (media_types.TITLE, media_types.FILEPATH):
            twin["annotations"][key] = "readme.MD"
        manifest["layers"].append(twin)

    refused(reader, offered(place, change), EXIT_INVALID)


def test_a_media_type_that_no_cube_may_hold_is_refused(place: Repository, reader: Machine) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["mediaType"] = "application/x-python-pickle"

    assert "pickle" in refused(reader, offered(place, change), EXIT_INVALID)


def test_an_image_of_another_kind_is_no_cube(place: Repository, reader: Machine) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["artifactType"] = "application/vnd.example.other"

    refused(reader, offered(place, change), EXIT_INVALID)


def test_an_index_is_no_cube(place: Repository, reader: Machine) -> None:
    index = oci.write_index([])
    assert place.put_manifest("1.0.0", index.raw, index.media_type).status == 201
    refused(reader, f"{place.name}:1.0.0", EXIT_INVALID)


@pytest.mark.parametrize(
    "config",
    [
        b"{}",
        b"[]",
        b'{"mipVersion":"1.0"} ',
        b'{"createdAt":"2026-01-01T00:00:00Z","mipVersion":"9.9","name":"a/b","version":"1.0.0"}',
        b"\xff",
        b"[" * 5000,
    ],
    ids=["empty", "list", "spaces", "version", "bytes", "deep"],
)
def test_a_hostile_config_is_refused(place: Repository, reader: Machine, config: bytes) -> None:
    refused(reader, offered(place, config=config), EXIT_INVALID)


def test_records_of_a_bomb_are_refused_at_the_mount(place: Repository, reader: Machine) -> None:
    pytest.importorskip("qdrant_edge")
    bomb = zstandard.ZstdCompressor(write_content_size=True).compress(b"x" * 2**26)
    details = {
        media_types.UNCOMPRESSED_DIGEST: str(Digest.of(b"")),
        media_types.UNCOMPRESSED_SIZE: "100",
        media_types.RECORD_COUNT: "1",
    }
    digest = place.add_blob(bomb)
    shard = CubeFile(
        "plaintext/a.jsonl.zst", media_types.RECORDS, digest, len(bomb), "plaintext", details
    )
    memory = Memory("plaintext", "plaintext", (digest,), records=1)
    config = CubeConfig("a/b", "1.0.0", datetime(2026, 1, 1, tzinfo=UTC), memories=(memory,))
    cube = Cube.write(config, [shard])
    place.add_blob(config.write())
    assert place.put_manifest("1.0.0", cube.manifest.raw).status == 201
    reference = f"{place.name}:1.0.0"
    told = reader.fails(EXIT_INVALID, "mount", reference, "--trust", "warn", "--ask", "x")
    assert "shard" in told
    assert not list((reader.home / "indexes").glob("sha256-*"))


@pytest.mark.parametrize(
    ("config", "tensors"),
    [
        (
            b'{"peft_type":"LORA","r":2,"lora_alpha":2,"target_modules":["q"]}',
            b"\x80\x04cos\nsystem\n",
        ),
        (b'{"peft_type":"LORA","r":2,"init_lora_weights":"loftq","target_modules":["q"]}', b""),
        (b'{"peft_type":"PROMPT_TUNING"}', b""),
        (b"[]", b""),
    ],
    ids=["a pickle", "one that rewrites the base", "no lora", "no config"],
)
def test_a_hostile_adapter_is_not_handed_to_other_programs(
    place: Repository, reader: Machine, config: bytes, tensors: bytes
) -> None:
    files = [
        CubeFile(f"parametric/a/{name}", kind, place.add_blob(content), len(content), "a")
        for name, kind, content in (
            ("adapter_config.json", media_types.LORA_CONFIG, config),
            ("adapter_model.safetensors", media_types.LORA, tensors or b"x"),
        )
    ]
    memory = Memory("a", "parametric", tuple(f.digest for f in files), compatibility={"rank": 2})
    own = CubeConfig("a/b", "1.0.0", datetime(2026, 1, 1, tzinfo=UTC), memories=(memory,))
    place.add_blob(own.write())
    assert place.put_manifest("1.0.0", Cube.write(own, files).manifest.raw).status == 201
    done = reader.run("path", f"{place.name}:1.0.0", "--memory", "a", "--trust", "warn")
    assert done.returncode == EXIT_INVALID, done
    assert not list((reader.home / "folders").rglob("adapter_*"))


def test_words_of_a_cube_cannot_steer_the_terminal(place: Repository, reader: Machine) -> None:
    """The config refuses such words; the annotations of a manifest are anybody's."""
    done = reader.run("inspect", offered(place, titled("a\x1b[2Jb")))
    assert done.returncode == EXIT_INVALID
    assert "\x1b" not in done.stdout + done.stderr


def test_what_is_absent_is_not_found(place: Repository, reader: Machine) -> None:
    assert reader.run("pull", f"{place.name}:9.9.9").returncode == EXIT_NOT_FOUND
    assert reader.run("ls").returncode == EXIT_OK
