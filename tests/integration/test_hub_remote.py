"""Cubes on the Hub: pushed, pulled, tagged and copied; through the test server."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.hub import library, posting
from memcube_protocol.outcomes import (
    EXIT_AUTH,
    EXIT_CONFLICT,
    EXIT_ERROR,
    EXIT_NETWORK,
    EXIT_NOT_FOUND,
    EXIT_TRUST,
)
from support.hub import HubServer, Seen
from support.hub_machine import machine_of, tolerant, without_library, write_notes
from support.hub_repositories import Repository
from support.machine import Machine
from support.scripted import Answer

pytestmark = tolerant
NOTES = "hf://Org/Notes"


def repository(hub: HubServer, name: str = "Org/Notes", kind: str = "model") -> Repository:
    return hub.state.of(kind, name)


def sent_files(hub: HubServer) -> int:
    """How many files came to the storage."""
    return len([seen for seen in hub.seen if (seen.site, seen.method) == ("storage", "PUT")])


class TestPublishing:
    @pytest.mark.parametrize("place", [NOTES, "hf://datasets/ada/notes"])
    def test_a_cube_goes_to_the_hub_and_comes_back_verified(
        self, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path, place: str
    ) -> None:
        card = "# Notes\n\nWhat we learned.\n"
        folder = write_notes(tmp_path / "notes", "1.0.0", card=card)
        pushed = hub_publisher.json("push", folder, place, "--public")
        assert hub_reader.json("pull", place)["digest"] == pushed["digest"]
        hub_reader.ok("unpack", place, tmp_path / "out")
        assert (tmp_path / "out" / "README.md").read_text() == card
        assert "huggingface.co/" in hub_reader.ok("ls")
        told = hub_reader.json("verify", place)
        kinds = {one["predicateType"] for one in told["statements"] if one["verified"]}
        assert "https://memcube.org/release/v1" in kinds
        assert "https://memcube.org/scan/v1" in kinds

    def test_a_plain_publication_loads_no_library_and_another_one_does(
        self,
        hub: HubServer,
        hub_publisher: Machine,
        hub_reader: Machine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refused(seen: Seen) -> Answer | None:
            own = seen.headers.get("user-agent", "").startswith("memcube/")
            return Answer(400) if own and seen.method == "POST" else None

        loaded, load = list[str](), library._api_class
        monkeypatch.setattr(library, "_api_class", lambda: loaded.append("") or load())
        folder = write_notes(tmp_path / "notes", "1.0.0")
        hub_publisher.ok("push", folder, NOTES)
        assert not loaded
        hub.script = refused
        hub_publisher.ok("push", folder, "hf://ada/notes", "--public")
        assert loaded
        plain, other = (
            {path for path in repository(hub, name).head.files if "/blobs/" not in path}
            for name in ("Org/Notes", "ada/notes")
        )
        assert plain == other
        hub_reader.ok("pull", "hf://ada/notes")

    def test_how_statements_are_wanted_is_asked_with_the_commit(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "notes", "1.0.0"), NOTES)
        # The records are asked about when they are sent.
        assert sum("/preupload/" in seen.path for seen in hub.seen) == 2

    def test_statements_that_the_hub_wants_in_lfs_are_sent_there(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        hub.state.lfs_from_bytes = 200
        folder = write_notes(tmp_path / "notes", "1.0.0")
        pushed = hub_publisher.json("push", folder, NOTES, "--public")
        files = repository(hub).head.files
        assert any(file.lfs for path, file in files.items() if "/blobs/" in path)
        assert hub_reader.json("pull", NOTES)["digest"] == pushed["digest"]

    def test_a_publication_is_one_commit_with_its_tag(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "notes", "1.0.0"), NOTES)
        made = repository(hub)
        assert len(made.commits) == 2, "the Hub's own first one, and ours"
        assert made.tags == {"1.0.0": made.branches["main"]}
        assert made.private, "until it is made public"
        assert made.head.title == "Release 1.0.0"

    def test_the_same_again_changes_nothing(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0")
        first = hub_publisher.json("push", folder, NOTES)
        commits = dict(repository(hub).commits)
        assert hub_publisher.json("push", folder, NOTES)["digest"] == first["digest"]
        assert repository(hub).commits == commits

    def test_of_a_new_version_only_what_changed_is_sent(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0")
        (folder / "attachments").mkdir()
        (folder / "attachments" / "plan.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50_000))
        (folder / "attachments" / "old.txt").write_text("gone soon")
        first = hub_publisher.json("push", folder, NOTES, "--public")
        hub.seen.clear()
        (folder / "attachments" / "old.txt").unlink()
        write_notes(folder, "1.1.0", "Backups run at three.")
        second = hub_publisher.json("push", folder, NOTES)
        assert sent_files(hub) == 1, "the shard of records, not the picture"
        assert "attachments/old.txt" not in repository(hub).head.files
        assert len(repository(hub).commits) == 3
        assert hub_reader.json("pull", f"{NOTES}:1.0.0")["digest"] == first["digest"]
        for tag in ("1.1.0", "1.1", "1", "latest", "main"):
            assert hub_reader.json("pull", f"{NOTES}:{tag}")["digest"] == second["digest"]
        by_commit = f"{NOTES}@{repository(hub).tags['1.0.0']}"
        assert hub_reader.json("inspect", by_commit)["digest"] == first["digest"]
        by_digest = f"{NOTES}@{first['digest']}"
        assert hub_reader.json("pull", by_digest)["digest"] == first["digest"]

    def test_of_two_that_publish_at_the_same_time_one_is_refused(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "zero", "1.0.0"), NOTES, "--public")
        key = hub_publisher.home / "keys"
        rival = machine_of(hub, tmp_path / "rival", hub.state.token("bob", organisations=("Org",)))
        rival.home.mkdir()
        (rival.home / "keys").symlink_to(key)
        mine = write_notes(tmp_path / "mine", "1.1.0", "mine")
        theirs = write_notes(tmp_path / "theirs", "1.2.0", "theirs")
        waiting = [theirs]

        def meanwhile(seen: Seen) -> Answer | None:
            if "/commit/main" in seen.path and waiting:
                rival.ok("push", waiting.pop(), NOTES)
            return None

        hub.script = meanwhile
        told = hub_publisher.fails(EXIT_CONFLICT, "push", mine, NOTES)
        assert "somebody else meanwhile" in told
        assert set(repository(hub).tags) == {"1.0.0", "1.2.0"}
        later = hub_publisher.json("push", write_notes(tmp_path / "mine", "1.3.0", "mine"), NOTES)
        assert hub_reader.json("pull", NOTES)["digest"] == later["digest"]

    def test_of_two_first_publications_one_is_refused(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        rival = machine_of(hub, tmp_path / "rival", hub.state.token("bob", organisations=("Org",)))
        waiting = [write_notes(tmp_path / "theirs", "1.0.0", "theirs")]

        def meanwhile(seen: Seen) -> Answer | None:
            if seen.path == "/api/repos/create" and waiting:
                rival.ok("push", waiting.pop(), NOTES, "--public")
            return None

        hub.script = meanwhile
        mine = write_notes(tmp_path / "mine", "1.1.0", "mine")
        assert "somebody else" in hub_publisher.fails(EXIT_CONFLICT, "push", mine, NOTES)
        assert set(repository(hub).tags) == {"1.0.0"}
        assert repository(hub).head.oid == repository(hub).tags["1.0.0"]
        hub_reader.ok("pull", NOTES)

    def test_a_push_that_broke_off_before_its_tag_is_finished_by_the_next(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        hub.script = lambda seen: Answer(403) if "/tag/" in seen.path else None
        folder = write_notes(tmp_path / "notes", "1.0.0")
        assert hub_publisher.run("push", folder, NOTES).returncode != 0
        assert repository(hub).tags == {}
        hub.script = lambda seen: None
        done = hub_publisher.json("push", folder, NOTES, "--public")
        assert repository(hub).tags == {"1.0.0": repository(hub).branches["main"]}
        assert len(repository(hub).commits) == 2
        assert hub_reader.json("pull", f"{NOTES}:1.0.0")["digest"] == done["digest"]

    def test_a_version_never_changes(
        self, hub_publisher: Machine, hub: HubServer, tmp_path: Path
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "a", "1.0.0"), NOTES)
        before = dict(repository(hub).commits)
        other = write_notes(tmp_path / "b", "1.0.0", "other")
        assert "other content" in hub_publisher.fails(EXIT_CONFLICT, "push", other, NOTES)
        older = write_notes(tmp_path / "c", "0.9.0", "older")
        assert "newest release" in hub_publisher.fails(EXIT_CONFLICT, "push", older, NOTES)
        assert repository(hub).commits == before

    def test_what_was_sent_before_a_push_broke_off_is_not_sent_again(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0")
        (folder / "attachments").mkdir()
        (folder / "attachments" / "plan.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(90_000))
        hub.script = lambda seen: Answer(403) if "/commit/main" in seen.path else None
        assert hub_publisher.run("push", folder, NOTES).returncode != 0
        assert sent_files(hub) == 2
        assert ".memcube/manifest.json" not in repository(hub).head.files
        hub.script = lambda seen: None
        hub_publisher.ok("push", folder, NOTES)
        assert sent_files(hub) == 2

    @pytest.mark.parametrize("path", ["attachments/plan.txt", ".memcube/config.json"])
    def test_what_somebody_changed_there_by_hand_is_put_right_by_the_next_release(
        self,
        hub: HubServer,
        hub_publisher: Machine,
        hub_reader: Machine,
        tmp_path: Path,
        path: str,
    ) -> None:
        folder = write_notes(tmp_path / "notes", "1.0.0")
        (folder / "attachments").mkdir()
        (folder / "attachments" / "plan.txt").write_text("The plan.")
        hub_publisher.ok("push", folder, NOTES, "--public")
        there = repository(hub)
        there.add("by hand", {**there.head.files, path: there.regular(b"changed")})
        hub_publisher.ok("push", write_notes(folder, "1.1.0", "other"), NOTES)
        hub_reader.ok("pull", NOTES)

    def test_a_hub_that_says_nothing_is_not_waited_for_without_end(
        self,
        hub: HubServer,
        hub_publisher: Machine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(posting, "PATIENCE_S", 0.5)
        enough = threading.Event()
        hub.script = lambda seen: enough.wait() if "/commit/main" in seen.path else None
        folder = write_notes(tmp_path / "notes", "1.0.0")
        hub_publisher.fails(EXIT_NETWORK, "push", folder, NOTES)
        enough.set()

    def test_a_repository_of_something_else_is_left_alone(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        there = hub.state.create("model", "Org/Notes")
        there.add("mine", {"model.py": there.regular(b"print()")})
        told = hub_publisher.fails(
            EXIT_CONFLICT, "push", write_notes(tmp_path / "notes", "1.0.0"), NOTES
        )
        assert "something else" in told
        assert list(there.head.files) == ["model.py"]

    def test_a_gitignore_in_the_repository_keeps_no_part_of_a_cube_away(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "notes", "1.0.0"), NOTES, "--public")
        there = repository(hub)
        ignoring = there.regular(b"*\n")
        there.add("ignore", {**there.head.files, ".gitignore": ignoring})
        done = hub_publisher.json("push", write_notes(tmp_path / "notes", "1.1.0", "other"), NOTES)
        assert hub_reader.json("pull", NOTES)["digest"] == done["digest"]
        assert ".gitignore" in there.head.files, "files of others stay"


class TestTagsAndStatements:
    def test_a_moving_tag_leads_to_another_version(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        for version in ("1.0.0", "1.1.0"):
            folder = write_notes(tmp_path / version, version, version)
            pushed = hub_publisher.json("push", folder, NOTES, "--public")
            hub_publisher.ok("tag", f"{NOTES}:{version}", "stable")
            assert hub_reader.json("pull", f"{NOTES}:stable")["digest"] == pushed["digest"]
        assert set(repository(hub).tags) == {"1.0.0", "1.1.0", "stable"}

    def test_readers_of_an_older_version_hear_that_it_was_withdrawn(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        for version in ("1.0.0", "1.1.0"):
            folder = write_notes(tmp_path / version, version, version)
            hub_publisher.ok("push", folder, NOTES, "--public")
        tagged = dict(repository(hub).tags)
        hub_publisher.ok("yank", f"{NOTES}:1.0.0", "--reason", "compromised")
        assert repository(hub).tags == tagged, "what is said later lies on main"
        hub_reader.fails(EXIT_TRUST, "pull", f"{NOTES}:1.0.0")
        hub_reader.ok("pull", f"{NOTES}:1.1.0")

    def test_a_statement_goes_behind_whatever_came_meanwhile(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "n", "1.0.0"), NOTES)
        there, waiting = repository(hub), [1, 2]

        def meanwhile(seen: Seen) -> Answer | None:
            if "/commit/main" in seen.path and waiting:
                note = there.regular(b"%d" % waiting.pop())
                there.add("by hand", {**there.head.files, "note.txt": note})
            return None

        hub.script = meanwhile
        hub_publisher.ok("yank", NOTES, "--reason", "compromised")
        assert "note.txt" in there.head.files
        assert there.head.title == "Attach a statement"


class TestPulling:
    def test_a_download_that_breaks_off_goes_on_where_it_stopped(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        folder, content = write_notes(tmp_path / "n", "1.0.0"), random.Random(7).randbytes(500_000)
        (folder / "attachments").mkdir()
        (folder / "attachments" / "plan.png").write_bytes(content)
        hub_publisher.ok("push", folder, NOTES, "--public")
        oid = repository(hub).head.files["attachments/plan.png"].lfs
        hub.seen.clear()
        breaking = [Answer(200, {}, content, break_after=300_000)]

        def once(seen: Seen) -> Answer | None:
            return breaking.pop() if breaking and f"/lfs/{oid}" in seen.path else None

        hub.script = once
        hub_reader.ok("pull", NOTES)
        asked = [seen.headers.get("range") for seen in hub.seen if f"/lfs/{oid}" in seen.path]
        assert asked == [None, "bytes=300000-"]


class TestCopies:
    def test_a_cube_keeps_digest_and_origin_from_a_registry_to_the_hub_and_back(
        self, ada: Person, bob: Person, hub: HubServer, tmp_path: Path
    ) -> None:
        token = hub.state.token("ada")
        source = f"{ada.name}/{fresh('notes')}"
        one = machine_of(hub, tmp_path / "one", token, ada.server.url)
        one.token = ada.token
        pushed = one.json("push", write_notes(tmp_path / "n", "1.0.0"), source, "--public")
        copied = one.json("cp", source, "hf://ada/notes")
        assert copied["digest"] == pushed["digest"]
        hub.state.of("model", "ada/notes").private = False
        other = machine_of(hub, tmp_path / "other", None, bob.server.url)
        other.token = bob.token
        told = other.json("pull", "hf://ada/notes", "--accept-origin", _origin(ada, source))
        assert told["digest"] == pushed["digest"]
        back = f"{bob.name}/{fresh('notes')}"
        assert other.json("cp", "hf://ada/notes", back)["digest"] == pushed["digest"]
        assert len(hub.state.of("model", "ada/notes").commits) == 2

    def test_copying_again_sends_nothing(self, ada: Person, hub: HubServer, tmp_path: Path) -> None:
        source = f"{ada.name}/{fresh('notes')}"
        one = machine_of(hub, tmp_path / "one", hub.state.token("ada"), ada.server.url)
        one.token = ada.token
        one.ok("push", write_notes(tmp_path / "n", "1.0.0"), source, "--public")
        one.ok("cp", source, "hf://ada/notes")
        commits = dict(hub.state.of("model", "ada/notes").commits)
        one.ok("cp", source, "hf://ada/notes")
        assert hub.state.of("model", "ada/notes").commits == commits


def _origin(person: Person, name: str) -> str:
    return f"{person.server.url.partition('://')[2]}/{name}"


class TestWhoMayWhat:
    def test_strangers_do_not_find_a_private_cube(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "n", "1.0.0"), NOTES)
        assert "HF_TOKEN" in hub_reader.fails(EXIT_NOT_FOUND, "pull", NOTES)
        eve = machine_of(hub, tmp_path / "eve", hub.state.token("eve"))
        eve.fails(EXIT_NOT_FOUND, "pull", NOTES)
        member = machine_of(hub, tmp_path / "m", hub.state.token("max", organisations=("Org",)))
        member.ok("pull", NOTES)

    def test_a_gated_cube_names_the_page_where_to_ask(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "n", "1.0.0"), NOTES, "--public")
        repository(hub).gated = True
        assert f"{hub.url}/Org/Notes" in hub_reader.fails(EXIT_AUTH, "pull", NOTES)

    def test_a_token_that_only_reads_publishes_nothing(
        self, hub: HubServer, tmp_path: Path
    ) -> None:
        weak = machine_of(hub, tmp_path / "weak", hub.state.token("ada", role="read"))
        told = weak.fails(EXIT_AUTH, "push", write_notes(tmp_path / "n", "1.0.0"), "hf://ada/notes")
        assert "role" in told
        assert hub.state.repositories == {}

    def test_a_token_that_may_make_no_repository_publishes_in_one_that_exists(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        hub.script = lambda seen: Answer(403) if seen.path == "/api/repos/create" else None
        folder = write_notes(tmp_path / "notes", "1.0.0")
        hub_publisher.fails(EXIT_AUTH, "push", folder, NOTES)
        hub.state.create("model", "Org/Notes")
        hub_publisher.ok("push", folder, NOTES)
        assert set(repository(hub).tags) == {"1.0.0"}

    def test_without_a_token_a_push_says_how_to_log_in(
        self, hub_reader: Machine, tmp_path: Path
    ) -> None:
        told = hub_reader.fails(EXIT_AUTH, "push", write_notes(tmp_path / "n", "1.0.0"), NOTES)
        assert "HF_TOKEN" in told

    def test_the_token_that_hf_keeps_is_used(self, hub: HubServer, tmp_path: Path) -> None:
        machine = machine_of(hub, tmp_path / "m", None)
        (machine.home / "hf").mkdir(parents=True)
        (machine.home / "hf" / "token").write_text(hub.state.token("ada") + "\n")
        machine.ok("push", write_notes(tmp_path / "n", "1.0.0"), "hf://ada/notes")

    def test_what_only_a_registry_can_do_is_refused_by_name(self, hub_publisher: Machine) -> None:
        done = hub_publisher.run("login", "huggingface.co", "--token-stdin", stdin="hf_x\n")
        assert done.returncode == EXIT_ERROR
        assert "is no registry" in done.stderr
        assert "hf auth login" in done.stderr


class TestWithoutTheLibrary:
    def test_pulling_needs_no_library_of_the_hub(
        self,
        hub_publisher: Machine,
        hub_reader: Machine,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "n", "1.0.0"), NOTES, "--public")
        without_library(monkeypatch)
        hub_reader.ok("pull", NOTES)

    def test_pushing_says_what_to_install(
        self, hub_publisher: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_library(monkeypatch)
        done = hub_publisher.run("push", write_notes(tmp_path / "n", "1.0.0"), NOTES)
        assert done.returncode == EXIT_ERROR
        assert "pip install 'memcube[hub]'" in done.stderr


class TestXet:
    def test_a_hub_that_takes_xet_only_is_refused_with_a_way_out(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        hub.state.xet_only = True
        folder = write_notes(tmp_path / "n", "1.0.0")
        told = hub_publisher.fails(EXIT_ERROR, "push", folder, NOTES)
        assert "Xet" in told
        assert "registry" in told
        assert "manifest.json" not in "".join(repository(hub).head.files)
        assert not [line for line in hub.lines() if "xet" in line]

    def test_a_file_that_can_only_be_had_through_xet_is_refused_with_a_way_out(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, tmp_path: Path
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "n", "1.0.0"), NOTES, "--public")
        hub.state.xet_only = True
        told = hub_reader.fails(EXIT_ERROR, "pull", NOTES)
        assert "Xet" in told
        assert "hf download" in told


class TestEndpoints:
    def test_offline_opens_no_connection(self, hub: HubServer, hub_publisher: Machine) -> None:
        hub_publisher.more["MEMCUBE_OFFLINE"] = "1"
        hub_publisher.fails(EXIT_NOT_FOUND, "pull", NOTES)
        assert hub.seen == []

    @pytest.mark.parametrize(
        "address", ["http://hub.example", "hub.example", "https://a/b", "ftp://a"]
    )
    def test_an_address_that_is_no_hubs_or_sends_tokens_unencrypted_is_refused(
        self, hub_publisher: Machine, address: str
    ) -> None:
        hub_publisher.more["HF_ENDPOINT"] = address
        assert "HF_ENDPOINT is refused" in hub_publisher.run("pull", NOTES).stderr

    def test_a_hub_that_is_away_is_a_failure_of_the_network(self, hub_publisher: Machine) -> None:
        hub_publisher.more["HF_ENDPOINT"] = "http://127.0.0.1:9"
        hub_publisher.fails(EXIT_NETWORK, "pull", NOTES)
