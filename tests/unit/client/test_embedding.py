"""A cube folder is embedded, packed and mounted: its vectors travel along and are searched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from memcube.cli.run import run
from memcube.client import Client
from memcube.demo.corpus import handbook
from memcube.dumper import MemDumper
from memcube.settings import Settings
from memcube_protocol.errors import InvalidConfigError, InvalidError, RuleRefusedError

pytest.importorskip("qdrant_edge")
pytest.importorskip("scipy")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}


@pytest.fixture
def client(environ: dict[str, str]) -> Iterator[Client]:
    with Client(Settings.load(environ)) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dumper = MemDumper(tmp_path / "cube", name="alice/station", version="1.0.0")
    dumper.add_records(handbook())
    return dumper.folder


def test_a_folder_that_was_embedded_is_searched_by_words_and_meaning(
    client: Client, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["embed", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["embedder"] == "lsa"
    assert told["vectors"] == len(list(handbook()))
    assert Path(told["path"]) == folder / "plaintext" / "vectors" / "lsa.safetensors"
    client.pack(folder)
    with client.mount("alice/station") as memory:
        (step,) = memory.steps
        assert "the cube's own (lsa)" in step.why
        assert memory.search("clean the radar antenna")[0].record.id == "gauge/radar/clean"
    client.prune()
    indexes = client.context.settings.home / "indexes"
    assert len([one for one in indexes.iterdir() if one.is_dir()]) == 1  # the cube is still held


def test_records_that_lsa_can_tell_nothing_of_are_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    dumper = MemDumper(tmp_path / "cube", name="alice/tea", version="1.0.0")
    dumper.add_records(["black tea leaves", "green tea leaves"])
    with pytest.raises(InvalidError, match="none of the 2 texts"):
        dumper.add_vectors()
    assert not list(dumper.folder.rglob("*.safetensors"))


def test_a_folder_without_records_or_that_is_no_cube_is_not_embedded(tmp_path: Path) -> None:
    assert run(["embed", str(tmp_path)]) != 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidConfigError, match="no memory"):
        MemDumper(tmp_path / "cube", name="alice/empty").add_vectors()


def test_a_cube_that_must_stay_here_is_not_embedded_elsewhere(
    folder: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memcube.rules.owns", lambda context, verified: False)
    (folder / "memcube.toml").write_text(
        'name = "alice/station"\nversion = "1.0.0"\n[governance]\nprocessing = "local"\n'
    )
    elsewhere = environ | {"MEMCUBE_EMBEDDER": "https://models.example/v1#m"}
    with Client(Settings.load(elsewhere)) as client:
        client.pack(folder)
        with pytest.raises(RuleRefusedError, match=r"models\.example"):
            client.mount("alice/station")
