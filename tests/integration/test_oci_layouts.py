"""Cubes in folders (`oci:FOLDER`): written and read by us, by skopeo and by oras."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import fresh
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    EXIT_CONFLICT,
    EXIT_INVALID,
    EXIT_NOT_FOUND,
    EXIT_TRUST,
)
from support.machine import Machine
from support.published import Published
from support.quirky import QuirkyRegistry, quirky
from support.servers import clean_environment, run

needs_oras = pytest.mark.skipif(not shutil.which("oras"), reason="oras is not installed")
needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")


@pytest.fixture
def foreign() -> Iterator[QuirkyRegistry]:
    with quirky() as registry:
        yield registry


@pytest.fixture
def cube(foreign: QuirkyRegistry, tmp_path: Path) -> Published:
    machine = Machine(tmp_path / "publisher", foreign.url)
    return Published(machine, "alice/notes", tmp_path / "cube")


@pytest.fixture
def far_away(reference_registry: str, tmp_path: Path) -> Machine:
    """Somebody at another registry, who never reaches the first one."""
    return Machine(tmp_path / "far", reference_registry)


def peer(*words: str) -> Any:
    """Output of skopeo or oras."""
    done = run(words, env=clean_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def blobs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "blobs" / "sha256").iterdir()}


def test_a_cube_crosses_a_gap_without_network(cube: Published, tmp_path: Path) -> None:
    pushed = Digest.parse(cube.push()["digest"])
    build, attested = cube.attach_build()
    folder = tmp_path / "stick"
    saved = cube.machine.json("cp", f"{cube.name}:1.0.0", f"oci:{folder}")
    assert saved["reference"] == f"oci:{folder}:1.0.0"
    again = cube.machine.json("cp", f"{cube.name}:1.0.0", f"oci:{folder}")
    assert (again["changed"], again["sentBytes"]) == (False, 0)
    for digest, content in blobs(folder).items():
        assert Digest.of(content).hex == digest
    with quirky() as other:
        reader = Machine(tmp_path / "reader", other.url)
        loaded = reader.json("cp", f"oci:{folder}", "bob/notes")
        assert loaded["digest"] == str(pushed)
        assert loaded["attached"] == saved["attached"]
        held = other.repository("bob/notes").manifests
        assert {str(pushed), str(build.digest), str(attested.digest)} <= set(held)
        assert not reader.json("cp", f"oci:{folder}:1.0.0", "bob/notes")["changed"]
        origin = cube.machine.url.removeprefix("http://") + "/alice/notes"
        reader.fails(EXIT_TRUST, "pull", "bob/notes:1.0.0")
        pulled = reader.json("pull", "bob/notes:1.0.0", "--accept-origin", origin)
        assert pulled["verdict"]["origin"] == origin
        reader.ok("cp", f"oci:{folder}", "carol/notes")
        reader.ok("pull", "carol/notes:1.0.0")  # of a cube that it knows now, it knows its copies


@needs_skopeo
def test_skopeo_reads_what_we_write(
    cube: Published, reference_registry: str, tmp_path: Path
) -> None:
    pushed = cube.push()["digest"]
    folder = tmp_path / "layout"
    cube.machine.ok("cp", f"{cube.name}:1.0.0", f"oci:{folder}:stable")
    for tag in ("1.0.0", "stable"):
        raw = peer("skopeo", "inspect", "--raw", f"oci:{folder}:{tag}")
        assert str(Digest.of(raw.encode())) == pushed
    there = f"docker://{reference_registry.removeprefix('http://')}/peers/{fresh('cube')}:1.0.0"
    peer("skopeo", "copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{folder}:stable", there)  # fmt: skip
    raw = peer("skopeo", "inspect", "--raw", "--tls-verify=false", there)
    assert str(Digest.of(raw.encode())) == pushed


@needs_oras
def test_oras_reads_what_we_write_and_finds_what_refers_to_it(
    cube: Published, tmp_path: Path
) -> None:
    pushed = cube.push()["digest"]
    build, attested = cube.attach_build()
    folder = tmp_path / "layout"
    cube.machine.ok("cp", f"{cube.name}:1.0.0", f"oci:{folder}")
    fetched = peer("oras", "manifest", "fetch", "--oci-layout", "--descriptor", f"{folder}:1.0.0")
    assert json.loads(fetched)["digest"] == pushed
    found = peer("oras", "discover", "--oci-layout", "--format", "json", f"{folder}:1.0.0")
    assert str(build.digest) in found
    deeper = peer(
        "oras", "discover", "--oci-layout", "--format", "json", f"{folder}@{build.digest}"
    )
    assert str(attested.digest) in deeper


@needs_oras
def test_we_read_what_oras_writes(
    cube: Published, foreign: QuirkyRegistry, far_away: Machine, tmp_path: Path
) -> None:
    pushed = cube.push()["digest"]
    build, _ = cube.attach_build()
    folder = tmp_path / "layout"
    source = f"{foreign.host}/{cube.name}:1.0.0"
    peer("oras", "cp", "-r", "--from-plain-http", "--to-oci-layout", source, f"{folder}:1.0.0")
    name = f"peers/{fresh('cube')}"
    loaded = far_away.json("cp", f"oci:{folder}", name)
    assert loaded["digest"] == pushed
    with far_away.client() as client:
        listed = client.context.registry("").referrers(name, Digest.parse(pushed))
    assert build.digest in {one.digest for one in listed}


@needs_skopeo
def test_a_layout_without_signatures_is_refused(
    cube: Published, foreign: QuirkyRegistry, far_away: Machine, tmp_path: Path
) -> None:
    """skopeo takes no referrers along."""
    cube.push()
    folder = tmp_path / "layout"
    source = f"docker://{foreign.host}/{cube.name}:1.0.0"
    peer("skopeo", "copy", "--src-tls-verify=false", source, f"oci:{folder}:1.0.0")
    name = f"peers/{fresh('cube')}"
    far_away.fails(EXIT_TRUST, "cp", f"oci:{folder}", name)
    assert far_away.json("cp", f"oci:{folder}", name, "--trust", "warn")["attached"] == 0


def test_a_layout_with_several_cubes_is_asked_for_one(
    cube: Published, far_away: Machine, tmp_path: Path
) -> None:
    folder = tmp_path / "layout"
    for version in ("1.0.0", "1.1.0"):
        cube.push(version)
        cube.machine.ok("cp", f"{cube.name}:{version}", f"oci:{folder}")
    name = f"peers/{fresh('cube')}"
    assert "1.0.0, 1.1.0" in far_away.fails(EXIT_INVALID, "cp", f"oci:{folder}", name)
    assert far_away.json("cp", f"oci:{folder}:1.1.0", name)["reference"].endswith(":1.1.0")


def test_a_version_in_a_layout_is_not_overwritten(cube: Published, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    cube.push()
    cube.machine.ok("cp", f"{cube.name}:1.0.0", f"oci:{layout}")
    other = Published(cube.machine, "alice/other", tmp_path / "other")
    other.push()
    before = (layout / "index.json").read_bytes()
    cube.machine.fails(EXIT_CONFLICT, "cp", "alice/other:1.0.0", f"oci:{layout}")
    assert (layout / "index.json").read_bytes() == before


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("oci:", EXIT_INVALID),
        ("oci::1.0.0", EXIT_INVALID),
        ("oci:/nowhere", EXIT_NOT_FOUND),
        ("oci:/nowhere:1.0.0", EXIT_NOT_FOUND),
    ],
)
def test_a_folder_that_is_none_is_refused(source: str, code: int, far_away: Machine) -> None:
    far_away.fails(code, "cp", source, "peers/none")


def test_from_folder_to_folder_is_left_to_the_system(far_away: Machine) -> None:
    told = far_away.fails(EXIT_INVALID, "cp", "oci:here", "oci:there")
    assert "cp -r" in told


def test_all_tags_are_not_copied_into_a_folder(far_away: Machine) -> None:
    told = far_away.fails(EXIT_INVALID, "cp", "--all-tags", "alice/notes", "oci:there")
    assert "between registries" in told
