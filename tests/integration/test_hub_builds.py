"""Builds on the Hub: attached to their cube in its repository, found for a model, and judged as anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memcube.building.planning import Order, Wanted
from memcube.memories.model_identity import live_identity
from support.hub import HubServer
from support.hub_machine import machine_of, tolerant, write_notes
from support.machine import Machine
from support.models import model_of, tokenizer_of

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = tolerant
NOTES = "hf://Org/Notes"


def test_a_build_is_attached_to_its_cube_and_found_by_who_has_the_model(
    hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
) -> None:
    hub_publisher.ok("push", write_notes(tmp_path / "notes", "1.0.0"), NOTES, "--public")
    released = hub.state.of("model", "Org/Notes").head.files
    model, tokenizer = model_of(), tokenizer_of()
    wanted = Wanted(kind="activation", render="plain", threads=1)
    with hub_publisher.client() as client:
        how = {"model": model, "tokenizer": tokenizer, "order": Order(accept=True, ask=0)}
        built = client.build(NOTES, wanted, **how).build
    (pushed,) = hub_publisher.json("push", NOTES, "--builds")["builds"]
    assert pushed["digest"] == str(built.digest)
    made = hub.state.of("model", "Org/Notes")
    assert {one.title for one in made.commits.values()} >= {"Attach a build", "Attach a statement"}
    added = set(made.head.files) - set(released)
    assert added
    assert all(path.startswith(".memcube/blobs/") for path in added)

    (listed,) = hub_reader.json("builds", NOTES)["builds"]
    assert listed["digest"] == str(built.digest)
    assert "kv.safetensors" not in json.dumps(hub_reader.json("pull", NOTES))
    with hub_reader.client() as client:
        client.pull(NOTES, filters=[f"model={live_identity(model)}"])
        with client.mount(NOTES, model=model, tokenizer=tokenizer) as memory:
            steps = {step.memory: str(step.step) for step in memory.steps}
    assert steps[built.memory.id] == "mounted"


def test_the_same_build_again_makes_no_commit(
    hub: HubServer, hub_publisher: Machine, tmp_path: Path
) -> None:
    hub_publisher.ok("push", write_notes(tmp_path / "notes", "1.0.0"), NOTES, "--public")
    wanted = Wanted(kind="activation", render="plain", threads=1)
    with hub_publisher.client() as client:
        how = {"model": model_of(), "tokenizer": tokenizer_of()}
        client.build(NOTES, wanted, **how, order=Order(accept=True, ask=0))
    first = hub_publisher.json("push", NOTES, "--builds")
    commits = dict(hub.state.of("model", "Org/Notes").commits)
    assert (
        hub_publisher.json("push", NOTES, "--builds")["builds"][0]["digest"]
        == (first["builds"][0]["digest"])
    )
    assert hub.state.of("model", "Org/Notes").commits == commits


def test_a_build_by_a_stranger_counts_for_nobody(
    hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
) -> None:
    hub_publisher.ok("push", write_notes(tmp_path / "notes", "1.0.0"), NOTES, "--public")
    token = hub.state.token("mallory", organisations=("Org",))
    stranger = machine_of(hub, tmp_path / "stranger", token)
    wanted = Wanted(kind="activation", render="plain", threads=1)
    with stranger.client() as client:
        how = {"model": model_of(), "tokenizer": tokenizer_of()}
        client.build(NOTES, wanted, **how, order=Order(accept=True, ask=0))
    assert "did not release" in stranger.run("push", NOTES, "--builds").stderr
    assert hub_reader.json("builds", NOTES)["builds"] == []
