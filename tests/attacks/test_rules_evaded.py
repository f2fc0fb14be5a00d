"""Ways around the rules of a cube that somebody pulled: each ends where the rule is asked again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import fresh
from memcube import rules
from memcube.context import Context
from memcube_protocol import canonical_json
from memcube_protocol.digest import Digest
from memcube_protocol.errors import EXIT_RULE, EXIT_TRUST, RuleRefusedError
from support.machine import Machine
from support.quirky import QuirkyRegistry, quirky

FORBIDDEN = 'redistribution = "forbidden"'


@pytest.fixture(scope="module")
def registry() -> Iterator[QuirkyRegistry]:
    with quirky() as running:
        yield running


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[QuirkyRegistry]:
    with quirky() as running:
        yield running


@pytest.fixture(scope="module")
def publisher(registry: QuirkyRegistry, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("publisher"), registry.url)


@dataclass(frozen=True)
class Cube:
    """A cube `name` of the publisher, and the folder that it was packed from."""

    name: str
    folder: Path


@pytest.fixture(scope="module")
def publish(publisher: Machine, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cube]:
    """Publishes a cube of the publisher's with such governance."""

    def published(governance: str) -> Cube:
        name, folder = f"acme/{fresh('cube')}", tmp_path_factory.mktemp("source")
        write_folder(folder, name, f"what only {name} says", governance)
        publisher.ok("push", folder)
        return Cube(name, folder)

    return published


@pytest.fixture(scope="module")
def atlas(publish: Callable[..., Cube]) -> Cube:
    """A cube that nobody may pass on."""
    return publish(FORBIDDEN)


@pytest.fixture
def holder(registry: QuirkyRegistry, atlas: Cube, tmp_path: Path) -> Machine:
    """The machine of somebody who pulled it, and may use it."""
    machine = Machine(tmp_path / "holder", registry.url)
    machine.ok("pull", atlas.name)
    return machine


def write_folder(folder: Path, name: str, text: str, governance: str = "", more: str = "") -> Path:
    (folder / "plaintext").mkdir(parents=True, exist_ok=True)
    (folder / "plaintext" / "notes.jsonl").write_text(json.dumps({"id": "r1", "text": text}) + "\n")
    toml = f'name = "{name}"\nversion = "1.0.0"\n{more}\n[governance]\n{governance}\n'
    (folder / "memcube.toml").write_text(toml)
    return folder


def nothing_at(registry: QuirkyRegistry, name: str) -> bool:
    return name not in registry.repositories or not registry.repository(name).tags


def test_a_copy_under_another_name_is_refused_and_leaves_nothing(
    holder: Machine, atlas: Cube, registry: QuirkyRegistry
) -> None:
    told = holder.fails(EXIT_RULE, "cp", f"{atlas.name}:1.0.0", "bob/atlas")
    assert f"{registry.host}/{atlas.name} says redistribution = forbidden" in told
    assert "hint: let the others pull it from its publisher" in told
    assert "bob/atlas" not in registry.repositories


@pytest.mark.parametrize("all_tags", [(), ("--all-tags",)], ids=["one", "all"])
def test_a_copy_to_another_registry_is_refused(
    holder: Machine, atlas: Cube, elsewhere: QuirkyRegistry, all_tags: tuple[str, ...]
) -> None:
    source = atlas.name if all_tags else f"{atlas.name}:1.0.0"
    holder.fails(EXIT_RULE, "cp", *all_tags, source, f"{elsewhere.host}/bob/atlas")
    assert "bob/atlas" not in elsewhere.repositories


def test_a_mirror_copies_what_may_be_copied_and_shows_what_may_not(
    holder: Machine, atlas: Cube, publish: Callable[..., Cube], elsewhere: QuirkyRegistry
) -> None:
    free = publish('licence = "CC0-1.0"')
    done = holder.run("mirror", "acme", f"{elsewhere.host}/mirrored", "--json")
    rows = {
        row["name"]: row for row in json.loads(done.stdout)["versions"] if row["tag"] == "1.0.0"
    }
    assert done.returncode == EXIT_RULE
    assert rows[atlas.name]["fate"] == "refused"
    assert "redistribution = forbidden" in rows[atlas.name]["detail"]
    assert rows[free.name]["fate"] == "copied"
    assert nothing_at(elsewhere, f"mirrored/{atlas.name.partition('/')[2]}")


def test_the_hub_is_another_place_too(holder: Machine, atlas: Cube) -> None:
    told = holder.fails(EXIT_RULE, "cp", f"{atlas.name}:1.0.0", "hf://bob/atlas")
    assert "redistribution = forbidden" in told


def test_a_folder_in_between_changes_nothing(
    holder: Machine, atlas: Cube, registry: QuirkyRegistry, tmp_path: Path
) -> None:
    """An OCI layout of one's own is allowed: a way to a machine without a network, not to others."""
    layout = f"oci:{tmp_path / 'layout'}"
    holder.ok("cp", f"{atlas.name}:1.0.0", layout)
    holder.fails(EXIT_RULE, "cp", layout, "bob/layout")
    assert nothing_at(registry, "bob/layout")
    holder.ok("cp", layout, atlas.name)  # back to where it was released


def test_a_folder_without_the_signatures_keeps_the_rules(
    holder: Machine, atlas: Cube, registry: QuirkyRegistry, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    holder.ok("cp", f"{atlas.name}:1.0.0", f"oci:{layout}")
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = [one for one in index["manifests"] if "annotations" in one][:1]
    (layout / "index.json").write_text(json.dumps(index))
    stranger = Machine(tmp_path / "stranger", registry.url)
    stranger.fails(EXIT_TRUST, "cp", f"oci:{layout}", "bob/unsigned")
    stranger.fails(EXIT_RULE, "cp", f"oci:{layout}", "bob/unsigned", "--trust", "warn")
    assert nothing_at(registry, "bob/unsigned")


def test_rules_rewritten_in_a_folder_make_another_cube_that_nobody_signed(
    holder: Machine, atlas: Cube, registry: QuirkyRegistry, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    holder.ok("cp", f"{atlas.name}:1.0.0", f"oci:{layout}")
    blobs, index = layout / "blobs" / "sha256", json.loads((layout / "index.json").read_text())

    def add(value: dict[str, Any]) -> dict[str, Any]:
        raw = canonical_json.dump(value)
        (blobs / Digest.of(raw).hex).write_bytes(raw)
        return {"digest": str(Digest.of(raw)), "size": len(raw)}

    def read(descriptor: dict[str, Any]) -> dict[str, Any]:
        return json.loads((blobs / Digest.parse(descriptor["digest"]).hex).read_bytes())

    for tagged in (one for one in index["manifests"] if "annotations" in one):
        manifest = read(tagged)
        config = {**read(manifest["config"]), "governance": {}}
        tagged |= add({**manifest, "config": manifest["config"] | add(config)})
    (layout / "index.json").write_text(json.dumps(index))
    told = holder.fails(EXIT_TRUST, "cp", f"oci:{layout}:1.0.0", "bob/rewritten")
    assert "release statement" in told
    assert nothing_at(registry, "bob/rewritten")


def test_an_unpacked_folder_is_not_pushed_under_another_name(
    holder: Machine, atlas: Cube, registry: QuirkyRegistry, tmp_path: Path
) -> None:
    folder = tmp_path / "unpacked"
    holder.ok("unpack", atlas.name, folder)
    (folder / "memcube.toml").write_text('name = "bob/mine"\nversion = "7.0.0"\n')
    told = holder.fails(EXIT_RULE, "push", folder)
    assert f"{registry.host}/{atlas.name} says redistribution = forbidden" in told
    assert "bob/mine" not in registry.repositories
    assert "bob/mine" not in holder.ok("ls")


def test_one_record_added_to_the_others_does_not_help(
    holder: Machine, atlas: Cube, tmp_path: Path
) -> None:
    """A second file of records makes another shard; attachments and tensors stay what they are."""
    write_folder(tmp_path / "fork", "bob/more", f"what only {atlas.name} says", "")
    (tmp_path / "fork" / "attachments").mkdir()
    (tmp_path / "fork" / "attachments" / "a.txt").write_text("mine")
    holder.fails(EXIT_RULE, "push", tmp_path / "fork")


def test_a_cube_packed_again_to_the_same_digest_does_not_become_ones_own(
    holder: Machine, publisher: Machine, atlas: Cube, registry: QuirkyRegistry
) -> None:
    created = publisher.json("inspect", atlas.name)["config"]["createdAt"]
    toml = atlas.folder / "memcube.toml"
    before = toml.read_text()
    toml.write_text(before.replace("\n[governance]", f"created_at = {created}\n[governance]", 1))
    try:
        packed = holder.json("pack", atlas.folder)
    finally:
        toml.write_text(before)
    assert packed["digest"] == publisher.json("inspect", atlas.name)["digest"]
    holder.fails(EXIT_RULE, "cp", f"{atlas.name}:1.0.0", "bob/again")
    holder.fails(EXIT_RULE, "push", f"{atlas.name}:1.0.0", "bob/again")
    assert nothing_at(registry, "bob/again")


def test_a_fork_that_names_its_parent_is_held_to_the_parents_rules(
    holder: Machine, atlas: Cube, registry: QuirkyRegistry, tmp_path: Path
) -> None:
    parent = holder.json("inspect", atlas.name)["digest"]
    lineage = (
        f'[[lineage.parents]]\norigin = "{registry.host}/{atlas.name}"\n'
        f'digest = "{parent}"\nrelation = "forked-from"\n'
    )
    fork = write_folder(tmp_path / "fork", "bob/fork", "all in other words", "", lineage)
    holder.fails(EXIT_RULE, "push", fork)
    assert "bob/fork" not in registry.repositories


@pytest.mark.parametrize(
    ("rule", "free", "kept"),
    [
        (
            'licence = "MIT"\nredistribution = "same-licence"',
            'licence = "CC0-1.0"',
            'licence = "MIT"',
        ),
        (
            'allowed_uses = ["research"]',
            'allowed_uses = ["research", "commercial"]',
            'allowed_uses = ["research"]',
        ),
        (
            'sensitivity = "confidential"\npersonal_data = "personal"',
            'sensitivity = "confidential"',
            'sensitivity = "confidential"\npersonal_data = "personal"',
        ),
    ],
    ids=["licence", "uses", "personal"],
)
def test_a_fork_passes_only_with_the_terms_of_its_parent(
    registry: QuirkyRegistry,
    publish: Callable[..., Cube],
    tmp_path: Path,
    rule: str,
    free: str,
    kept: str,
) -> None:
    cube, name = publish(rule), f"bob/{fresh('fork')}"
    holder = Machine(tmp_path / "holder", registry.url, more={"MEMCUBE_USE": "research"})
    holder.ok("pull", cube.name)
    text = f"what only {cube.name} says"
    holder.fails(EXIT_RULE, "push", write_folder(tmp_path / "fork", name, text, free))
    assert name not in registry.repositories
    holder.ok("push", write_folder(tmp_path / "fork", name, text, kept))


def test_who_released_it_copies_and_forks_it_as_they_like(
    publisher: Machine, atlas: Cube, elsewhere: QuirkyRegistry, tmp_path: Path
) -> None:
    publisher.ok("cp", f"{atlas.name}:1.0.0", f"{elsewhere.host}/acme/{fresh('atlas')}")
    text = f"what only {atlas.name} says"
    publisher.ok("push", write_folder(tmp_path / "fork", f"acme/{fresh('fork')}", text))


def test_a_holder_pushes_what_is_their_own(holder: Machine, tmp_path: Path) -> None:
    own = write_folder(tmp_path / "own", f"bob/{fresh('own')}", "what bob wrote", FORBIDDEN)
    holder.ok("push", own)
    (own / "memcube.toml").write_text((own / "memcube.toml").read_text().replace("1.0.0", "1.1.0"))
    holder.ok("push", own)


def test_content_of_a_local_cube_does_not_leave_the_machine(
    registry: QuirkyRegistry, publish: Callable[..., Cube], tmp_path: Path
) -> None:
    cube = publish('processing = "local"')
    holder = Machine(tmp_path / "holder", registry.url)
    holder.ok("cp", f"{cube.name}:1.0.0", f"bob/{fresh('near')}")
    told = holder.fails(EXIT_RULE, "cp", f"{cube.name}:1.0.0", "registry.example/bob/far")
    assert "would leave this machine, to registry.example" in told
    folder = tmp_path / "unpacked"
    holder.ok("unpack", cube.name, folder)
    (folder / "memcube.toml").write_text('name = "bob/far"\nversion = "1.0.0"\n')
    holder.fails(EXIT_RULE, "push", folder, "registry.example/bob/far")
    with holder.client() as client:
        opened = client.open(cube.name)
        rules.require_mount(client.context, opened, leaves_to=("127.0.0.1:11434", "localhost"))
        with pytest.raises(RuleRefusedError, match=r"api\.example"):
            rules.require_mount(client.context, opened, leaves_to=("api.example",))


@pytest.mark.parametrize("act", ["unpack", "path", "folder", "mount"])
def test_neither_mount_nor_export_goes_around_the_uses_that_a_cube_allows(
    registry: QuirkyRegistry, publish: Callable[..., Cube], tmp_path: Path, act: str
) -> None:
    cube = publish('allowed_uses = ["research", "education"]')
    target = tmp_path / "out"
    arguments = {
        "unpack": ("unpack", cube.name, target),
        "path": ("path", cube.name, "--memory", "plaintext"),
        "mount": ("mount", cube.name),
        "folder": ("cp", f"{cube.name}:1.0.0", f"oci:{target}"),
    }[act]
    for use, said in (("", "nobody said"), ("commercial,research", "the use here is commercial")):
        holder = Machine(tmp_path / "holder", registry.url, more={"MEMCUBE_USE": use})
        assert said in holder.fails(EXIT_RULE, *arguments)
        assert not target.exists() or not any(target.iterdir())
    Machine(tmp_path / "holder", registry.url, more={"MEMCUBE_USE": "research"}).ok(*arguments)


def test_a_copy_that_was_to_be_gone_is_not_used(
    registry: QuirkyRegistry,
    publish: Callable[..., Cube],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cube = publish("retention_days = 30")
    holder = Machine(tmp_path / "holder", registry.url)
    holder.ok("pull", cube.name)
    later = datetime.now(UTC) + timedelta(days=31)
    monkeypatch.setattr(Context, "now", lambda _: later)
    for act in (("unpack", cube.name, tmp_path / "out"), ("mount", cube.name)):
        told = holder.fails(EXIT_RULE, *act, "--offline")
        assert "retention_days = 30" in told
        assert "memcube rm" in told
    holder.ok("cp", f"{cube.name}:1.0.0", f"oci:{tmp_path / 'layout'}")  # from its registry, now


def test_a_reference_with_a_digest_or_the_release_itself_is_asked_alike(
    holder: Machine, atlas: Cube
) -> None:
    digest = holder.json("inspect", atlas.name)["digest"]
    for source in (f"{atlas.name}@{digest}", atlas.name):
        holder.fails(EXIT_RULE, "cp", source, "bob/atlas")
    with holder.client() as client, pytest.raises(RuleRefusedError):
        client.cp(f"{atlas.name}:1.0.0", "bob/atlas")


def test_the_rules_of_a_cube_are_shown_before_anybody_breaks_them(
    holder: Machine, atlas: Cube, publish: Callable[..., Cube]
) -> None:
    assert "redistribution = forbidden" in holder.ok("inspect", atlas.name)
    free = publish('licence = "CC0-1.0"')
    assert "Rules       none" in holder.ok("inspect", free.name)
