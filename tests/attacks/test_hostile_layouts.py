"""Folders (`oci:FOLDER`) that somebody hands over: what they hold is not believed, and teaches nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.copying.oci_layout import OciLayout
from memcube.http import HttpClient
from memcube.settings import Endpoint, Settings
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    EXIT_INTEGRITY,
    EXIT_INVALID,
    EXIT_LIMIT,
    EXIT_STORAGE,
    EXIT_TRUST,
    StorageError,
)
from memcube_protocol.oci import Descriptor
from support.machine import Machine
from support.published import Published
from support.quirky import QuirkyRegistry, quirky


@pytest.fixture
def foreign() -> Iterator[QuirkyRegistry]:
    with quirky() as registry:
        yield registry


@pytest.fixture
def victim(foreign: QuirkyRegistry, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "victim", foreign.url)


def saved(machine: Machine, name: str, folder: Path, version: str = "1.0.0") -> Path:
    """A folder with a cube that `machine` publishes as `name`."""
    Published(machine, name, folder / "source").push(version)
    machine.ok("cp", f"{name}:{version}", f"oci:{folder / 'layout'}")
    return folder / "layout"


@pytest.fixture
def layout(foreign: QuirkyRegistry, tmp_path: Path) -> Path:
    return saved(Machine(tmp_path / "publisher", foreign.url), "alice/notes", tmp_path)


def largest_blob(layout: Path) -> Path:
    return max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)


def nothing_at(foreign: QuirkyRegistry, name: str) -> bool:
    return name not in foreign.repositories or not foreign.repository(name).tags


def test_changed_bytes_complete_nothing(
    layout: Path, victim: Machine, foreign: QuirkyRegistry
) -> None:
    largest = largest_blob(layout)
    largest.write_bytes(os.urandom(largest.stat().st_size))
    victim.fails(EXIT_INTEGRITY, "cp", f"oci:{layout}", "bob/notes")
    assert nothing_at(foreign, "bob/notes")


def test_another_manifest_under_the_digest_of_the_cube_is_refused(
    layout: Path, victim: Machine, foreign: QuirkyRegistry
) -> None:
    tagged = next(
        one
        for one in json.loads((layout / "index.json").read_text())["manifests"]
        if "annotations" in one
    )
    path = layout / "blobs" / "sha256" / Digest.parse(tagged["digest"]).hex
    path.write_bytes(path.read_bytes() + b" ")
    victim.fails(EXIT_INTEGRITY, "cp", f"oci:{layout}:1.0.0", "bob/notes")
    assert nothing_at(foreign, "bob/notes")


@pytest.mark.parametrize("what", ["blob", "index"])
def test_a_link_is_not_followed(what: str, layout: Path, victim: Machine, tmp_path: Path) -> None:
    path = largest_blob(layout) if what == "blob" else layout / "index.json"
    secret = tmp_path / "secret"
    path.rename(secret)
    path.symlink_to(secret)
    victim.fails(EXIT_STORAGE, "cp", f"oci:{layout}", "bob/notes")


@pytest.mark.parametrize("name", ["oci-layout", "blobs", "blobs/sha256"])
def test_a_copy_into_a_folder_with_links_writes_nothing_outside_of_it(
    name: str, tmp_path: Path
) -> None:
    http = HttpClient(Settings(tmp_path / "home", Endpoint("https", "registry.example")))
    layout, outside = OciLayout(tmp_path / "layout", http), tmp_path / "outside"
    outside.mkdir()
    link = layout.folder / name
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "made" if name == "oci-layout" else outside)
    with pytest.raises(StorageError, match="link"):
        layout.receive(Descriptor.of("text/plain", b"words"), [b"words"])
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ({"schemaVersion": 2, "manifests": [{}]}, EXIT_INVALID),
        ({"schemaVersion": 2, "manifests": "all"}, EXIT_INVALID),
        ([], EXIT_INVALID),
        ({"config": {}, "layers": []}, EXIT_INVALID),
    ],
)
def test_a_senseless_index_is_an_error(
    index: object, code: int, layout: Path, victim: Machine
) -> None:
    (layout / "index.json").write_text(json.dumps(index))
    victim.fails(code, "cp", f"oci:{layout}", "bob/notes")


def test_an_index_of_many_manifests_is_not_read_through(layout: Path, victim: Machine) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] *= 10_001 // len(index["manifests"]) + 1
    (layout / "index.json").write_text(json.dumps(index))
    victim.fails(EXIT_LIMIT, "cp", f"oci:{layout}", "bob/notes")


def test_another_publisher_is_refused_by_who_knows_the_cube(
    foreign: QuirkyRegistry, victim: Machine, tmp_path: Path
) -> None:
    Published(Machine(tmp_path / "alice", foreign.url), "alice/notes", tmp_path / "true").push()
    victim.ok("pull", "alice/notes:1.0.0")
    foreign.repositories.clear()
    forged = saved(Machine(tmp_path / "thief", foreign.url), "alice/notes", tmp_path, "1.1.0")
    victim.fails(EXIT_TRUST, "cp", f"oci:{forged}", "bob/notes")
    assert nothing_at(foreign, "bob/notes")


def test_a_folder_teaches_nothing_about_a_name_that_one_does_not_know(
    foreign: QuirkyRegistry, victim: Machine, tmp_path: Path
) -> None:
    """A forged cube with forged key documents comes first; the true publisher is believed afterwards."""
    thief = Machine(tmp_path / "thief", foreign.url)
    Published(thief, "alice/notes", tmp_path / "forged").push()
    thief.ok("keys", "announce", "alice")
    thief.ok("cp", "alice/notes:1.0.0", f"oci:{tmp_path / 'layout'}")
    foreign.repositories.clear()
    victim.ok("cp", f"oci:{tmp_path / 'layout'}", "bob/notes")
    with victim.client() as client:
        origin = f"{foreign.host}/alice/notes"
        assert client.context.pins.load().of(origin) is None
        assert client.context.authorities.load(f"{foreign.host}/alice") is None
    victim.fails(EXIT_TRUST, "pull", "bob/notes:1.0.0")
    alice = Published(Machine(tmp_path / "alice", foreign.url), "alice/notes", tmp_path / "true")
    alice.push("1.1.0")
    assert victim.json("pull", "alice/notes:1.1.0")["verdict"]["standing"] == "first-use"
