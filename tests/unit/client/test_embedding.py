"""A cube folder is embedded, packed and mounted: its vectors travel along and are searched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from memcube.cli.run import run
from memcube.client import Client
from memcube.demo.corpus import handbook
from memcube.dumper import MemDumper
from memcube.memories.plaintext import plugins as plaintext_plugins
from memcube.memories.plaintext.embedders import FunctionEmbedder
from memcube.settings import Settings
from memcube_protocol.errors import EXIT_RULE, InvalidConfigError, InvalidError, RuleRefusedError

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


class Far(FunctionEmbedder):
    """An embedder on another machine, which is never to be asked."""

    def __init__(self, *, name: str = "far", remote: bool = True) -> None:
        super().__init__(self.fail, name=name, remote=remote)
        self.asked: list[str] = []

    def fail(self, texts: Sequence[str]) -> None:
        self.asked += texts
        raise AssertionError("texts were sent")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder whose texts are to stay on this machine."""
    dumper = MemDumper(tmp_path / "local", name="alice/station", version="1.0.0")
    dumper.add_records(["Clean the radar antenna.", "The ferry leaves at nine."])
    with (dumper.folder / "memcube.toml").open("a") as draft:
        draft.write('[governance]\nprocessing = "local"\n')
    return dumper.folder


@pytest.mark.parametrize("owner", [True, False])
@pytest.mark.parametrize("said", ["setting", "address", "object", "plug-in"])
def test_a_cube_that_must_stay_here_is_not_embedded_elsewhere(
    local: Path,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    owner: bool,
) -> None:
    monkeypatch.setattr("memcube.rules.owns", lambda context, verified: owner)
    url, far = "https://models.example/v1#m", Far(name="localhost")
    named = {"address": url, "object": far, "plug-in": "acme:m"}.get(said)
    setting = {"MEMCUBE_EMBEDDER": url} if said == "setting" else {}
    monkeypatch.setattr(plaintext_plugins, "_contributed", lambda _: far)
    with Client(Settings.load(environ | setting)) as client:
        client.pack(local)
        with pytest.raises(RuleRefusedError, match="would leave this machine, to the embedder"):
            client.mount("alice/station", embedder=named)
        planned = client.plan("alice/station", embedder=named).choices
        assert all("processing = local" in choice.why for choice in planned)
        with client.mount("alice/station", embedder="lsa") as memory:
            assert memory.search("clean the radar antenna")
    assert far.asked == []


def test_an_embedder_of_this_machine_embeds_a_cube_that_must_stay_here(
    client: Client, local: Path
) -> None:
    client.pack(local)
    near = FunctionEmbedder(lambda texts: [[1.0, float(len(text))] for text in texts], name="near")
    with client.mount("alice/station", embedder=near) as memory:
        assert memory.search("clean the radar antenna")


def test_a_folder_that_must_stay_here_is_not_embedded_elsewhere(
    local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far = Far()
    with pytest.raises(RuleRefusedError, match="the embedder far"):
        MemDumper(local).add_vectors(far)
    assert run(["embed", str(local), "--with", "https://models.example/v1#m"]) == EXIT_RULE
    assert "m at models.example" in capsys.readouterr().err
    assert not list(local.rglob("*.safetensors"))
    assert far.asked == []
