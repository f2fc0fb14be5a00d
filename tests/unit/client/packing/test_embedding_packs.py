"""Notes become a cube with vectors in one step, and no folder is written to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memcube.cli.run import run
from memcube.client import Client
from memcube.memories.plaintext.embedders import FunctionEmbedder
from memcube.settings import Settings
from memcube_protocol import media_types
from memcube_protocol.errors import (
    EXIT_RULE,
    EXIT_USAGE,
    InvalidConfigError,
    InvalidReferenceError,
    outcome_of,
)

pytest.importorskip("numpy")
pytest.importorskip("scipy")
WORDS = ("tape", "disk", "tea", "cup", "radar", "mast")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMCUBE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEMCUBE_KEYRING", "0")
    return tmp_path


@pytest.fixture
def notes(home: Path) -> Path:
    """Twelve notes in pairs of words, for LSA to learn from."""
    folder = home / "notes"
    folder.mkdir()
    for number in range(12):
        first = 2 * (number % 3)
        text = f"The {WORDS[first]} and the {WORDS[first + 1]} stand in room {number % 4}."
        (folder / f"n{number}.md").write_text(text)
    return folder


def vectors_of(client: Client, digest: str) -> list[str]:
    """Paths of the vectors in the pack of that digest."""
    (ref,) = [ref for ref in client.context.store.refs() if str(ref.digest) == digest]
    cube = client.open(ref.reference).cube
    assert [memory.id for memory in cube.config.memories] == ["plaintext"]
    return [file.path for file in cube.files if file.media_type == media_types.VECTORS]


def test_notes_are_named_packed_and_embedded_by_one_command(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("qdrant_edge")
    before = sorted(notes.rglob("*"))
    words = ["pack", str(notes), "alice/notes:1.2.0", "--embed", "lsa", "--json"]
    assert run(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reference"] == "alice/notes:1.2.0"
    assert "embedded 12 texts with lsa" in told["notes"]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"]
    assert sorted(notes.rglob("*")) == before
    with Client(Settings.load()) as client:
        assert vectors_of(client, told["digest"]) == ["plaintext/vectors/lsa.safetensors"]
        with client.mount("alice/notes") as memory:
            assert "the cube's own (lsa)" in memory.steps[0].why


def test_vectors_of_several_embedders_go_into_one_cube_but_none_twice(home: Path) -> None:
    folder = home / "cube"
    (folder / "plaintext").mkdir(parents=True)
    (folder / "memcube.toml").write_text('name = "alice/cube"\nversion = "1.0.0"\n')
    (folder / "plaintext/records.jsonl").write_text('{"id":"a","text":"tea"}\n')
    one, two = (
        FunctionEmbedder(lambda texts: [[1.0, len(text)] for text in texts], name=name)
        for name in ("one", "Two's Model")
    )
    with Client(Settings.load()) as client:
        packed = client.pack(folder, embedder=one)
        path = vectors_of(client, str(packed.cube.digest))[0]
        client.unpack("alice/cube", home / "again")
        assert (home / "again" / path).is_file()
        (home / "again/memcube.toml").write_text('name = "alice/again"\nversion = "1.0.0"\n')
        both = client.pack(home / "again", embedder=two)
        assert vectors_of(client, str(both.cube.digest)) == [
            "plaintext/vectors/one.safetensors",
            "plaintext/vectors/two-s-model.safetensors",
        ]
        with pytest.raises(InvalidConfigError, match="already"):
            client.pack(home / "again", embedder=one)


def test_texts_that_must_stay_here_are_not_sent_to_be_embedded(
    notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (notes / "memcube.toml").write_text(
        'name = "alice/notes"\nversion = "1.0.0"\n[governance]\nprocessing = "local"\n'
    )
    assert run(["pack", str(notes), "--embed", "https://models.example/v1#m"]) == EXIT_RULE
    assert "m at models.example" in capsys.readouterr().err
    with Client(Settings.load()) as client:
        assert not list(client.context.store.refs())


@pytest.mark.parametrize(
    "words",
    [
        ["alice/notes:1.0.0", "--version", "1.0.0"],
        ["alice/notes", "--name", "alice/other"],
        ["registry.example/alice/notes"],
    ],
)
def test_a_pack_has_one_name_and_no_host(
    notes: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run(["pack", str(notes), *words]) == EXIT_USAGE
    assert "error:" in capsys.readouterr().err
    assert (
        run(["pack", str(notes), "alice/notes:1"])
        == outcome_of(InvalidReferenceError("")).exit_code
    )
    assert "write alice/notes:1.0.0" in capsys.readouterr().err
