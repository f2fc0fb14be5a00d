"""What `memcube scan` is asked to look at, and that it keeps nothing of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from memcube.cli.commands.scan import scan
from memcube.dumper import MemDumper
from memcube.publishing import vetting
from memcube_protocol.errors import EXIT_INTERRUPTED, NotFoundError
from support.machine import Machine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dumper = MemDumper(tmp_path / "cube", name="alice/backups", version="1.0.0")
    dumper.add_records(["The third copy lies in Tartu."])
    return dumper.folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home", "http://127.0.0.1:9")


def kept(machine: Machine) -> dict[Path, bytes]:
    """What lies in the user's home, without locks."""
    files = (one for one in machine.home.rglob("*") if one.is_file())
    return {one: one.read_bytes() for one in files if "lock" not in one.name}


def test_a_folder_whose_name_is_mistyped_is_asked_of_no_registry() -> None:
    with pytest.raises(NotFoundError, match="there is no folder 'my-cubbe' here") as refused:
        scan.main(["my-cubbe"], standalone_mode=False)
    assert "name a folder" in (refused.value.hint or "")


def test_of_a_folder_nothing_is_kept(machine: Machine, folder: Path) -> None:
    assert "secrets 0" in machine.ok("scan", folder)
    assert kept(machine) == {}
    assert machine.json("ls")["cubes"] == []


def test_of_a_folder_nothing_is_kept_when_ctrl_c_ends_the_scan(
    machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        assert any("blobs" in one.parts for one in kept(machine))
        raise KeyboardInterrupt

    monkeypatch.setattr(vetting, "scan_cube", interrupted)
    assert machine.run("scan", folder).returncode == EXIT_INTERRUPTED
    assert kept(machine) == {}


def test_a_folder_packed_before_is_scanned_under_the_digest_of_its_pack(
    machine: Machine, folder: Path
) -> None:
    packed = machine.json("pack", folder)["digest"]
    before = kept(machine)
    assert machine.ok("scan", folder, "--quiet").strip() == packed
    assert kept(machine) == before
