"""What people do with the command line, against a real server: publish, fetch, copy, break, recover."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube_protocol.errors import (
    EXIT_AUTH,
    EXIT_CONFLICT,
    EXIT_ERROR,
    EXIT_INTEGRITY,
    EXIT_INVALID,
    EXIT_NETWORK,
    EXIT_NOT_FOUND,
    EXIT_RULE,
    EXIT_TRUST,
    EXIT_USAGE,
)
from support.machine import Machine
from support.servers import MemcubeServer, command


@pytest.fixture
def publisher(tmp_path: Path, ada: Person) -> Machine:
    """A machine of somebody who publishes."""
    return Machine(tmp_path / "publisher", ada.server.url, ada.token)


@pytest.fixture
def reader(tmp_path: Path, bob: Person) -> Machine:
    return Machine(tmp_path / "reader", bob.server.url, bob.token)


@pytest.fixture
def cube(tmp_path: Path, ada: Person, publisher: Machine) -> tuple[Path, str]:
    """A folder from a template, and the name it has."""
    name = f"{ada.name}/{fresh('notes')}"
    publisher.ok("init", tmp_path / "cube", "--name", name)
    return tmp_path / "cube", name


def bump(folder: Path, version: str, record: str = "added") -> None:
    toml = folder / "memcube.toml"
    lines = [
        f'version = "{version}"' if line.startswith("version") else line
        for line in toml.read_text().splitlines()
    ]
    toml.write_text("\n".join(lines))
    with (folder / "plaintext" / "records.jsonl").open("a") as records:
        records.write(json.dumps({"id": f"{record}-{version}", "text": f"New in {version}"}) + "\n")


def test_a_cube_travels_from_one_person_to_another(
    cube: tuple[Path, str], publisher: Machine, reader: Machine, tmp_path: Path
) -> None:
    folder, name = cube
    publisher.own_process = reader.own_process = True
    pushed = publisher.json("push", folder, "--public")
    assert pushed["tags"] == ["0.1.0", "0.1", "0", "latest"]
    pulled = reader.json("pull", name)
    assert pulled["digest"] == pushed["digest"]
    assert pulled["verdict"]["standing"] == "first-use"
    assert pulled["verdict"]["publisher"] == pushed["keyId"]
    assert reader.json("verify", name)["standing"] == "trusted"
    reader.ok("unpack", name, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_bytes() == (folder / "README.md").read_bytes()
    asked = reader.json("mount", name, "--ask", "How do I test a backup?")
    assert "restoring it on another machine" in asked["answers"][0]["answer"]
    assert [cube["reference"] for cube in reader.json("ls")["cubes"]] == [
        f"{publisher.url.removeprefix('http://')}/{name}:latest"
    ]


def test_a_cube_is_pulled_by_tag_by_digest_and_by_both(
    cube: tuple[Path, str], publisher: Machine, tmp_path: Path, bob: Person
) -> None:
    folder, name = cube
    digest = publisher.ok("push", folder, "--public", "-q").strip()
    for number, reference in enumerate(
        (f"{name}:0.1.0", f"{name}:0", f"{name}@{digest}", f"{name}:0.1.0@{digest}", name)
    ):
        fetcher = Machine(tmp_path / f"home{number}", bob.server.url, bob.token)
        assert fetcher.ok("pull", reference, "--quiet").strip() == digest
        assert fetcher.ok("pull", reference, "--quiet", "--offline").strip() == digest
    other = "sha256:" + "0" * 64
    machine = Machine(tmp_path / "other", bob.server.url, bob.token)
    machine.fails(EXIT_NOT_FOUND, "pull", f"{name}:0.1.0@{other}")


def test_pushing_again_changes_nothing_and_sends_nothing(
    cube: tuple[Path, str], publisher: Machine
) -> None:
    folder, _ = cube
    first = publisher.json("push", folder)
    again = publisher.json("push", folder)
    assert again["unchanged"]
    assert again["sentBytes"] == 0
    assert again["digest"] == first["digest"]


def test_a_lost_home_pushes_the_same_folder_without_a_conflict(
    cube: tuple[Path, str], publisher: Machine, tmp_path: Path
) -> None:
    folder, _ = cube
    first = publisher.json("push", folder)
    anew = Machine(tmp_path / "new-home", publisher.url, publisher.token)
    (anew.home).mkdir()
    (publisher.home / "keys").rename(anew.home / "keys")
    again = anew.json("push", folder)
    assert (again["digest"], again["unchanged"]) == (first["digest"], True)
    assert anew.json("push", folder)["unchanged"]


def test_releasing_again_from_a_fresh_home_adds_no_second_signature(
    cube: tuple[Path, str], publisher: Machine, ada: Person, tmp_path: Path
) -> None:
    folder, name = cube
    digest = publisher.json("push", folder)["digest"]
    anew = Machine(tmp_path / "new-home", publisher.url, publisher.token)
    anew.home.mkdir()
    (publisher.home / "keys").rename(anew.home / "keys")
    anew.ok("push", folder)
    listed = ada.wire.get(f"/v2/{name}/referrers/{digest}")
    release_scan_and_files = 3
    assert len(listed.json()["manifests"]) == release_scan_and_files


def test_a_new_version_asks_for_no_blob_of_the_last(
    cube: tuple[Path, str], publisher: Machine, ada: Person
) -> None:
    folder, name = cube
    publisher.ok("push", folder)
    bump(folder, "0.2.0")
    log = ada.server.log
    before = log.stat().st_size
    publisher.ok("push", folder)
    asked = log.read_bytes()[before:].decode().splitlines()
    begun = [line for line in asked if '"POST"' in line and f"/v2/{name}/blobs/uploads/" in line]
    changed_layers_config_and_three_bundles = 6
    assert 0 < len(begun) <= changed_layers_config_and_three_bundles


def test_a_version_never_changes(cube: tuple[Path, str], publisher: Machine) -> None:
    folder, _ = cube
    publisher.ok("push", folder)
    (folder / "README.md").write_text("# Changed\n")
    told = publisher.fails(EXIT_CONFLICT, "push", folder)
    assert "raise the version" in told


def test_moving_tags_follow_the_newest_version_only(
    cube: tuple[Path, str], publisher: Machine, reader: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    bump(folder, "1.0.0")
    assert publisher.json("push", folder)["tags"] == ["1.0.0", "1.0", "1", "latest"]
    bump(folder, "0.1.1")
    assert publisher.json("push", folder)["tags"] == ["0.1.1", "0.1", "0"]
    bump(folder, "2.0.0-rc.1")
    assert publisher.json("push", folder)["tags"] == ["2.0.0-rc.1"]
    assert reader.json("pull", name)["verdict"]["version"] == "1.0.0"
    assert reader.json("pull", f"{name}:0")["verdict"]["version"] == "0.1.1"
    assert reader.json("pull", f"{name}:2.0.0-rc.1")["verdict"]["seq"] == 4


def test_a_second_machine_goes_on_with_the_order_of_releases(
    cube: tuple[Path, str], publisher: Machine, reader: Machine, tmp_path: Path
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    second = Machine(tmp_path / "second", publisher.url, publisher.token)
    second.home.mkdir()
    (second.home / "keys").symlink_to(publisher.home / "keys")
    bump(folder, "0.2.0")
    second.ok("push", folder)
    assert reader.json("pull", name)["verdict"]["seq"] == 2


def test_another_key_stops_the_publisher_and_the_reader(
    cube: tuple[Path, str], publisher: Machine, reader: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    reader.ok("pull", name)
    publisher.ok("keys", "generate", "other")
    bump(folder, "0.2.0")
    told = publisher.fails(EXIT_TRUST, "push", folder, "--key", "other")
    accepted = told.partition("--accept-publisher ")[2].split(":")[0].strip()
    publisher.ok("push", folder, "--key", "other", "--accept-publisher", accepted)
    assert "--accept-publisher" in reader.fails(EXIT_TRUST, "pull", name)
    assert reader.json("pull", f"{name}:0.1.0")["verdict"]["standing"] == "trusted"
    reader.ok("pull", name, "--accept-publisher", accepted)
    assert reader.json("verify", name)["standing"] == "trusted"


def test_push_says_what_pack_says_of_a_folder(publisher: Machine, tmp_path: Path) -> None:
    notes = tmp_path / fresh("notes")
    notes.mkdir()
    (notes / "a.md").write_text("A note.")
    (notes / "b.png").write_bytes(b"\x89PNG")
    (notes / "c.jsonl").write_text('{"text": "Key.", "api_key": "hidden-value"}')
    packed = publisher.json("pack", notes)["notes"]
    assert any("b.png" in note for note in packed)
    assert any(note.startswith("secret dropped") for note in packed)
    told = publisher.ok("push", notes)
    assert all(note in told for note in packed)
    assert publisher.json("push", notes)["notes"] == packed


def test_a_folder_without_a_version_never_falls_behind_its_releases(
    publisher: Machine, ada: Person, tmp_path: Path
) -> None:
    notes, name = tmp_path / "notes", f"{ada.name}/{fresh('notes')}"
    notes.mkdir()
    (notes / "a.md").write_text("First.")
    assert publisher.json("push", notes, name)["tags"][0] == "0.1.0"
    assert publisher.json("push", notes, name)["unchanged"]
    (notes / "a.md").write_text("Second.")
    told = publisher.fails(EXIT_CONFLICT, "push", notes, name)
    assert f"memcube push {notes} {name}:0.1.1" in told
    publisher.ok("push", notes, f"{name}:1.1.0")
    for given in (name, f"{name}:1.1.0"):
        (notes / "a.md").write_text(f"Third, as {given}.")
        told = publisher.fails(EXIT_CONFLICT, "push", notes, given)
        assert f"memcube push {notes} {name}:1.1.1" in told


@pytest.mark.parametrize(("tag", "meant"), [("v1.2", "1.2.0"), ("1", "1.0.0"), ("new", "1.2.0")])
def test_a_version_cut_short_is_written_in_full(
    cube: tuple[Path, str], publisher: Machine, tag: str, meant: str
) -> None:
    folder, name = cube
    told = publisher.fails(EXIT_INVALID, "push", folder, f"{name}:{tag}")
    assert f"hint: write {name}:{meant}" in told


def test_a_push_by_nobody_says_how_to_log_in(cube: tuple[Path, str], publisher: Machine) -> None:
    folder, _ = cube
    publisher.token = None
    told = publisher.fails(EXIT_AUTH, "push", folder)
    host = publisher.url.removeprefix("http://")
    assert f"you are not logged in to {host}" in told
    assert f"hint: memcube login {host}" in told


@pytest.mark.parametrize("readable", [True, False])
def test_who_may_not_push_somewhere_learns_it_before_a_key_is_made(
    cube: tuple[Path, str], publisher: Machine, reader: Machine, readable: bool
) -> None:
    folder, name = cube
    if readable:
        publisher.ok("push", folder, "--public")
        bump(folder, "0.2.0")
    assert "made a new signing key" not in reader.fails(EXIT_AUTH, "push", folder, name)
    assert not (reader.home / "keys").exists()


def test_a_revocation_of_what_is_no_key_makes_no_key(tmp_path: Path, ada: Person) -> None:
    machine = Machine(tmp_path / "home", ada.server.url, ada.token)
    words = ("keys", "revoke", ada.name, "default", "--since", "2026-02-27", "--to", "next")
    assert "is not a key id: 64 hexadecimal digits" in machine.fails(EXIT_USAGE, *words)
    assert not (machine.home / "keys").exists()


def test_the_first_push_says_which_key_it_made(cube: tuple[Path, str], publisher: Machine) -> None:
    folder, _ = cube
    first = publisher.run("push", folder, "--json")
    assert "made a new signing key" in first.stderr
    assert "NOT encrypted" in first.stderr
    assert "default.pem" in first.stderr
    assert "keep a copy" in first.stderr
    assert json.loads(first.stdout)["keyId"]
    assert publisher.run("push", folder).stderr == ""


def test_who_may_read_a_cube_is_said_where_it_is_set(
    cube: tuple[Path, str], publisher: Machine
) -> None:
    folder, _ = cube
    assert "; private\n" in publisher.ok("push", folder, "--private")
    assert "; now public\n" in publisher.ok("push", folder, "--public")
    assert publisher.json("push", folder, "--private")["visibility"] == "private"
    assert publisher.json("push", folder)["visibility"] is None


def test_personal_memory_becomes_public_only_when_meant(
    publisher: Machine, ada: Person, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    publisher.ok("init", folder, "--template", "agent", "--name", f"{ada.name}/{fresh('agent')}")
    told = publisher.fails(EXIT_RULE, "push", folder, "--public")
    assert "sensitivity = confidential: everybody could read it" in told
    assert "also personal_data = personal" in told
    assert "--yes" in told
    publisher.ok("push", folder)
    assert publisher.json("push", folder, "--public", "--yes")["visibility"] == "public"


def test_a_private_cube_is_absent_for_strangers(
    cube: tuple[Path, str], publisher: Machine, reader: Machine, tmp_path: Path
) -> None:
    folder, name = cube
    publisher.ok("push", folder)
    reader.fails(EXIT_NOT_FOUND, "pull", name)
    nobody = Machine(tmp_path / "nobody", publisher.url)
    nobody.fails(EXIT_AUTH, "pull", name)
    publisher.ok("push", folder, "--public")
    nobody.ok("pull", name)
    publisher.ok("push", folder, "--private")
    reader.fails(EXIT_NOT_FOUND, "pull", name)


def test_a_name_without_namespace_goes_into_the_own_account(
    publisher: Machine, tmp_path: Path, ada: Person
) -> None:
    notes = tmp_path / fresh("plain")
    notes.mkdir()
    (notes / "a.md").write_text("# Tea\n\nGreen tea at 70 degrees.\n")
    assert f"/{ada.name}/{notes.name}:0.1.0" in publisher.json("push", notes)["reference"]


def test_login_keeps_a_token_and_logout_forgets_it(
    ada: Person, tmp_path: Path, memcube: MemcubeServer
) -> None:
    machine = Machine(tmp_path / "home", memcube.url)
    machine.fails(EXIT_AUTH, "whoami")
    wrong = machine.run("login", "--token-stdin", stdin="mct_wrong\n")
    assert wrong.returncode == EXIT_AUTH
    assert "mct_wrong" not in wrong.stdout + wrong.stderr
    machine.ok("login", "--token-stdin", stdin=f"{ada.token}\n")
    assert machine.ok("whoami", "--quiet").strip() == ada.name
    assert (machine.home / "credentials.json").stat().st_mode & 0o077 == 0
    machine.ok("logout")
    machine.fails(EXIT_AUTH, "whoami")


def test_a_copy_keeps_its_origin_and_its_signature(
    cube: tuple[Path, str],
    publisher: Machine,
    reader: Machine,
    bob: Person,
    new_person: Callable[[], Person],
    tmp_path: Path,
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    copied = reader.json("cp", f"{name}:0.1.0", f"{bob.name}/copy")
    release_scan_and_files = 3
    assert copied["attached"] == release_scan_and_files
    assert copied["sentBytes"] == 0, "blobs of the same registry are mounted"
    assert reader.json("pull", f"{bob.name}/copy:0.1.0")["verdict"]["origin"].endswith(name)
    bob.wire.put(
        f"/api/v1/cubes/{bob.name}/copy",
        body=json.dumps({"visibility": "public"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    third = new_person()
    stranger = Machine(tmp_path / "third", third.server.url, third.token)
    told = stranger.fails(EXIT_TRUST, "pull", f"{bob.name}/copy:0.1.0")
    origin = told.partition("--accept-origin ")[2].split(";")[0]
    stranger.ok("pull", f"{bob.name}/copy:0.1.0", "--accept-origin", origin)


def test_a_tag_of_words_moves_and_a_version_does_not(
    cube: tuple[Path, str], publisher: Machine
) -> None:
    folder, name = cube
    digest = publisher.json("push", folder)["digest"]
    told = publisher.ok("tag", f"{name}:0.1.0", "stable")
    assert told.endswith(f"{name}:stable now leads to {name}:0.1.0\nDigest: {digest}\n")
    assert publisher.ok("tag", f"{name}:0.1.0", "stable", "--quiet") == f"{digest}\n"
    assert publisher.json("pull", f"{name}:stable")["verdict"]["version"] == "0.1.0"
    publisher.fails(EXIT_CONFLICT, "tag", f"{name}:0.1.0", "0.2.0")


def test_only_wanted_layers_are_fetched_and_the_rest_later(
    cube: tuple[Path, str], publisher: Machine, reader: Machine
) -> None:
    folder, name = cube
    (folder / "attachments").mkdir()
    (folder / "attachments" / "big.txt").write_text("big " * 10_000)
    publisher.ok("push", folder, "--public")
    part = reader.json("pull", name, "--filter", "kind=plaintext")
    assert [path for path in part["files"] if path.startswith("attachments")] == []
    assert part["fetchedBytes"] < 5_000
    reader.fails(EXIT_NOT_FOUND, "pull", name, "--offline")
    reader.ok("unpack", name, reader.home / "out")
    assert (reader.home / "out" / "attachments" / "big.txt").stat().st_size == 40_000
    reader.fails(EXIT_NOT_FOUND, "pull", name, "--filter", "memory=absent")


def test_path_gives_a_folder_that_heals_itself(
    cube: tuple[Path, str], publisher: Machine, reader: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    place = Path(reader.ok("path", name, "--memory", "plaintext").strip())
    (shard,) = place.iterdir()
    good = shard.read_bytes()
    shard.write_bytes(b"changed")
    assert Path(reader.ok("path", name, "--memory", "plaintext").strip()) == place
    assert shard.read_bytes() == good


def test_rm_and_prune_free_the_store(
    cube: tuple[Path, str], publisher: Machine, reader: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    reader.ok("pull", name)
    reader.ok("rm", name)
    assert reader.json("ls")["cubes"] == []
    reader.fails(EXIT_NOT_FOUND, "rm", name)
    reader.ok("prune")


def test_a_flipped_byte_in_the_local_store_is_found(
    cube: tuple[Path, str], publisher: Machine, reader: Machine, tmp_path: Path
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    reader.ok("pull", name)
    for blob in (reader.home / "store" / "blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes().startswith(b"\x28\xb5\x2f\xfd"):
            content = bytearray(blob.read_bytes())
            content[-1] ^= 1
            blob.write_bytes(content)
    reader.fails(EXIT_INTEGRITY, "verify", name, "--offline")
    reader.ok("pull", name)
    reader.ok("unpack", name, tmp_path / "healed")


def test_an_absent_registry_is_a_network_error(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home", "http://127.0.0.1:9")
    began_s = time.monotonic()
    told = machine.fails(EXIT_NETWORK, "pull", "alice/notes")
    assert time.monotonic() - began_s < 1, "nothing is tried again where nothing listens"
    assert told.startswith("error: nothing listens at http://127.0.0.1:9\n")
    assert "memcube serve" in told


def test_a_host_that_does_not_exist_cannot_be_found(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home", "https://registry.invalid")
    told = machine.fails(EXIT_NETWORK, "pull", "alice/notes")
    assert told.startswith("error: registry.invalid cannot be found\n")


def test_the_doctor_finds_a_healthy_machine(publisher: Machine) -> None:
    findings = publisher.json("doctor")["findings"]
    assert {finding["state"] for finding in findings} <= {"ok", "note"}


def test_the_doctor_looks_at_every_optional_part(tmp_path: Path) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    told = json.loads(
        Machine(tmp_path / "home", "http://127.0.0.1:9").run("doctor", "--json").stdout
    )
    parts = {one["what"] for one in told["findings"] if one["what"].startswith("memcube[")}
    assert parts == {f"memcube[{extra}]" for extra in project["optional-dependencies"]}


def test_the_sdk_does_what_the_command_line_does(
    cube: tuple[Path, str],
    publisher: Machine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    ada: Person,
) -> None:
    import memcube as sdk

    folder, name = cube
    monkeypatch.setenv("MEMCUBE_HOME", str(publisher.home))
    monkeypatch.setenv("MEMCUBE_ENDPOINT", publisher.url)
    monkeypatch.setenv("MEMCUBE_TOKEN", ada.token)
    monkeypatch.setenv("MEMCUBE_KEYRING", "0")
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")
    assert sdk.whoami().name == ada.name
    published = sdk.push(folder)
    assert sdk.pull(name).cube.digest == published.cube.digest
    assert sdk.verify(name).standing == "trusted"
    assert sdk.unpack(name, tmp_path / "out").cube == published.cube
    assert sdk.inspect(name).manifest.digest == published.cube.digest
    assert len(sdk.ls()) == 5
    with sdk.mount(name) as memory:
        assert "restoring" in memory.context("test a backup")
    assert sdk.rm(f"{name}:0").tag == "0"


def test_a_reference_that_is_none_is_refused(publisher: Machine) -> None:
    publisher.fails(EXIT_INVALID, "pull", "../etc/passwd")


def requests_of(server: MemcubeServer, name: str, start: int) -> list[str]:
    """What was asked about the cube `name` since the log had `start` characters."""
    entries = [json.loads(line) for line in server.log_text()[start:].splitlines() if "{" in line]
    return [f"{e['method']} {e['path']}" for e in entries if name in e.get("path", "")]


def test_an_unchanged_cube_takes_three_requests_at_most(
    cube: tuple[Path, str], publisher: Machine, reader: Machine, memcube: MemcubeServer
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    start = len(memcube.log_text())
    publisher.ok("push", folder)
    asked = requests_of(memcube, name, start)
    assert 1 <= len(asked) <= 3, asked
    assert not any("/blobs/" in request for request in asked)
    reader.ok("pull", name)
    start = len(memcube.log_text())
    reader.ok("unpack", name, reader.home / "out")
    assert requests_of(memcube, name, start) == [], "what the store holds is not asked for again"


def test_an_interrupted_push_is_finished_by_the_next(
    cube: tuple[Path, str], publisher: Machine, reader: Machine, ada: Person
) -> None:
    """As after a kill between the manifest and the tags: no tag leads anywhere, then all do."""
    folder, name = cube
    publisher.ok("push", folder, "--public")
    for tag in ("0.1", "0", "latest"):
        ada.wire.delete(f"/v2/{name}/manifests/{tag}")
    for ref in (publisher.home / "store" / "refs").iterdir():
        if name in ref.read_text() and publisher.url.removeprefix("http://") in ref.read_text():
            ref.unlink()
    reader.fails(EXIT_NOT_FOUND, "pull", name)
    assert publisher.json("push", folder)["sentBytes"] < 10_000
    assert reader.json("pull", name)["verdict"]["seq"] == 1


def test_bars_show_on_a_terminal_and_answers_stay_clean(
    cube: tuple[Path, str], publisher: Machine, reader: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [command("memcube"), "pull", name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=reader.environment | {"TERM": "xterm", "COLUMNS": "80"},
        timeout=60,
        check=False,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says EIO where the other end is closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)
    assert done.returncode == 0
    assert b"\x1b[" in shown
    assert b"\x1b" not in done.stdout
    assert done.stdout.startswith(b"Verified ")


def test_the_doctor_names_what_is_wrong(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home", "http://127.0.0.1:9")
    done = machine.run("doctor", "--json")
    states = {entry["what"]: entry["state"] for entry in json.loads(done.stdout)["findings"]}
    assert done.returncode == EXIT_ERROR
    assert states["registry"] == "problem"
    assert states["store"] == "ok"
    assert states["clock"] == "note"
    assert machine.run("doctor").stdout.count("hint: ") == 1


def test_a_folder_made_for_tools_goes_with_its_cube(
    cube: tuple[Path, str], publisher: Machine, reader: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder, "--public")
    place = Path(reader.ok("path", name, "--memory", "plaintext").strip())
    reader.ok("prune")
    assert place.is_dir()
    reader.ok("rm", name)
    assert reader.json("prune", "--older-than", "0", "--yes")["freedBytes"] > 0
    assert not place.exists()


def test_what_was_packed_here_never_stands_in_for_a_release(
    cube: tuple[Path, str], publisher: Machine, tmp_path: Path
) -> None:
    folder, name = cube
    released = publisher.json("push", folder)["digest"]
    (folder / "README.md").write_text("# Changed\n")
    publisher.fails(EXIT_CONFLICT, "push", folder)
    assert [c["digest"] for c in publisher.json("ls")["cubes"] if c["packed"]] == [released]
    changed = publisher.json("pack", folder)["digest"]
    publisher.ok("rm", f"{name}:0.1.0")
    for command_line in (("mount",), ("pull",), ("verify",)):
        told = publisher.fails(EXIT_NOT_FOUND, *command_line, f"{name}:0.1.0", "--offline")
        assert "memcube pull" in told
        assert changed in told, "the pack is named, and not used"
    own = publisher.json("mount", f"{name}:0.1.0@{changed}", "--offline")["cubes"][0]
    assert (own["digest"], own["packedHere"], own["standing"]) == (changed, True, "local")
    assert publisher.json("mount", f"{name}:0.1.0")["cubes"][0]["digest"] == released


def test_a_pack_says_that_nobody_signed_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home", "http://127.0.0.1:9")
    machine.ok("init", tmp_path / "cube", "--name", "my-notes")
    machine.ok("pack", tmp_path / "cube")
    assert machine.ok("mount", "my-notes").startswith("Packed here, unsigned: my-notes:0.1.0")
    assert "Verified" not in machine.ok("pull", "my-notes", "--offline")
    assert machine.json("pull", "my-notes", "--offline")["packedHere"]


def test_a_refused_push_leaves_no_pack_behind(
    cube: tuple[Path, str], publisher: Machine, tmp_path: Path
) -> None:
    folder, _ = cube
    publisher.ok("push", folder)
    other = Machine(tmp_path / "other", publisher.url, publisher.token)
    (folder / "README.md").write_text("# Changed\n")
    other.fails(EXIT_CONFLICT, "push", folder)
    assert other.json("ls")["cubes"] == []


def test_a_moving_tag_goes_back_only_when_that_is_meant(
    cube: tuple[Path, str], publisher: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder)
    bump(folder, "0.2.0")
    newer = publisher.json("push", folder)["digest"]
    told = publisher.fails(EXIT_CONFLICT, "tag", f"{name}:0.1.0", "latest")
    assert "rollback alarm" in told
    assert publisher.json("pull", name)["digest"] == newer
    publisher.ok("tag", f"{name}:0.2.0", "latest")
    publisher.ok("tag", f"{name}:0.1.0", "latest", "--yes")
    assert "is no tag" in publisher.fails(EXIT_INVALID, "tag", f"{name}:0.1.0", "bad tag")


def test_the_refused_token_of_a_variable_is_named(tmp_path: Path, memcube: MemcubeServer) -> None:
    machine = Machine(tmp_path / "home", memcube.url, "mct_wrong")
    for words in (("whoami",), ("pull", "alice/notes")):
        told = machine.fails(EXIT_AUTH, *words)
        assert "MEMCUBE_TOKEN" in told
        assert "mct_wrong" not in told


def test_a_wrong_word_is_named_with_what_to_write(
    cube: tuple[Path, str], publisher: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder)
    usage = publisher.run("pull", name, "--accept-publisher", "abc")
    assert usage.returncode == 2
    assert "'abc' is not a key id" in usage.stderr
    assert "leave out https://" in publisher.fails(EXIT_INVALID, "pull", f"https://host/{name}")
    absent = publisher.fails(EXIT_NOT_FOUND, "mount", name, "--model", "/nonexist")
    assert "no such folder: /nonexist" in absent
    lacking = publisher.fails(EXIT_NOT_FOUND, "mount", name, "--filter", "kind=parametric")
    assert "the cube has no parametric memory" in lacking


def test_a_list_has_one_row_for_each_cube_and_place(
    cube: tuple[Path, str], publisher: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder)
    _, published, packed = publisher.ok("ls").splitlines()
    assert f"{name}:0.1.0 (packed here)" in packed
    assert f"{name}:0.1.0, 0.1, 0, latest" in published
    assert len(publisher.json("ls")["cubes"]) == 5
    assert "1 cube," in publisher.ok("doctor")


def test_a_published_cube_is_forgotten_whole_and_its_space_is_freed(
    cube: tuple[Path, str], publisher: Machine
) -> None:
    folder, name = cube
    publisher.ok("push", folder)
    assert publisher.ok("prune").startswith("Nothing to free")
    assert "Still kept by: 0, 0.1, 0.1.0" in publisher.ok("rm", name)
    told = publisher.ok("rm", f"{name}:0.1.0")
    assert f"Forgot {name}:0.1.0 too, the same cube (packed here)" in told
    assert publisher.json("ls")["cubes"] == []
    assert publisher.json("prune")["removedBlobs"] > 0
    blobs = (publisher.home / "store" / "blobs").rglob("*")
    assert [path for path in blobs if path.is_file()] == []


def test_a_verdict_stands_in_columns(cube: tuple[Path, str], publisher: Machine) -> None:
    folder, name = cube
    publisher.ok("push", folder)
    rows = publisher.ok("verify", name).splitlines()[:-1]
    ends = {len(row) - len(row.split(None, 2)[2]) for row in rows}
    assert len(ends) == 1, rows
