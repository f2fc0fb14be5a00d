"""Which builds a mount uses, and that builds stay in the store as long as their cube does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from memcube.building.finding import chosen_builds
from memcube.building.holding import held_builds, keep
from memcube.client import Client
from memcube.consuming.verifying import Verified
from memcube.dumper import MemDumper
from memcube.settings import Settings
from memcube_protocol import media_types
from memcube_protocol.build import Build, Made
from memcube_protocol.config import ACTIVATION, PARAMETRIC, PLAINTEXT, Memory
from memcube_protocol.cube import CubeFile
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.recipe import METHODS, Evaluation, Recipe, Training
from memcube_protocol.records import Record
from memcube_protocol.reference import Reference
from memcube_protocol.shards import compress, cut
from support.lora import config_bytes, lora_file

MINE, OTHER = BaseIdentity(b"m" * 32), BaseIdentity(b"o" * 32)
_TYPES = {
    PLAINTEXT: (media_types.RECORDS, "plaintext/a.jsonl.zst"),
    ACTIVATION: (media_types.KV, "activation/x/kv.safetensors"),
    PARAMETRIC: (media_types.LORA, "parametric/x/adapter_model.safetensors"),
}


@dataclass(frozen=True)
class Place:
    """A user's machine with a packed cube of records."""

    client: Client
    verified: Verified

    def add(
        self,
        kind: str,
        base: BaseIdentity = MINE,
        name: str = "",
        *,
        own: bool = True,
        judged: Evaluation | None = None,
    ) -> Build:
        """A build of the cube, of a few bytes."""
        store, memory_id = self.client.context.store, name or f"{kind}-build"
        media_type, path = _TYPES[kind]
        with store.session():
            digest, size = store.blobs.add(f"{memory_id} {base}".encode())
            fits: dict[str, Any] = {
                PLAINTEXT: {},
                ACTIVATION: {"baseIdentity": str(base)},
                PARAMETRIC: {"base": {"identity": str(base)}},
            }[kind]
            records = 1 if kind == PLAINTEXT else None
            memory = Memory(memory_id, kind, (digest,), records=records, compatibility=fits)
            file = CubeFile(path, media_type, digest, size, memory_id)
            cube = self.verified.cube
            method = next(name for name, ways in METHODS.items() if ways[1] == kind)
            recipe = Recipe(
                method=method,
                parent=cube.digest,
                source="plaintext",
                memory=memory_id,
                as_of=datetime(2026, 1, 1, tzinfo=UTC),
                training=Training() if method == "distil" else None,
            )
            build = Build.write(cube.manifest.descriptor(), memory, [file], Made(recipe, judged))
            keep(self.client.context, Reference("", "alice/notes"), build, is_own=own)
        return build

    def chosen(self, base: BaseIdentity | None = MINE) -> list[str]:
        """The ids of the builds that a mount would use."""
        asked = None if base is None else lambda: base
        found = chosen_builds(self.client.context, self.verified, asked)
        return [one.build.memory.id for one in found]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    dumper = MemDumper(tmp_path / "cube", name="alice/notes", version="1.0.0")
    dumper.add_records(["The ferry leaves at nine."])
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        client.pack(dumper.folder)
        yield Place(client, client.open("alice/notes"))


def test_of_builds_for_this_model_one_cache_goes_before_an_adapter(place: Place) -> None:
    place.add(PARAMETRIC)
    assert place.chosen() == ["parametric-build"]
    place.add(ACTIVATION)
    place.add(ACTIVATION, name="another")
    assert len(place.chosen()) == 1
    assert place.chosen() != ["parametric-build"]


def test_of_builds_of_one_kind_the_one_that_was_judged_best_is_used(place: Place) -> None:
    judged = {
        "poor": Evaluation(8, 1, 2, None, 0, (2.0, 2.0)),
        "best": Evaluation(16, 1, 15, None, 0, (2.0, 2.1)),
        "damaging": Evaluation(16, 1, 15, None, 0, (2.0, 3.9)),
        "impossible": Evaluation(8, 0, 1, None, 0, (0.0, 1.0)),
        "unjudged": None,
    }
    for name, found in judged.items():
        place.add(ACTIVATION, name=name, judged=found)
    assert place.chosen() == ["best"]


def test_builds_for_other_models_and_without_a_model_are_left(place: Place) -> None:
    place.add(ACTIVATION, OTHER)
    place.add(PARAMETRIC, OTHER, "adapter-of-another")
    assert place.chosen() == []
    assert place.chosen(OTHER) == ["activation-build"]
    assert place.chosen(None) == []


def test_records_out_of_a_memory_are_used_only_where_the_cube_has_none(place: Place) -> None:
    place.add(PLAINTEXT)
    assert place.chosen() == []


def test_records_asked_out_of_an_adapter_are_found_where_there_are_no_others(
    tmp_path: Path,
) -> None:
    pytest.importorskip("qdrant_edge")
    folder = tmp_path / "style"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(config_bytes())
    (folder / "adapter_model.safetensors").write_bytes(lora_file())
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        client.pack(folder, name="alice/style", version="1.0.0")
        cube, store = client.open("alice/style").cube, client.context.store
        (shard,) = map(compress, cut([Record(id="a", text="The ferry leaves at nine.")]))
        with store.session():
            digest, size = store.blobs.add(shard.content)
            path = f"plaintext/{shard.name}"
            file = CubeFile(path, media_types.RECORDS, digest, size, PLAINTEXT, shard.annotations)
            recipe = Recipe(
                method="ask",
                parent=cube.digest,
                source=cube.config.memories[0].id,
                memory=PLAINTEXT,
                as_of=datetime(2026, 1, 1, tzinfo=UTC),
            )
            memory = Memory(PLAINTEXT, PLAINTEXT, (digest,), records=1)
            build = Build.write(cube.manifest.descriptor(), memory, [file], Made(recipe))
            keep(client.context, Reference("", "alice/style"), build, is_own=True)
        with client.mount("alice/style") as memories:
            (hit,) = memories.search("When does the ferry leave?")
            assert hit.record.id == "a"
            assert "ferry" in memories.context("When does the ferry leave?")


def test_a_model_is_not_identified_where_nothing_was_built(place: Place) -> None:
    def fail() -> BaseIdentity:
        raise AssertionError("hashing a model takes seconds")

    assert chosen_builds(place.client.context, place.verified, fail) == ()


def test_a_build_that_nobody_signed_and_that_was_not_made_here_is_left(place: Place) -> None:
    place.add(ACTIVATION, own=False)
    assert place.chosen() == []
    place.add(ACTIVATION, name="own")
    assert place.chosen() == ["own"]


def test_builds_stay_as_long_as_their_cube_is_named_and_go_with_it(place: Place) -> None:
    build, store = place.add(ACTIVATION), place.client.context.store
    store.prune(young=timedelta(0))
    assert [one.build for one in held_builds(place.client.context, place.verified.cube.digest)] == [
        build
    ]
    place.client.forget("alice/notes")
    store.prune()
    assert store.builds(place.verified.cube.digest) == []
    assert not store.has(build.digest)
    assert not any(store.has(file.digest) for file in build.files)


def test_a_build_with_a_lost_layer_is_not_offered(place: Place) -> None:
    build = place.add(ACTIVATION)
    place.client.context.store.blobs.remove(build.files[0].digest)
    assert place.chosen() == []
