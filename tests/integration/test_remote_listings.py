"""`memcube ls PLACE`: what lies at our registry, at registries of others, on the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import EXIT_INVALID
from support.hub import HubServer
from support.hub_machine import tolerant
from support.machine import Machine
from support.published import Published, write_cube
from support.quirky import Quirks, QuirkyRegistry, quirky


@pytest.fixture
def foreign() -> Iterator[QuirkyRegistry]:
    """A registry of another kind, whose lists come in pages of two."""
    with quirky(Quirks(referrers=False, tags_page=2)) as registry:
        yield registry


def test_a_namespace_of_ours_shows_what_this_user_may_see(
    new_person: Callable[[], Person], tmp_path: Path
) -> None:
    ada = new_person()
    owner = Machine(tmp_path / "owner", ada.server.url, ada.token)
    nobody = Machine(tmp_path / "nobody", ada.server.url)
    secret, shown = (f"{ada.name}/{fresh(word)}" for word in ("secret", "shown"))
    pushed = Published(owner, secret, tmp_path / "secret").push()
    Published(owner, shown, tmp_path / "shown").push()
    owner.ok("push", tmp_path / "shown" / "1.0.0", f"{shown}:1.0.0", "--public")
    host = ada.wire.netloc
    assert {f"{host}/{secret}", f"{host}/{shown}"} <= set(owner.json("ls", ada.name)["cubes"])
    assert nobody.json("ls", ada.name)["cubes"] == [f"{host}/{shown}"]
    assert f"{host}/{shown}" in nobody.json("ls", f"{host}/")["cubes"]
    assert nobody.ok("ls", f"{ada.name}/", "--quiet") == f"{host}/{shown}\n"
    tags = {one["tag"]: one["digest"] for one in owner.json("ls", secret)["tags"]}
    assert tags["1.0.0"] == tags["latest"] == pushed["digest"]
    assert next(iter(tags)) == "1.0.0", "versions come first"
    assert nobody.run("ls", secret).returncode != 0
    assert "shows no cubes to you" in nobody.ok("ls", fresh("nobody"))


def test_a_cube_whose_name_leaves_no_room_for_the_host_hides_no_other(
    new_person: Callable[[], Person], tmp_path: Path
) -> None:
    ada = new_person()
    owner = Machine(tmp_path / "owner", ada.server.url, ada.token)
    longest = "x" * (limits.NAME_CHARS - len(f"{ada.name}/"))
    for name in ("short", longest):  # the server's own address is no part of its limit
        assert ada.repository(name).post_blob(b"x", Digest.of(b"x")).status == 201
    assert owner.json("ls", ada.name)["cubes"] == [f"{ada.wire.netloc}/{ada.name}/short"]


def test_a_registry_of_another_kind_is_read_to_its_last_page(
    foreign: QuirkyRegistry, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "ann", foreign.url)
    for number in range(3):
        Published(machine, f"alice/cube-{number}", tmp_path / f"{number}").push()
    for version in ("1.1.0", "1.2.0"):
        Published(machine, "alice/cube-0", tmp_path / "0").push(version)
    listed = [f"{foreign.host}/alice/cube-{number}" for number in range(3)]
    assert machine.json("ls", f"{foreign.host}/alice")["cubes"] == listed
    assert machine.json("ls", f"{foreign.host}/")["cubes"] == listed
    told = machine.json("ls", f"{foreign.host}/alice/cube-0")
    assert told["reference"] == f"{foreign.host}/alice/cube-0"
    tags = [one["tag"] for one in told["tags"]]
    assert {"1.0.0", "1.1.0", "1.2.0", "1", "latest"} <= set(tags)
    assert not any(tag.startswith("sha256-") for tag in tags)
    with machine.client() as client:
        assert list(client.ls_remote(f"{foreign.host}/alice/cube-0").tags) == tags


def test_docker_registry_lists_its_cubes(reference_registry: str, tmp_path: Path) -> None:
    machine, namespace = Machine(tmp_path / "ann", reference_registry), fresh("ann")
    Published(machine, f"{namespace}/notes", tmp_path / "cube").push()
    host = reference_registry.removeprefix("http://")
    assert machine.json("ls", f"{host}/{namespace}")["cubes"] == [f"{host}/{namespace}/notes"]
    assert "1.0.0" in machine.ok("ls", f"{host}/{namespace}/notes")


@tolerant
def test_the_hub_lists_the_cubes_of_an_account_and_no_other_repositories(
    hub: HubServer, hub_publisher: Machine, tmp_path: Path
) -> None:
    hub.state.create("model", "ada/a-language-model")
    for place in ("hf://ada/notes", "hf://datasets/ada/diary"):
        folder = write_cube(tmp_path / place[-5:], "ada/notes", "1.0.0")
        hub_publisher.ok("push", folder, place)
    listed = hub_publisher.json("ls", "hf://ada")["cubes"]
    assert listed == ["huggingface.co/ada/datasets/diary", "huggingface.co/ada/notes"]
    assert hub_publisher.json("ls", listed[0])["tags"], "what is listed can be asked for"
    assert [one["tag"] for one in hub_publisher.json("ls", "hf://ada/notes")["tags"]] == ["1.0.0"]
    refused = hub_publisher.run("ls", "huggingface.co/")
    assert "write hf://ACCOUNT/" in refused.stderr


@pytest.mark.parametrize("place", ["alice/notes:1.0.0", "https://registry.example/", "/", ""])
def test_what_is_no_place_is_refused(place: str, ada: Person, tmp_path: Path) -> None:
    assert Machine(tmp_path / "ann", ada.server.url).run("ls", place).returncode == EXIT_INVALID
