"""The pure parts of the Hub as a remote: addresses, tokens, tags, places of files, the README."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from memcube.hub import card, tags
from memcube.hub.additions import StoredFile
from memcube.hub.layout import Catalogue, blob_path, file_path, is_commit, places_of
from memcube.hub.site import Site, repository_of, written
from memcube.settings import Settings
from memcube_protocol import media_types, oci
from memcube_protocol.config import CubeConfig, Memory
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidSettingError
from memcube_protocol.governance import Descriptive, Governance
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import tag_order

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = CubeConfig("ada/notes", "1.0.0", WHEN)


def site_of(tmp_path: Path, **variables: str) -> Site:
    return Site.of(
        Settings.load({"MEMCUBE_HOME": str(tmp_path), "HF_HOME": str(tmp_path), **variables})
    )


def file(path: str, media_type: str, memory: str = "cube", content: bytes = b"x") -> CubeFile:
    return CubeFile(path, media_type, Digest.of(path.encode() + content), 1, memory)


class TestSite:
    def test_the_hub_is_where_its_clients_look_for_it(self, tmp_path: Path) -> None:
        assert site_of(tmp_path).endpoint.url == "https://huggingface.co"
        assert site_of(tmp_path, HF_ENDPOINT="https://Mirror.example/").api("a/b") == (
            "https://mirror.example/api/models/a/b"
        )

    def test_a_token_is_taken_from_the_variable_then_from_the_file(self, tmp_path: Path) -> None:
        assert site_of(tmp_path).authorization is None
        (tmp_path / "token").write_text("hf_file\n")
        assert site_of(tmp_path).authorization == "Bearer hf_file"
        assert site_of(tmp_path, HF_TOKEN="hf_x").authorization == "Bearer hf_x"
        (tmp_path / "other").write_text("hf_other")
        other = site_of(tmp_path, HF_TOKEN_PATH=str(tmp_path / "other"))
        assert other.token == "hf_other"
        assert "hf_other" not in repr(other)

    @pytest.mark.parametrize("token", ["hf_x\r\nHost: evil", "hf_ä"])
    def test_a_token_that_is_none_is_refused(self, tmp_path: Path, token: str) -> None:
        with pytest.raises(InvalidSettingError):
            site_of(tmp_path, HF_TOKEN=token)

    def test_plain_http_is_for_this_machine_and_listed_hosts(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidSettingError):
            site_of(tmp_path, HF_ENDPOINT="http://hub.example")
        listed = {"HF_ENDPOINT": "http://hub.example", "MEMCUBE_INSECURE": "hub.example"}
        assert site_of(tmp_path, **listed).endpoint.scheme == "http"

    def test_models_and_datasets_have_their_own_addresses(self, tmp_path: Path) -> None:
        site, commit = site_of(tmp_path), "a" * 40
        assert site.api("o/datasets/n") == "https://huggingface.co/api/datasets/o/n"
        assert site.file("o/n", commit, "a b/ü#?.md") == (
            f"https://huggingface.co/o/n/resolve/{commit}/a%20b/%C3%BC%23%3F.md"
        )
        assert site.page("o/datasets/n") == "https://huggingface.co/datasets/o/n"
        assert repository_of("o/datasets") == ("model", "o/datasets")
        assert [written(name) for name in ("o/n", "o/datasets/n")] == [
            "hf://o/n",
            "hf://datasets/o/n",
        ]


class TestTags:
    RELEASED = ("1.4.0", "1.10.0", "1.9.3", "2.0.0-rc.1", "0.9.0", "stable", "v3")

    @pytest.mark.parametrize(
        ("tag", "leads_to"),
        [
            ("latest", "1.10.0"),
            ("1", "1.10.0"),
            ("1.9", "1.9.3"),
            ("0", "0.9.0"),
            ("2", None),
            ("1.4.0", None),
            ("stable", None),
            ("01", None),
        ],
    )
    def test_a_partial_version_leads_to_its_highest_release(
        self, tag: str, leads_to: str | None
    ) -> None:
        assert tags.following(tag, self.RELEASED) == leads_to

    def test_full_versions_and_words_are_kept_as_they_are(self) -> None:
        assert [
            tag
            for tag in ("latest", "1", "1.4", "1.4.0", "stable", "1.4.0.1", "v1")
            if tags.is_derived(tag)
        ] == ["latest", "1", "1.4"]

    def test_versions_sort_from_the_lowest_to_the_highest_before_other_tags(self) -> None:
        assert sorted(self.RELEASED, key=tag_order) == [
            "0.9.0",
            "1.4.0",
            "1.9.3",
            "1.10.0",
            "2.0.0-rc.1",
            "stable",
            "v3",
        ]


class TestLayout:
    def test_files_lie_at_their_paths_and_the_card_under_its_digest(self) -> None:
        picture = file("attachments/a.png", media_types.ATTACHMENT)
        for name in ("README.md", "readme.md", "ReadMe.MD"):
            own = file(name, media_types.CARD)
            cube = Cube.write(CONFIG, (own, picture))
            places = places_of(cube.manifest)
            assert places[picture.digest] == "attachments/a.png"
            assert places[own.digest] == blob_path(own.digest)
            assert places[cube.manifest.config.digest] == ".memcube/config.json"
        assert file_path(picture.descriptor()) == "attachments/a.png"

    def test_what_is_attached_lies_under_its_digest(self) -> None:
        layer = Descriptor.of("text/plain", b"x")
        subject = Descriptor.of(media_types.OCI_MANIFEST, b"y")
        note = oci.write_manifest(
            artifact_type="a/b", config=oci.EMPTY, layers=[layer], subject=subject
        )
        assert places_of(note)[layer.digest] == f".memcube/blobs/sha256/{layer.digest.hex}"

    def test_the_catalogue_tells_releases_and_what_is_attached_to_each(self) -> None:
        cube = Cube.write(CONFIG, ()).manifest
        note = oci.write_manifest(
            artifact_type="a/b",
            config=oci.EMPTY,
            layers=(),
            subject=cube.descriptor(),
            annotations={"k": "v"},
        )
        made = Catalogue().with_release(cube, "1.0.0").with_attached([note, note])
        read = oci.parse(made.with_release(cube, "1.0.0").write())
        assert isinstance(read, oci.Index)
        again = Catalogue.of(read)
        assert again == made
        assert again.tag_of(cube.digest) == "1.0.0"
        assert again.tag_of(note.digest) is None
        (entry,) = again.attached_to(cube.digest)
        assert (entry.digest, entry.artifact_type, entry.annotations) == (
            note.digest,
            "a/b",
            {"k": "v"},
        )

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("a" * 40, True), ("A" * 40, False), ("a" * 39, False), ("main", False)],
    )
    def test_a_commit_is_forty_hexadecimal_digits(self, text: str, expected: bool) -> None:
        assert is_commit(text) is expected


class TestCard:
    def shown(self, own: str = "", **changes: Any) -> tuple[dict[str, Any], str]:
        cube = Cube.write(replace(CONFIG, **changes), ())
        _, block, body = card.readme(cube, own, "hf://ada/notes").decode().split("---\n", 2)
        return yaml.safe_load(block), body

    @pytest.mark.parametrize(
        ("licence", "expected"),
        [
            ("Apache-2.0", {"license": "apache-2.0"}),
            ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
            ("ODbL-1.0", {"license": "odbl"}),
            ("NOASSERTION", {}),
            ("Zend-2.0", {"license": "other", "license_name": "zend-2.0"}),
        ],
    )
    def test_a_licence_is_named_as_the_hub_names_it(
        self, licence: str, expected: dict[str, str]
    ) -> None:
        told, _ = self.shown(governance=Governance(licence=licence))
        assert {key: value for key, value in told.items() if key.startswith("license")} == expected

    def test_a_licence_of_ones_own_keeps_its_address(self) -> None:
        own = Governance(licence="LicenseRef-Ours", licence_url="https://example.org/l")
        told, _ = self.shown(governance=own)
        assert told["license_link"] == "https://example.org/l"
        assert told["license"] == "other"

    def test_languages_are_given_without_regions(self) -> None:
        told, _ = self.shown(descriptive=Descriptive(languages=("en-GB", "en-US", "DE")))
        assert told["language"] == ["de", "en"]

    def test_a_base_model_that_is_a_path_is_not_told(self) -> None:
        memories = tuple(
            Memory(name, "parametric", (), compatibility={"base": {"model": base}})
            for name, base in (("a", "acme/base"), ("b", "/home/ada/base"), ("c", "acme/base"))
        )
        cube = Cube.write(CONFIG, ())
        told = card.metadata(replace(cube, config=replace(CONFIG, memories=memories)))
        assert told["base_model"] == "acme/base"
        assert told["library_name"] == "peft"

    @pytest.mark.parametrize(
        "own", ["---\nlicense: evil\n---\n# Mine", "---\r\na: b\r\n---\r\n# Mine", "# Mine"]
    )
    def test_the_cards_own_metadata_gives_way(self, own: str) -> None:
        told, body = self.shown(own)
        assert "license" not in told
        assert body.startswith("# Mine")

    def test_a_cube_without_a_card_shows_its_title_and_summary(self) -> None:
        _, body = self.shown(title="Notes", summary="What we learned.")
        assert body.startswith("# Notes\n\nWhat we learned.\n")


class TestStoredFile:
    def test_it_is_read_again_after_its_file_was_released(self, tmp_path: Path) -> None:
        (tmp_path / "blob").write_bytes(b"memory")
        read: list[int] = []
        stored = StoredFile(tmp_path / "blob", read.append)
        for _ in range(2):
            assert (stored.read(3), stored.tell()) == (b"mem", 3)
            stored.release()
        assert (stored.tell(), read) == (0, [3]), "bytes count once, however often they are read"
        stored.close()
