"""Who may read a copy is said when it is made: `cp --public`, `mirror --public`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Person, fresh
from support.faults import Fault, faulty_proxy
from support.hub import HubServer
from support.hub_machine import tolerant, write_notes
from support.machine import Machine
from support.proxy import counting_proxy


@pytest.fixture
def ann(ada: Person, tmp_path: Path) -> Machine:
    """Somebody with a namespace of her own, and a second one that a mirror fills."""
    return Machine(tmp_path / "ann", ada.server.url, ada.token)


@pytest.fixture
def nobody(ada: Person, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "nobody", ada.server.url)


def push(
    ann: Machine, folder: Path, place: str, version: str, governance: str = "", *words: str
) -> None:
    folder = folder / version
    (folder / "plaintext").mkdir(parents=True)
    (folder / "plaintext" / "notes.jsonl").write_text(f'{{"id":"r","text":"of {version}"}}\n')
    name = f'name = "{place}"\nversion = "{version}"\n'
    (folder / "memcube.toml").write_text(f"{name}[governance]\n{governance}\n")
    ann.ok("push", folder, f"{place}:{version}", *words)


CONFIDENTIAL = 'sensitivity = "confidential"'


def test_a_copy_is_private_until_it_is_made_public(
    ada: Person, ann: Machine, nobody: Machine, tmp_path: Path
) -> None:
    source, copy = f"{ada.name}/{fresh('notes')}", f"{ada.name}/{fresh('copy')}"
    push(ann, tmp_path / "cube", source, "1.0.0")
    ann.ok("cp", f"{source}:1.0.0", copy)
    assert nobody.run("pull", f"{copy}:1.0.0").returncode != 0
    ann.ok("cp", f"{source}:1.0.0", copy, "--public")
    pulled = nobody.json("pull", f"{copy}:1.0.0", "--accept-origin", f"{ada.wire.netloc}/{source}")
    assert pulled["reference"].endswith(f"{copy}:1.0.0")
    assert nobody.run("pull", f"{source}:1.0.0").returncode != 0, "the source stays as it is"
    ann.ok("cp", "--all-tags", source, copy, "--private")
    assert ada.wire.anonymous().get(f"/api/v1/tags/{copy}").status == 401


def test_a_confidential_cube_is_no_public_copy_by_one_word(
    ada: Person, ann: Machine, nobody: Machine, tmp_path: Path
) -> None:
    source, copy = f"{ada.name}/{fresh('notes')}", f"{ada.name}/{fresh('copy')}"
    push(ann, tmp_path / "cube", source, "1.0.0", CONFIDENTIAL)
    refused = ann.run("cp", f"{source}:1.0.0", copy, "--public")
    assert refused.returncode != 0
    assert "sensitivity = confidential" in refused.stderr
    assert ada.wire.get(f"/api/v1/tags/{copy}").status == 404, "nothing was copied"
    ann.ok("cp", f"{source}:1.0.0", copy, "--public", "--yes")
    assert ada.wire.anonymous().get(f"/api/v1/tags/{copy}").status == 200


def test_a_confidential_version_that_lies_there_keeps_the_others_from_becoming_public(
    ada: Person, ann: Machine, nobody: Machine, tmp_path: Path
) -> None:
    source, name = f"{ada.name}/{fresh('notes')}", f"{ada.name}/{fresh('mixed')}"
    push(ann, tmp_path / "closed", name, "1.0.0", CONFIDENTIAL)
    push(ann, tmp_path / "open", name, "1.1.0")
    again = ("push", tmp_path / "open" / "1.1.0", f"{name}:1.1.0")
    push(ann, tmp_path / "source", source, "1.2.0")

    def is_refused(*words: str | Path) -> bool:
        told = ann.run(*words).stderr
        return "not made public: 1.0.0 lies there" in told and "--yes" in told

    assert is_refused(*again, "--public")
    assert nobody.run("pull", f"{name}:1.1.0").returncode != 0
    ann.ok(*again, "--public", "--yes")
    nobody.ok("pull", f"{name}:1.1.0")
    ann.ok(*again, "--public")  # everybody reads it: there is nothing to keep
    other = f"{ada.name}/{fresh('copies')}"
    ann.ok("cp", f"{name}:1.0.0", other)
    assert is_refused("cp", f"{name}:1.1.0", other, "--public")
    assert nobody.run("pull", f"{other}:1.1.0").returncode != 0
    assert is_refused("cp", "--all-tags", name, other, "--public") is False
    assert nobody.run("pull", f"{other}:1.1.0").returncode != 0


def test_what_is_confidential_is_added_to_no_public_cube_without_a_word(
    ada: Person, ann: Machine, nobody: Machine, tmp_path: Path
) -> None:
    source, name = f"{ada.name}/{fresh('closed')}", f"{ada.name}/{fresh('notes')}"
    push(ann, tmp_path, source, "1.0.0")
    ann.ok("cp", f"{source}:1.0.0", name, "--public")
    push(ann, tmp_path, source, "1.1.0", CONFIDENTIAL)  # to its own readers, as before
    closed = tmp_path / "1.1.0"

    def is_refused(*words: str | Path) -> bool:
        told = ann.run(*words).stderr
        return f"{name} is public, and" in told and "--yes" in told

    assert is_refused("push", closed, f"{name}:1.1.0")
    assert is_refused("push", f"{source}:1.1.0", f"{name}:1.1.0")
    assert is_refused("cp", f"{source}:1.1.0", name)
    assert tags(ada, name) == ["1.0.0"], "nothing was added"
    ann.ok("cp", f"{source}:1.1.0", name, "--yes")
    assert "1.1.0" in tags(ada, name)


def test_a_registry_that_does_not_answer_who_reads_a_cube_gets_nothing_confidential(
    ada: Person, ann: Machine, tmp_path: Path
) -> None:
    name = f"{ada.name}/{fresh('notes')}"
    push(ann, tmp_path, name, "1.0.0")
    ann.ok("push", tmp_path / "1.0.0", f"{name}:1.0.0", "--public")
    with faulty_proxy(ada.server.port) as proxy:
        proxy.order(
            Fault.ERROR,
            times=20,
            when=lambda seen: (seen.method, seen.path) == ("GET", f"/api/v1/cubes/{name}"),
        )
        behind = Machine(tmp_path / "behind", proxy.url, ada.token)
        project = tmp_path / "1.0.0" / "memcube.toml"
        project.write_text(f'name = "{name}"\nversion = "1.1.0"\n[governance]\n{CONFIDENTIAL}\n')
        assert behind.run("push", project.parent, f"{name}:1.1.0").returncode != 0
        assert proxy.faults()
    assert "1.1.0" not in tags(ada, name)


@tolerant
def test_what_is_confidential_is_added_to_no_public_repository_of_the_hub_without_a_word(
    hub: HubServer, hub_publisher: Machine, tmp_path: Path
) -> None:
    folder, place = tmp_path / "notes", "hf://Org/Notes"
    hub_publisher.ok("push", write_notes(folder, "1.0.0"), place, "--public")
    repository = hub.state.of("model", "Org/Notes")
    assert not any("expand=private" in line for line in hub.lines()), "nothing speaks against it"
    project = write_notes(folder, "1.1.0") / "memcube.toml"
    project.write_text(project.read_text().replace("[governance]", f"[governance]\n{CONFIDENTIAL}"))

    refused = hub_publisher.run("push", folder, place)
    assert "Org/Notes is public, and" in refused.stderr
    assert "--yes" in refused.stderr
    assert sorted(repository.tags) == ["1.0.0"]
    hub_publisher.ok("push", folder, place, "--private")
    assert repository.private
    assert sorted(repository.tags) == ["1.0.0", "1.1.0"]
    hub_publisher.ok("push", folder, "hf://Org/New")
    assert hub.state.of("model", "Org/New").private


@tolerant
def test_what_is_confidential_does_not_go_to_a_hub_that_does_not_say_who_reads_it(
    hub: HubServer, hub_publisher: Machine, tmp_path: Path
) -> None:
    project = write_notes(tmp_path / "notes", "1.0.0") / "memcube.toml"
    project.write_text(project.read_text().replace("[governance]", f"[governance]\n{CONFIDENTIAL}"))
    hub.state.create("model", "Org/Notes").private = None  # type: ignore[assignment]
    refused = hub_publisher.run("push", project.parent, "hf://Org/Notes")
    assert "no word on who may read" in refused.stderr
    assert hub.state.of("model", "Org/Notes").tags == {}


def test_a_public_cube_that_shall_be_private_is_so_before_what_is_confidential_is_sent(
    ada: Person, tmp_path: Path
) -> None:
    name = f"{ada.name}/{fresh('notes')}"
    with counting_proxy(ada.server.port) as proxy:
        ann = Machine(tmp_path / "ann", proxy.url, ada.token)
        push(ann, tmp_path, name, "1.0.0")
        ann.ok("push", tmp_path / "1.0.0", f"{name}:1.0.0", "--public")
        proxy.reset()
        push(ann, tmp_path, name, "1.1.0", CONFIDENTIAL, "--private")
        asked = proxy.without_tokens()
    closed = asked.index(f"PUT /api/v1/cubes/{name}")
    sent = [at for at, line in enumerate(asked) if line.startswith(("POST", "PUT /v2"))]
    assert closed < min(sent)
    assert ada.wire.anonymous().get(f"/api/v1/tags/{name}").status == 401


def tags(ada: Person, name: str) -> list[str]:
    return [one["name"] for one in ada.wire.anonymous().get(f"/api/v1/tags/{name}").json()]


def test_a_folder_has_no_readers_of_its_own(ada: Person, ann: Machine, tmp_path: Path) -> None:
    source = f"{ada.name}/{fresh('notes')}"
    push(ann, tmp_path / "cube", source, "1.0.0")
    refused = ann.run("cp", f"{source}:1.0.0", f"oci:{tmp_path / 'stick'}", "--public")
    assert "is a folder" in refused.stderr
    assert not (tmp_path / "stick").exists()
    ann.ok("cp", f"{source}:1.0.0", f"oci:{tmp_path / 'stick'}")
    copy = f"{ada.name}/{fresh('copy')}"
    ann.ok("cp", f"oci:{tmp_path / 'stick'}", copy, "--public")
    cubes = ada.wire.get(f"/api/v1/cubes?prefix={copy}").json()["cubes"]
    assert [cube["visibility"] for cube in cubes] == ["public"]


def test_a_mirror_opens_what_it_may(
    ada: Person, ann: Machine, nobody: Machine, tmp_path: Path
) -> None:
    team, owner = fresh("team"), ada.server.create_token(ada.name, "admin")
    made = ada.server.wire.bearer(owner).post(
        "/api/v1/organisations",
        body=json.dumps({"name": team}).encode(),
        headers={"Content-Type": "application/json"},
    )
    assert made.status == 201
    names = {name: fresh(name) for name in ("open", "mixed", "closed")}
    push(ann, tmp_path / "open", f"{ada.name}/{names['open']}", "1.0.0")
    push(ann, tmp_path / "mixed", f"{ada.name}/{names['mixed']}", "1.0.0")
    push(ann, tmp_path / "mixed", f"{ada.name}/{names['mixed']}", "1.1.0", CONFIDENTIAL)
    push(ann, tmp_path / "closed", f"{ada.name}/{names['closed']}", "1.0.0", CONFIDENTIAL)
    cubes = [part for name in names.values() for part in ("--cube", name)]
    words = ("mirror", ada.name, team, *cubes, "--tag", "*.*.*")

    def visible() -> dict[str, str]:
        listed = ada.wire.get(f"/api/v1/cubes?prefix={team}/").json()["cubes"]
        short = {name: key for key, name in names.items()}
        return {short[cube["name"].partition("/")[2]]: cube["visibility"] for cube in listed}

    first = ann.run(*words, "--public")
    assert "sensitivity = confidential" in first.stdout
    assert visible() == {"open": "public", "mixed": "public"}, "without what is confidential"
    assert nobody.run("pull", f"{team}/{names['mixed']}:1.1.0").returncode != 0
    ann.ok(*words, "--private")
    assert visible() == dict.fromkeys(names, "private")
    fewer = ann.run(*words[:-1], "1.0.*", "--public", "--json")
    told = [row["detail"] for row in json.loads(fewer.stdout)["versions"] if not row["tag"]]
    assert ["not made public: 1.1.0" in detail for detail in told] == [True], (
        "not looked at, but there"
    )
    assert visible() == {"open": "public", "mixed": "private", "closed": "private"}
    ann.ok(*words, "--private")
    again = ann.run(*words, "--public", "--json")
    told = {
        row["name"].partition("/")[2]: row
        for row in json.loads(again.stdout)["versions"]
        if not row["tag"]
    }
    assert list(told) == [names["mixed"]], "its confidential version lies there"
    assert "not made public: 1.1.0" in told[names["mixed"]]["detail"]
    assert visible() == {"open": "public", "mixed": "private", "closed": "private"}
    ann.ok(*words, "--public", "--yes")
    assert visible() == dict.fromkeys(names, "public"), "said by a second word"
