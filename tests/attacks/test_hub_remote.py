"""A hostile Hub, a hostile repository on an honest one, and hostile cubes on their way there."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Person, fresh
from hypothesis import given
from hypothesis import strategies as st
from memcube.hub import card
from memcube.hub.failures import failure_of
from memcube.hub.site import Site
from memcube.settings import Endpoint
from memcube_protocol import oci
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.outcomes import (
    EXIT_INTEGRITY,
    EXIT_INVALID,
    EXIT_LIMIT,
    EXIT_NETWORK,
    EXIT_NOT_FOUND,
    EXIT_TRUST,
)
from support.hub import HubServer, Seen
from support.hub_machine import machine_of, tolerant, write_notes
from support.hub_repositories import Repository, lfs_file
from support.machine import Machine
from support.repository import IMAGE
from support.samples import to_json
from support.scripted import Answer, scripted

pytestmark = tolerant
NOTES = "hf://Org/Notes"


@pytest.fixture
def notes(hub: HubServer, hub_publisher: Machine, tmp_path: Path) -> Repository:
    """A public cube with an attachment."""
    folder = write_notes(tmp_path / "notes", "1.0.0")
    (folder / "attachments").mkdir()
    (folder / "attachments" / "plan.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(70_000))
    hub_publisher.ok("push", folder, NOTES, "--public")
    return hub.state.of("model", "Org/Notes")


def put(repository: Repository, path: str, content: bytes, *, tag: str = "1.0.0") -> None:
    """Somebody with the right to write changes one file, and the tag with it."""
    files = {**repository.head.files, path: repository.regular(content)}
    repository.tags[tag] = repository.add("changed by hand", files).oid


def nothing_is_kept(machine: Machine) -> bool:
    return machine.json("ls")["cubes"] == []


class TestTheToken:
    def test_goes_to_the_hub_and_never_to_its_storage(
        self, hub: HubServer, hub_publisher: Machine, notes: Repository, tmp_path: Path
    ) -> None:
        hub.state.part_bytes = 1 << 20
        folder = write_notes(tmp_path / "notes", "1.1.0")
        (folder / "attachments" / "big.png").write_bytes(secrets.token_bytes(3 << 20))
        hub_publisher.ok("push", folder, NOTES)
        fresh_home = machine_of(hub, tmp_path / "other", hub_publisher.more["HF_TOKEN"])
        fresh_home.ok("pull", NOTES)
        methods = {seen.method for seen in hub.seen if seen.site == "storage"}
        assert methods == {"GET", "PUT"}
        assert hub.tokens_sent("storage") == set()
        assert hub.tokens_sent("hub") == {f"Bearer {hub_publisher.more['HF_TOKEN']}"}

    def test_stands_in_no_error_and_no_signed_address_does(self) -> None:
        site = Site(Endpoint("https", "hub.example"), "hf_token")
        words = "403 for https://cdn.example/x?X-Amz-Signature=abcd, asked with hf_token"
        error = failure_of(OSError(words), site, "Org/Notes")
        assert "403 for https://cdn.example/x" in str(error)
        assert "abcd" not in str(error)
        assert "hf_token" not in str(error)

    @pytest.mark.parametrize("what", ["refs", "resolve"])
    def test_does_not_follow_a_redirect_to_somebody_else(
        self, hub: HubServer, notes: Repository, tmp_path: Path, what: str
    ) -> None:
        reader = machine_of(hub, tmp_path / "m", hub.state.token("max"))
        with scripted(lambda request: Answer(404)) as thief:
            away = Answer(302, {"Location": f"{thief.url}/stolen"})
            hub.script = lambda seen: away if f"/{what}" in seen.path else None
            assert reader.run("pull", NOTES).returncode != 0
            assert thief.received, "it was led there"
            assert all("authorization" not in one.headers for one in thief.received)

    def test_is_not_asked_for_by_the_storage(
        self, hub: HubServer, notes: Repository, tmp_path: Path
    ) -> None:
        reader = machine_of(hub, tmp_path / "m", hub.state.token("max"))
        challenge = {"WWW-Authenticate": f'Bearer realm="{hub.storage_url}/token"'}
        hub.script = lambda seen: Answer(401, challenge) if seen.site == "storage" else None
        assert reader.run("pull", NOTES).returncode != 0
        assert hub.tokens_sent("storage") == set()
        assert not [line for line in hub.lines() if "/token" in line]

    def test_shows_in_no_output(
        self, hub: HubServer, hub_publisher: Machine, tmp_path: Path
    ) -> None:
        token = hub_publisher.more["HF_TOKEN"]
        for status in (401, 403, 500):
            hub.script = lambda seen, status=status: (
                Answer(status, body=token.encode()) if "create" in seen.path else None
            )
            done = hub_publisher.run("push", write_notes(tmp_path / "x", "1.0.0"), NOTES)
            assert done.returncode != 0
            assert token not in done.stdout + done.stderr


class TestFilesOfARepository:
    def test_other_bytes_at_a_files_place_are_refused_and_not_kept(
        self, hub: HubServer, hub_reader: Machine, notes: Repository
    ) -> None:
        path = "attachments/plan.png"
        size = notes.head.files[path].size
        other = b"\x89PNG\r\n\x1a\n" + b"x" * (size - 8)
        oid = Digest.of(other).hex
        hub.state.path_of(oid).write_bytes(other)
        files = {**notes.head.files, path: lfs_file(oid, size)}
        notes.tags["1.0.0"] = notes.add("swapped", files).oid
        hub_reader.fails(EXIT_INTEGRITY, "pull", NOTES)
        assert nothing_is_kept(hub_reader)

    @pytest.mark.parametrize("change", [-1, 1])
    def test_a_file_of_another_length_is_refused(
        self, hub: HubServer, hub_reader: Machine, notes: Repository, change: int
    ) -> None:
        place = hub.state.path_of(notes.head.files["attachments/plan.png"].lfs or "")
        content = place.read_bytes()
        place.write_bytes(content[:-1] if change < 0 else content + b"x")
        hub_reader.fails(EXIT_INTEGRITY, "pull", NOTES)
        assert nothing_is_kept(hub_reader)

    def test_a_pointer_in_the_place_of_what_it_points_to_is_refused(
        self, hub_reader: Machine, notes: Repository
    ) -> None:
        path = "attachments/plan.png"
        put(notes, path, notes.head.files[path].pointer)
        hub_reader.fails(EXIT_INTEGRITY, "pull", NOTES)

    @pytest.mark.parametrize(
        "path",
        [
            "../../../outside.png",
            "/etc/outside.png",
            "a/../../outside.png",
            ".memcube/x.png",
            "a\\b.png",
            "CON.png",
            "a/\u202egnp.png",
        ],
    )
    def test_a_manifest_whose_paths_lead_elsewhere_is_refused_before_anything_is_fetched(
        self, hub: HubServer, hub_reader: Machine, notes: Repository, path: str
    ) -> None:
        def rename(layer: dict[str, Any]) -> None:
            layer["annotations"]["org.opencontainers.image.title"] = path
            layer["annotations"]["org.cncf.model.filepath"] = path

        put(notes, ".memcube/manifest.json", changed_manifest(hub, notes, rename))
        hub.seen.clear()
        hub_reader.fails(EXIT_INVALID, "pull", NOTES)
        assert not [seen for seen in hub.seen if seen.site == "storage" or "outside" in seen.path]

    def test_names_that_differ_in_case_only_are_refused(
        self, hub: HubServer, hub_reader: Machine, notes: Repository
    ) -> None:
        def rename(layer: dict[str, Any]) -> None:
            layer["annotations"]["org.opencontainers.image.title"] = "ATTACHMENTS/plan.png"
            layer["annotations"]["org.cncf.model.filepath"] = "ATTACHMENTS/plan.png"

        raw = json.loads(changed_manifest(hub, notes, lambda layer: None))
        last = json.loads(changed_manifest(hub, notes, rename))["layers"][-1]
        raw["layers"].append(last)
        put(notes, ".memcube/manifest.json", to_json(raw))
        assert hub_reader.run("pull", NOTES).returncode in (EXIT_INVALID, EXIT_TRUST)
        assert nothing_is_kept(hub_reader)

    def test_another_manifest_under_the_same_tag_is_no_release(
        self, hub: HubServer, hub_reader: Machine, notes: Repository
    ) -> None:
        def retitle(layer: dict[str, Any]) -> None:
            layer["annotations"]["org.memcube.note"] = "changed"

        put(notes, ".memcube/manifest.json", changed_manifest(hub, notes, retitle))
        hub_reader.fails(EXIT_TRUST, "pull", NOTES)

    def test_a_cube_of_somebody_else_in_its_place_is_an_alarm(
        self, hub: HubServer, hub_reader: Machine, notes: Repository, tmp_path: Path
    ) -> None:
        hub_reader.ok("pull", NOTES)
        del hub.state.repositories["model", "Org/Notes"]
        thief = machine_of(hub, tmp_path / "t", hub.state.token("eve", organisations=("Org",)))
        thief.ok("push", write_notes(tmp_path / "evil", "1.1.0", "evil"), NOTES, "--public")
        hub_reader.fails(EXIT_TRUST, "pull", NOTES)


def changed_manifest(
    hub: HubServer, repository: Repository, change: Callable[[dict[str, Any]], None]
) -> bytes:
    """The cube's manifest with its last layer changed."""
    raw = hub.state.content(repository, repository.head.files[".memcube/manifest.json"])
    value = json.loads(raw)
    change(value["layers"][-1])
    return to_json(value)


class TestNames:
    def test_a_name_in_other_capitals_is_the_same_name(
        self, hub: HubServer, hub_reader: Machine, notes: Repository, tmp_path: Path
    ) -> None:
        hub_reader.ok("pull", NOTES)
        eve = machine_of(hub, tmp_path / "e", hub.state.token("eve", organisations=("org",)))
        eve.ok(
            "push", write_notes(tmp_path / "evil", "1.1.0", "evil"), "hf://org/notes", "--public"
        )
        hub_reader.fails(EXIT_TRUST, "pull", "hf://org/notes")

    @pytest.mark.parametrize("name", [NOTES, "huggingface.co/Org/Notes"])
    def test_no_spelling_of_a_name_is_outside_of_its_policy(
        self, hub_reader: Machine, notes: Repository, name: str
    ) -> None:
        hub_reader.home.mkdir(exist_ok=True)
        scope = '[scopes."huggingface.co/org/**"]\nmedia_types = ["application/vnd.memcube.card.v1+markdown"]'
        (hub_reader.home / "memcube-trust.toml").write_text(f"format = 1\n{scope}\n")
        hub_reader.fails(EXIT_TRUST, "pull", name)


class TestMovingTargets:
    def test_a_pull_stays_at_the_commit_that_it_began_with(
        self,
        hub: HubServer,
        hub_publisher: Machine,
        hub_reader: Machine,
        notes: Repository,
        tmp_path: Path,
    ) -> None:
        first, later = notes.head.oid, write_notes(tmp_path / "later", "1.1.0", "later")
        waiting = [later]

        def meanwhile(seen: Seen) -> Answer | None:
            if (
                seen.path.endswith("/.memcube/config.json")
                and "authorization" not in seen.headers
                and waiting
            ):
                hub_publisher.ok("push", waiting.pop(), NOTES)
            return None

        hub.script = meanwhile
        hub_reader.ok("pull", NOTES)
        assert notes.head.oid != first
        content = [
            seen.path
            for seen in hub.seen
            if "/resolve/" in seen.path
            and "authorization" not in seen.headers
            and ".memcube/" not in seen.path
        ]
        assert content
        assert all(f"/resolve/{first}/" in path for path in content)

    def test_a_repository_that_leads_to_another_name_is_not_followed(
        self, hub: HubServer, hub_reader: Machine, notes: Repository
    ) -> None:
        moved = Answer(307, {"Location": "/api/models/Org/Notes/refs"})
        hub.script = lambda seen: moved if "/Old/Notes/" in seen.path else None
        told = hub_reader.fails(EXIT_NOT_FOUND, "pull", "hf://Old/Notes")
        assert "exactly this name" in told


class TestAnswers:
    @pytest.mark.parametrize(
        "body",
        [
            b"[]",
            b"{}",
            b'{"branches":[{"name":"main","targetCommit":"../../x"}],"tags":[]}',
            b'{"branches":[{"name":"main","targetCommit":"' + b"A" * 40 + b'"}],"tags":[]}',
            b'{"branches":[{"name":"main","targetCommit":7}],"tags":[]}',
            b'{"branches":{"name":1},"tags":null}',
            b"not json",
        ],
    )
    def test_branches_and_tags_that_make_no_sense_are_refused(
        self, hub: HubServer, hub_reader: Machine, notes: Repository, body: bytes
    ) -> None:
        hub.script = lambda seen: Answer(200, {}, body) if seen.path.endswith("/refs") else None
        hub_reader.fails(EXIT_NETWORK, "pull", NOTES)

    @pytest.mark.parametrize(
        "path", ["/refs", ".memcube/manifest.json", ".memcube/index.json", ".memcube/config.json"]
    )
    def test_an_answer_without_end_is_cut_off(
        self, hub: HubServer, hub_reader: Machine, notes: Repository, path: str
    ) -> None:
        huge = Answer(200, {}, b" " * (17 << 20))
        hub.script = lambda seen: huge if seen.path.endswith(path) else None
        done = hub_reader.run("pull", NOTES)
        assert done.returncode in (EXIT_LIMIT, EXIT_INTEGRITY)
        assert nothing_is_kept(hub_reader)

    def test_a_file_that_the_hub_offers_through_xet_is_fetched_without(
        self, hub: HubServer, hub_reader: Machine, notes: Repository
    ) -> None:
        with scripted(lambda request: Answer(404)) as trap:
            plain = hub.script

            def offer(seen: Seen) -> Answer | None:
                if "/resolve/" not in seen.path or "plan.png" not in seen.path:
                    return plain(seen)
                oid = notes.head.files["attachments/plan.png"].lfs
                signature = hub.state.signature("GET", f"/lfs/{oid}")
                location = f"{hub.storage_url}/lfs/{oid}?signature={signature}"
                return Answer(
                    302,
                    {
                        "Location": location,
                        "X-Xet-Hash": "a" * 64,
                        "Link": f'<{trap.url}/t>; rel="xet-auth"',
                    },
                )

            hub.script = offer
            hub_reader.ok("pull", NOTES)
            assert trap.received == []


class TestTheCatalogue:
    def entries(self, hub: HubServer, notes: Repository) -> list[dict[str, Any]]:
        raw = hub.state.content(notes, notes.head.files[".memcube/index.json"])
        found: list[dict[str, Any]] = json.loads(raw)["manifests"]
        return found

    def write(self, notes: Repository, entries: list[dict[str, Any]]) -> None:
        value = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        }
        put(notes, ".memcube/index.json", to_json(value))

    def test_a_cube_whose_statements_were_taken_away_is_not_trusted(
        self, hub: HubServer, hub_reader: Machine, notes: Repository
    ) -> None:
        self.write(notes, [])
        hub_reader.fails(EXIT_TRUST, "pull", NOTES)

    def test_a_release_of_another_cube_proves_nothing(
        self,
        hub: HubServer,
        hub_publisher: Machine,
        hub_reader: Machine,
        notes: Repository,
        tmp_path: Path,
    ) -> None:
        hub_publisher.ok("push", write_notes(tmp_path / "b", "1.1.0", "other"), NOTES)
        old, new = (notes.commits[notes.tags[tag]] for tag in ("1.0.0", "1.1.0"))
        subject = str(Digest.of(hub.state.content(notes, old.files[".memcube/manifest.json"])))
        current = str(Digest.of(hub.state.content(notes, new.files[".memcube/manifest.json"])))
        kept = [
            one
            for one in self.entries(hub, notes)
            if one["annotations"].get("org.memcube.subject") == subject
        ]
        for one in kept:
            one["annotations"]["org.memcube.subject"] = current
        self.write(notes, kept)
        notes.tags["1.1.0"] = notes.head.oid
        hub_reader.fails(EXIT_TRUST, "pull", f"{NOTES}:1.1.0")

    def test_a_digest_that_it_names_and_the_commit_has_not_is_not_found(
        self, hub: HubServer, hub_reader: Machine, notes: Repository
    ) -> None:
        absent = "sha256:" + "d" * 64
        entry = {
            "mediaType": IMAGE,
            "digest": absent,
            "size": 3,
            "annotations": {"org.opencontainers.image.ref.name": "1.0.0"},
        }
        self.write(notes, [*self.entries(hub, notes), entry])
        hub_reader.fails(EXIT_NOT_FOUND, "pull", f"{NOTES}@{absent}")

    def test_a_withdrawal_that_was_taken_away_is_remembered(
        self, hub: HubServer, hub_publisher: Machine, hub_reader: Machine, notes: Repository
    ) -> None:
        before = self.entries(hub, notes)
        hub_publisher.ok("yank", NOTES, "--reason", "compromised")
        hub_reader.fails(EXIT_TRUST, "pull", NOTES)
        self.write(notes, before)
        hub_reader.fails(EXIT_TRUST, "pull", NOTES)


class TestOnTheWayThere:
    def test_a_copy_takes_nothing_along_that_only_the_copier_holds(
        self, ada: Person, hub: HubServer, tmp_path: Path
    ) -> None:
        secret, name = b"what only ada's machine holds", f"{ada.name}/{fresh('bait')}"
        one = machine_of(hub, tmp_path / "one", hub.state.token("ada"), ada.server.url)
        one.token = ada.token
        one.ok("push", write_notes(tmp_path / "n", "1.0.0"), name, "--public")
        attach_foreign(ada, name, secret)
        with one.client() as client:
            client.context.store.blobs.add(secret)
        assert one.run("cp", f"{name}:1.0.0", "hf://ada/copy").returncode != 0
        for made in hub.state.repositories.values():
            assert Digest.of(secret).hex not in made.lfs
            assert secret not in made.contents.values()

    @given(st.text(min_size=1, max_size=60), st.text(max_size=200))
    def test_no_text_of_a_cube_becomes_metadata_of_its_card(self, title: str, own: str) -> None:
        cube = cube_with(title)
        if cube is None:
            return
        shown = card.readme(cube, own, "hf://ada/notes").decode("utf-8", "replace")
        _, block, _ = shown.split("---\n", 2)
        found = yaml.safe_load(block)
        assert found == {"tags": ["memcube"], "pretty_name": title}


def cube_with(title: str) -> Cube | None:
    """A cube of that title; nothing where no cube may be called so."""
    from datetime import UTC, datetime

    from memcube_protocol.config import CubeConfig
    from memcube_protocol.errors import MemcubeError

    try:
        when = datetime(2026, 1, 1, tzinfo=UTC)
        return Cube.write(CubeConfig("ada/notes", "1.0.0", when, title=title), ())
    except MemcubeError:
        return None


def attach_foreign(ada: Person, name: str, secret: bytes) -> None:
    """A referrer of the cube that names content which its repository does not hold."""
    repository = ada.repository(name.partition("/")[2])
    subject = repository.get_manifest("1.0.0").body
    value = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": "application/vnd.x",
        "config": oci.EMPTY.to_json(),
        "layers": [
            {
                "mediaType": "application/vnd.foreign.x",
                "digest": str(Digest.of(secret)),
                "size": len(secret),
            }
        ],
        "subject": {"mediaType": IMAGE, "digest": str(Digest.of(subject)), "size": len(subject)},
    }
    raw = json.dumps(value).encode()
    repository.add_blob(b"{}")
    assert repository.put_manifest(Digest.of(raw), raw).status == 201
