"""The overlay: what an agent remembers, in a folder that packs at any moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.plaintext.index import Filters, records_of
from memcube.overlay import Overlay, segments
from memcube.packing.pack import pack_folder
from memcube.store import Store
from memcube_protocol.errors import (
    InvalidConfigError,
    InvalidRecordError,
    LimitExceededError,
    NotFoundError,
    StorageError,
)
from memcube_protocol.records import parse_record
from memcube_protocol.reference import Reference

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    return Overlay.open(tmp_path / "notes", name="ada/notes", agent="assistant", clock=lambda: NOON)


def files_of(overlay: Overlay) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in overlay.folder.glob("plaintext/*")}


def found(overlay: Overlay, query: str, **filters: Any) -> list[str]:
    return [hit.record.text for hit in overlay.search(query, filters=Filters(**filters))]


class TestRemember:
    def test_is_found_at_once_by_every_one_that_has_the_folder_open(self, overlay: Overlay) -> None:
        other = Overlay.open(overlay.folder)
        assert found(other, "Debian") == []
        overlay.remember("The server runs Debian 13.")
        assert found(overlay, "Debian") == found(other, "Debian") == ["The server runs Debian 13."]

    def test_says_who_remembered_when_and_where(self, overlay: Overlay) -> None:
        record = overlay.remember("Ada is vegetarian.", conversation="c-7", type="preference")
        assert record == overlay.read(record.id)
        assert (record.created_at, record.recorded_at) == ("2026-11-27T12:00:00Z",) * 2
        assert record.source is not None
        assert record.source.author == "assistant"
        assert (record.source.system, record.source.method) == ("memcube", "remembered")
        assert record.source.conversation == "c-7"
        assert overlay.remember("x", agent="another").source.author == "another"  # type: ignore[union-attr]

    def test_writes_the_same_memory_once(self, overlay: Overlay) -> None:
        first = overlay.remember("Ada is vegetarian.", tags=["diet"])
        before = files_of(overlay)
        assert overlay.remember("Ada is vegetarian.") == first
        assert files_of(overlay) == before
        assert overlay.remember("Ada is vegetarian.", subject="Ada").id != first.id

    def test_writes_again_what_is_no_longer_valid(self, overlay: Overlay) -> None:
        old = overlay.remember("The door is open.", valid_to="2026-11-27T11:00:00Z")
        assert overlay.remember("The door is open.").id != old.id

    def test_appends_one_canonical_line(self, overlay: Overlay) -> None:
        records = [overlay.remember(f"fact {number}") for number in range(3)]
        (content,) = files_of(overlay).values()
        assert [parse_record(line, canonical=True) for line in content.splitlines()] == records

    def test_begins_another_file_where_one_would_grow_too_large(
        self, overlay: Overlay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(segments, "SEGMENT_BYTES", 700)
        for number in range(4):
            overlay.remember(f"fact {number}: " + "word " * 20)
        assert all(len(content) <= 700 for content in files_of(overlay).values())
        assert [*files_of(overlay)][-1] == "memory-000002.jsonl"
        assert len([*Overlay.open(overlay.folder).records()]) == 4

    @pytest.mark.parametrize("text", ["", " \n", "\ud800"])
    def test_refuses_what_is_no_text(self, overlay: Overlay, text: str) -> None:
        with pytest.raises(InvalidRecordError):
            overlay.remember(text)
        assert files_of(overlay) == {}

    def test_refuses_a_document(self, overlay: Overlay) -> None:
        with pytest.raises(LimitExceededError):
            overlay.remember("x" * (64 * 1024 + 1))

    def test_refuses_more_records_than_memory_is_meant_for(
        self, overlay: Overlay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        overlay.remember("one")
        for limit, value in (("RECORDS", 1), ("BYTES", 100)):
            with monkeypatch.context() as lowered:
                lowered.setattr(f"memcube.overlay.overlay.{limit}", value)
                with pytest.raises(LimitExceededError):
                    overlay.remember("two")
        overlay.remember("two")

    def test_keeps_what_a_person_wrote_without_a_last_newline(self, overlay: Overlay) -> None:
        overlay.remember("by the agent")
        (path,) = overlay.folder.glob("plaintext/*")
        path.write_bytes(path.read_bytes() + b'{"id":"mine","text":"by hand"}')
        overlay.remember("by the agent again")
        assert len([*Overlay.open(overlay.folder).records()]) == 3


class TestReplace:
    def test_takes_the_place_of_the_old_one_in_one_step(self, overlay: Overlay) -> None:
        before, old = overlay.remember("before"), overlay.remember("Ada has a cat.")
        after = overlay.remember("after")
        names = [*files_of(overlay)]
        new = overlay.remember("Ada has two cats.", replaces=old.id)
        assert [*files_of(overlay)] == names
        (content,) = files_of(overlay).values()
        ids = [parse_record(line).id for line in content.splitlines()]
        assert ids == [before.id, new.id, after.id]
        assert found(overlay, "cat cats") == ["Ada has two cats."]
        with pytest.raises(NotFoundError):
            overlay.read(old.id)

    def test_of_what_is_not_there_is_remembering(self, overlay: Overlay) -> None:
        first = overlay.remember("Ada has a cat.", replaces="absent")
        assert overlay.remember("Ada has a cat.", replaces="absent") == first

    def test_by_ever_longer_texts_ends_where_the_folder_could_not_be_read_again(
        self, overlay: Overlay, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = overlay.remember("Ada has a cat.")
        before = files_of(overlay)
        for limit, value in (("overlay.BYTES", 100), ("segments.FILE_BYTES", 1000)):
            with monkeypatch.context() as lowered:
                lowered.setattr(f"memcube.overlay.{limit}", value)
                with pytest.raises(LimitExceededError):
                    overlay.remember("Ada has many cats. " * 100, replaces=old.id)
            assert files_of(overlay) == before
        assert overlay.remember("Ada has many cats. " * 100, replaces=old.id)

    def test_by_the_same_text_takes_the_new_fields(self, overlay: Overlay) -> None:
        old = overlay.remember("Ada has a cat.", tags=["old"])
        new = overlay.remember("Ada has a cat.", tags=["new"], replaces=old.id)
        assert [record.tags for record in overlay.records()] == [new.tags] == [("new",)]


class TestForget:
    def test_takes_the_line_away_and_no_other(self, overlay: Overlay) -> None:
        first, second = overlay.remember("Ada has a cat."), overlay.remember("Ada has a dog.")
        other = Overlay.open(overlay.folder)
        forgotten = overlay.forget(first.id)
        assert forgotten.record == first
        assert [record.id for record in overlay.records()] == [second.id]
        assert found(other, "cat dog") == ["Ada has a dog."]
        assert first.id.encode() not in b"".join(files_of(overlay).values())

    def test_leaves_no_empty_file(self, overlay: Overlay) -> None:
        overlay.forget(overlay.remember("only this").id)
        assert files_of(overlay) == {}

    def test_reaches_files_that_others_wrote(self, overlay: Overlay) -> None:
        path = overlay.folder / "plaintext/records.jsonl"
        path.write_text('\n{"id": "mine", "text": "by hand"}\n\n{"id": "left", "text": "too"}')
        overlay.forget("mine")
        assert path.read_text() == '{"id": "left", "text": "too"}\n'

    def test_knows_no_record_of_another_cube(self, overlay: Overlay) -> None:
        with pytest.raises(NotFoundError):
            overlay.forget("m-1")

    def test_lets_the_same_be_remembered_again(self, overlay: Overlay) -> None:
        first = overlay.remember("Ada has a cat.")
        overlay.forget(first.id)
        assert overlay.remember("Ada has a cat.").id != first.id

    def test_says_which_cubes_hold_it_still(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "store")
        overlay = Overlay.open(tmp_path / "notes", name="ada/notes", store=store)
        kept, later = overlay.remember("Ada has a cat."), None
        packed = pack_folder(overlay.folder, store)
        published = Reference.parse("registry.example/ada/notes:0.1.0")
        store.put_ref(published, packed.cube.digest)
        store.put_ref(Reference.parse("registry.example/bob/other:1.0.0"), packed.cube.digest)
        later = overlay.remember("Ada has a dog.")
        assert overlay.forget(later.id).still_in == ()
        forgotten = overlay.forget(kept.id)
        assert forgotten.still_in == (packed.reference, published)
        assert "still in ada/notes:0.1.0, registry.example/ada/notes:0.1.0" in forgotten.told


class TestSearch:
    def test_leaves_out_what_is_not_valid_or_not_asked_for(self, overlay: Overlay) -> None:
        hour = timedelta(hours=1)
        stamp = "{:%Y-%m-%dT%H:%M:%SZ}".format
        overlay.remember("cat past", valid_to=stamp(NOON - hour))
        overlay.remember("cat future", valid_from=stamp(NOON + hour))
        overlay.remember("cat expired", expires_at=stamp(NOON))
        overlay.remember("cat archived", status="archived")
        overlay.remember("cat secret", sensitivity="restricted")
        overlay.remember("cat now", tags=["pet", "home"], type="event", subject="Ada")
        assert set(found(overlay, "cat", sensitivity="internal")) == {"cat now"}
        assert found(overlay, "cat", tags=("pet",), types=("event",), subject="Ada") == ["cat now"]
        assert found(overlay, "cat", tags=("pet", "work")) == []
        assert {record.text for record in overlay.records()} == {"cat secret", "cat now"}

    def test_finds_by_tags_and_in_chinese(self, overlay: Overlay) -> None:
        overlay.remember("服务器的温度传感器坏了", tags=["sensor"])
        assert found(overlay, "温度") == found(overlay, "sensor") == ["服务器的温度传感器坏了"]

    def test_gives_no_more_than_asked_for(self, overlay: Overlay) -> None:
        for number in range(5):
            overlay.remember(f"cat {number}")
        assert len(overlay.search("cat", 3)) == 3
        assert overlay.search("cat", 0) == overlay.search("", 3) == []


class TestFolder:
    def test_packs_with_every_record_once(self, overlay: Overlay, tmp_path: Path) -> None:
        remembered = {overlay.remember(f"fact {number}").id for number in range(3)}
        store = Store(tmp_path / "store")
        packed = pack_folder(overlay.folder, store)
        assert {record.id for record in records_of(packed.cube.manifest, store)} == remembered
        assert packed.cube.config.name == "ada/notes"
        assert packed.cube.config.governance.sensitivity == "confidential"

    def test_keeps_a_memcube_toml_that_is_there(self, tmp_path: Path) -> None:
        toml = 'name = "ada/old"\nversion = "2.0.0"\n'
        (tmp_path / "memcube.toml").write_text(toml)
        assert Overlay.open(tmp_path, name="ada/new").name == "ada/old"
        assert (tmp_path / "memcube.toml").read_text() == toml

    def test_sees_each_change_though_size_and_time_stay_equal(self, overlay: Overlay) -> None:
        other = Overlay.open(overlay.folder)
        for number in range(20):
            record = overlay.remember(f"fact {number % 10}")
            assert [known.id for known in other.records()] == [record.id]
            overlay.forget(record.id)

    def test_an_id_that_stands_twice_is_an_error_and_what_was_known_stays(
        self, overlay: Overlay
    ) -> None:
        record = overlay.remember("known")
        path = overlay.folder / "plaintext/more.jsonl"
        path.write_text(f'{{"id": "{record.id}", "text": "other"}}\n')
        with pytest.raises(InvalidRecordError, match="twice"):
            overlay.search("known")
        path.unlink()
        assert found(overlay, "known") == ["known"]

    def test_a_broken_line_is_named(self, overlay: Overlay) -> None:
        overlay.remember("known")
        (overlay.folder / "plaintext/hand.jsonl").write_text('{"id": "a", "text": "x"}\n{oops\n')
        with pytest.raises(Exception, match=r"hand\.jsonl, line 2"):
            overlay.search("known")

    def test_a_record_may_move_from_one_file_to_another(self, overlay: Overlay) -> None:
        record = overlay.remember("moved")
        (path,) = overlay.folder.glob("plaintext/*")
        path.rename(path.with_name("renamed.jsonl"))
        assert overlay.read(record.id) == record
        assert found(overlay, "moved") == ["moved"]

    def test_compressed_records_are_refused(self, overlay: Overlay) -> None:
        (overlay.folder / "plaintext/a.jsonl.zst").write_bytes(b"")
        with pytest.raises(InvalidConfigError, match="compressed"):
            overlay.search("x")

    def test_no_link_is_followed(self, tmp_path: Path, overlay: Overlay) -> None:
        outside = tmp_path / "outside.jsonl"
        outside.write_text('{"id": "a", "text": "x"}\n')
        (overlay.folder / "plaintext/link.jsonl").symlink_to(outside)
        with pytest.raises(StorageError):
            overlay.search("x")
        (tmp_path / "alias").symlink_to(overlay.folder)
        with pytest.raises(StorageError):
            Overlay.open(tmp_path / "alias")

    @pytest.mark.parametrize("place", ["", "plaintext", "plaintext/memory-000001.jsonl"])
    def test_what_everybody_can_write_is_no_memory_of_ones_own(
        self, overlay: Overlay, place: str
    ) -> None:
        overlay.remember("Ada is vegetarian.")
        (overlay.folder / place).chmod(0o777)
        with pytest.raises(StorageError, match="written by everybody"):
            Overlay.open(overlay.folder)

    def test_a_pipe_in_the_place_of_records_is_not_waited_for(self, overlay: Overlay) -> None:
        import os

        os.mkfifo(overlay.folder / "plaintext/pipe.jsonl")
        with pytest.raises(StorageError, match="not a regular file"):
            overlay.search("x")

    def test_what_a_killed_process_left_is_swept(self, overlay: Overlay) -> None:
        import os

        overlay.remember("known")
        left = overlay.folder / f"plaintext/.memory-000001.jsonl.{'0' * 16}"
        young = overlay.folder / f"plaintext/.memory-000001.jsonl.{'1' * 16}"
        for path in (left, young):
            path.write_bytes(b"half")
        os.utime(left, (0, 0))
        overlay.remember("another")
        assert (left.exists(), young.exists()) == (False, True)
