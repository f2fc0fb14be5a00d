"""Folders of verified cubes, and who changes them between the check and the use."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from memcube_protocol.errors import EXIT_OK, ConflictError
from support.machine import Machine
from support.story import Story

OMS = shutil.which("model_signing") or os.environ.get("MEMCUBE_TEST_MODEL_SIGNING")


def add(folder: Path) -> None:
    (folder / "evil.bin").write_bytes(b"unsigned")


def add_link(folder: Path) -> None:
    (folder / "evil.bin").symlink_to("/etc/hostname")


def change(folder: Path) -> None:
    path = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def replace_by_link(folder: Path) -> None:
    path = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    copy = folder.parent / "copy"
    shutil.copyfile(path, copy)
    path.unlink()
    path.symlink_to(copy)


def take_away(folder: Path) -> None:
    next(path for path in sorted(folder.rglob("*")) if path.is_file()).unlink()


CHANGES = [add, add_link, change, replace_by_link, take_away]
EACH = pytest.mark.parametrize("changed", CHANGES, ids=lambda one: one.__name__)


@pytest.fixture
def victim(story: Story) -> Machine:
    return Machine(story.folder / "victim", story.publisher.server.url, story.publisher.token)


@EACH
def test_a_folder_for_other_programs_is_written_anew_where_it_was_changed(
    story: Story, victim: Machine, changed: Callable[[Path], None]
) -> None:
    """`memcube path`: vLLM and others load whatever lies there."""
    words = ("path", f"{story.name}:1.0.0", "--memory", "plaintext")
    folder = Path(victim.ok(*words).strip())
    whole = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    changed(folder)
    assert Path(victim.ok(*words).strip()) == folder
    assert {path.name: path.read_bytes() for path in folder.rglob("*")} == whole
    assert not any(path.is_symlink() for path in folder.rglob("*"))


@pytest.mark.skipif(OMS is None, reason="model_signing is not installed (.ci/run installs it)")
@EACH
def test_the_model_signature_covers_the_whole_folder(
    story: Story, victim: Machine, tmp_path: Path, changed: Callable[[Path], None]
) -> None:
    """OpenSSF's program on what we unpacked: nothing may be there that nobody signed, nor a link."""
    out, proof = tmp_path / "out" / "cube", tmp_path / "proof"
    victim.ok("unpack", f"{story.name}:1.0.0", out)
    victim.ok("provenance", f"{story.name}:1.0.0", "--export", proof)

    def verify() -> int:
        command = [
            *(str(OMS), "verify", "key", str(out)),
            *("--signature", str(proof / "model-signature.1.sigstore.json")),
            *("--public_key", str(proof / "publisher.pem")),
        ]
        return subprocess.run(command, capture_output=True, check=False, timeout=100).returncode

    assert verify() == EXIT_OK
    changed(out)
    assert verify() != EXIT_OK


def test_a_link_in_the_place_of_the_folder_is_not_followed(
    story: Story, victim: Machine, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").symlink_to(elsewhere)
    with story.client() as client, pytest.raises(ConflictError, match="is not a folder"):
        client.unpack(f"{story.name}:1.0.0", tmp_path / "out")
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("hidden", [False, True], ids=["plainly", "with its old times"])
def test_bytes_that_change_in_the_store_after_the_check_are_not_used(
    story: Story, tmp_path: Path, hidden: bool
) -> None:
    """Between `pull` and its use somebody writes into the store, and sets the times back."""
    layer = story.pull("1.0.0").files[0]
    with story.client() as client:
        path = client.context.store.path(layer.digest)
        looks, honest = path.stat(), path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(bytes([honest[0] ^ 1]) + honest[1:])
        if hidden:
            os.utime(path, ns=(looks.st_atime_ns, looks.st_mtime_ns))
        assert not client.context.store.has(layer.digest, layer.size)
        client.unpack(f"{story.name}:1.0.0", tmp_path / "out")
        assert (tmp_path / "out" / layer.path).read_bytes() == honest
