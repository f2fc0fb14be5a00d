"""Packing: the same folder gives the same digest, and a small edit keeps what did not change."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from memcube.packing.pack import pack_folder, read_cube
from memcube.packing.templates import TEMPLATES, write_template
from memcube.packing.unpack import unpack_files
from memcube.store import Store
from memcube_protocol import media_types
from memcube_protocol.content import read_verified
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    ForbiddenMediaTypeError,
    InvalidConfigError,
    InvalidError,
    InvalidRecordError,
    InvalidSettingError,
    NotFoundError,
    StorageError,
    UnsafePathError,
)
from memcube_protocol.records import Record
from memcube_protocol.shards import read_shard
from support.lora import config_bytes, lora_file

TOML = 'name = "alice/notes"\nversion = "1.0.0"\n'
DATA = Path(__file__).parents[4].parent / "shared" / "data"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cube"
    (folder / "plaintext").mkdir(parents=True)
    (folder / "memcube.toml").write_text(TOML)
    (folder / "README.md").write_text("# Notes\n")
    write_records(folder, range(20))
    return folder


def write_records(folder: Path, numbers: range, text: Callable[[int], str] = str) -> None:
    lines = (json.dumps({"id": f"m-{n:05}", "text": f"Record {text(n)}"}) for n in numbers)
    (folder / "plaintext" / "records.jsonl").write_text("\n".join(lines))


def records_in(store: Store, cube) -> list[Record]:
    layers = [layer for layer in cube.manifest.layers if layer.media_type == media_types.RECORDS]
    return [record for layer in layers for record in read_shard(store.read(layer.digest), layer)]


def test_a_folder_becomes_a_cube_that_the_store_names(store: Store, folder: Path) -> None:
    packed = pack_folder(folder, store)
    ref = store.ref(packed.reference)
    assert ref is not None
    assert ref.kept
    assert read_cube(store, ref.digest) == packed.cube
    assert packed.cube.files[0].path == "README.md"
    assert packed.cube.config.memories[0].records == 20


def test_an_unchanged_folder_keeps_its_digest_though_time_passes(
    store: Store, folder: Path
) -> None:
    first = pack_folder(folder, store)
    time.sleep(1.1)
    again = pack_folder(folder, store)
    assert (again.cube.digest, again.unchanged) == (first.cube.digest, True)


def test_another_store_gives_the_same_layers(tmp_path: Path, folder: Path) -> None:
    one = pack_folder(folder, Store(tmp_path / "one"))
    two = pack_folder(folder, Store(tmp_path / "two"))
    assert one.cube.files == two.cube.files


def test_a_fixed_time_gives_the_same_digest_everywhere(tmp_path: Path, folder: Path) -> None:
    environ = {"SOURCE_DATE_EPOCH": "1700000000"}
    one = pack_folder(folder, Store(tmp_path / "one"), environ=environ)
    two = pack_folder(folder, Store(tmp_path / "two"), environ=environ)
    assert one.cube.digest == two.cube.digest
    assert one.cube.config.created_at.timestamp() == 1_700_000_000


@pytest.mark.parametrize("epoch", ["tomorrow", "-1", "1e9", "9" * 12])
def test_a_fixed_time_that_is_no_number_is_refused(store: Store, folder: Path, epoch: str) -> None:
    with pytest.raises(InvalidSettingError, match="SOURCE_DATE_EPOCH"):
        pack_folder(folder, store, environ={"SOURCE_DATE_EPOCH": epoch})


def test_the_order_of_records_and_files_does_not_matter(tmp_path: Path, folder: Path) -> None:
    one = pack_folder(folder, Store(tmp_path / "one"))
    lines = (folder / "plaintext" / "records.jsonl").read_text().splitlines()
    (folder / "plaintext" / "records.jsonl").write_text("\n".join(reversed(lines[5:])))
    (folder / "plaintext" / "more.jsonl").write_text("\n".join(lines[:5]))
    two = pack_folder(folder, Store(tmp_path / "two"))
    assert one.cube.files == two.cube.files


def test_records_are_sorted_by_id(store: Store, folder: Path) -> None:
    ids = [record.id for record in records_in(store, pack_folder(folder, store).cube)]
    assert ids == sorted(ids)
    assert len(ids) == 20


def test_an_edit_keeps_the_other_shards(store: Store, folder: Path) -> None:
    write_records(folder, range(3000), lambda n: f"{n} " + "text " * 40)
    before = {file.digest for file in pack_folder(folder, store).cube.files}
    write_records(folder, range(3000), lambda n: f"{n} " + ("new! " if n == 9 else "text ") * 40)
    after = {file.digest for file in pack_folder(folder, store).cube.files}
    assert len(before) > 5
    assert len(after - before) == 1


def test_an_unpacked_folder_packs_to_the_same_layers(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    first = pack_folder(folder, store)
    unpack_files(first.cube.files, store, tmp_path / "out")
    (tmp_path / "out" / "memcube.toml").write_text(TOML)
    again = pack_folder(tmp_path / "out", Store(tmp_path / "other"))
    assert again.cube.files == first.cube.files


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_every_template_packs_as_it_is(store: Store, tmp_path: Path, template: str) -> None:
    write_template(tmp_path / "cube", template, "alice/notes")
    assert pack_folder(tmp_path / "cube", store).cube.config.name == "alice/notes"


def test_a_template_that_the_disk_does_not_take_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(StorageError):
            write_template(tmp_path / "new", "expert", "alice/new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "memcube.toml" in write_template(tmp_path / "new", "expert", "alice/new")
    assert (tmp_path / "new" / "memcube.toml").read_text().startswith("#")


def test_a_template_overwrites_nothing(folder: Path) -> None:
    with pytest.raises(ConflictError):
        write_template(folder, "expert", "alice/notes")


def test_name_and_version_can_be_given_from_outside(store: Store, folder: Path) -> None:
    packed = pack_folder(folder, store, name="bob/notes", version="2.0.0+b1")
    assert str(packed.reference) == "bob/notes:2.0.0_b1"


def test_hidden_and_ignored_files_stay_out(store: Store, folder: Path) -> None:
    digest = pack_folder(folder, store).cube.digest
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / "drafts").mkdir()
    (folder / "drafts" / "a.txt").write_text("draft")
    (folder / "memcube.toml").write_text(TOML + 'ignore = ["drafts/*", "drafts"]\n')
    assert pack_folder(folder, store).cube.digest == digest


def test_attachments_say_their_type(store: Store, folder: Path) -> None:
    (folder / "attachments").mkdir()
    (folder / "attachments" / "a.png").write_bytes(b"\x89PNG\r\n")
    file = pack_folder(folder, store).cube.files[-1]
    assert file.details == {media_types.ATTACHMENT_TYPE: "image/png"}
    assert file.memory == "cube"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("notes.txt", InvalidConfigError),
        ("plaintxt/a.jsonl", InvalidConfigError),
        ("plaintext/deep/a.jsonl", InvalidConfigError),
        ("activation/a/kv.safetensors", InvalidConfigError),
        ("parametric/a/adapter_config.json", InvalidConfigError),
        ("parametric/a/adapter_model.safetensors.index.json", InvalidConfigError),
        ("parametric/a/adapter_model.bin", ForbiddenMediaTypeError),
        ("activation/a/cache.pt", ForbiddenMediaTypeError),
        ("attachments/a.svg", ForbiddenMediaTypeError),
        ("attachments/run.exe", ForbiddenMediaTypeError),
        ("attachments/con.txt", UnsafePathError),
        ("attachments/a:b.txt", UnsafePathError),
        ("attachments/a .txt ", UnsafePathError),
    ],
)
def test_a_file_without_a_place_is_refused_by_name(
    store: Store, folder: Path, path: str, error: type[InvalidError]
) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("x")
    with pytest.raises(error) as caught:
        pack_folder(folder, store)
    assert Path(path).parent.name in str(caught.value)
    assert caught.value.hint
    assert store.refs() == []


def test_a_folder_without_memories_is_refused(store: Store, folder: Path) -> None:
    (folder / "plaintext" / "records.jsonl").unlink()
    with pytest.raises(InvalidConfigError, match="no memory"):
        pack_folder(folder, store)


def test_notes_that_yield_no_record_are_refused_by_name(store: Store, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "latin.md").write_bytes("# Café\n\nau lait".encode("latin-1"))
    with pytest.raises(InvalidConfigError, match=r"no memory.*latin\.md: not text in UTF-8"):
        pack_folder(notes, store)
    (notes / "good.md").write_text("A note.")
    assert pack_folder(notes, store).notes == ("skipped: latin.md: not text in UTF-8",)


def test_records_without_a_single_line_are_refused(store: Store, folder: Path) -> None:
    (folder / "plaintext" / "records.jsonl").write_text("")
    with pytest.raises(InvalidConfigError, match="no memory"):
        pack_folder(folder, store)


def test_notes_pack_and_each_other_file_is_named(store: Store, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    (notes / "deep").mkdir(parents=True)
    (notes / "deep" / "a.txt").write_text("Plain text.")
    (notes / "UPPER.MD").write_text("# Loud\n\nText.")
    (notes / "b.png").write_bytes(b"\x89PNG")
    packed = pack_folder(notes, store)
    ids = [record.id for record in records_in(store, packed.cube)]
    assert ids == ["UPPER.MD#loud", "deep/a.txt"]
    assert packed.notes == (
        "left out b.png: put it under attachments/ of a folder with memcube.toml",
    )


def test_notes_with_a_written_config_pack_with_their_attachments(
    store: Store, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    (notes / "attachments").mkdir(parents=True)
    (notes / "a.md").write_text("A note.")
    (notes / "attachments" / "b.png").write_bytes(b"\x89PNG")
    assert write_template(notes, "expert", "alice/notes") == ("memcube.toml",)
    packed = pack_folder(notes, store)
    assert str(packed.reference) == "alice/notes:0.1.0"
    assert [file.path for file in packed.cube.files if file.path.startswith("att")] == [
        "attachments/b.png"
    ]
    assert packed.notes == ()


def test_a_pickle_among_notes_stays_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("A note.")
    (tmp_path / "notes" / "b.pkl").write_bytes(b"")
    with pytest.raises(ForbiddenMediaTypeError, match=r"b\.pkl"):
        pack_folder(tmp_path / "notes", store)


def test_a_name_that_pickles_use_is_refused_without_a_word_about_its_content(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.bin").write_bytes(b"no pickle")
    with pytest.raises(ForbiddenMediaTypeError, match=r"a name that pickles use .*not looked at"):
        pack_folder(tmp_path / "notes", store)


@pytest.mark.parametrize(("template", "place"), [("kv", "activation"), ("lora", "parametric")])
def test_a_template_warns_while_its_memory_is_missing(
    store: Store, tmp_path: Path, template: str, place: str
) -> None:
    write_template(tmp_path / "cube", template, "alice/notes")
    (note,) = pack_folder(tmp_path / "cube", store).notes
    assert note.startswith(f"warning: {place}/ is empty")


def test_two_memories_of_one_name_are_refused(store: Store, folder: Path) -> None:
    for path in ("manifest.json", "tokens.u32", "kv.safetensors"):
        (folder / "activation" / "plaintext").mkdir(parents=True, exist_ok=True)
        (folder / "activation" / "plaintext" / path).write_text("{}")
    with pytest.raises(InvalidConfigError, match="'plaintext'"):
        pack_folder(folder, store)


def test_one_id_twice_is_refused_across_files(store: Store, folder: Path) -> None:
    (folder / "plaintext" / "more.jsonl").write_text('{"id":"m-00001","text":"x"}')
    with pytest.raises(InvalidRecordError, match="m-00001"):
        pack_folder(folder, store)


def test_a_folder_that_is_absent_is_not_found(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        pack_folder(tmp_path / "nothing", store)


def test_a_file_in_the_place_of_a_folder_is_told_from_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("Tea at five.")
    with pytest.raises(NotFoundError, match="is a file") as refused:
        pack_folder(tmp_path / "one.md", store)
    assert str(tmp_path) in str(refused.value.hint)


def test_an_empty_folder_is_said_to_be_empty(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="is empty: it holds no notes"):
        pack_folder(tmp_path, store)


def test_a_folder_of_notes_packs_without_rewriting(store: Store, tmp_path: Path) -> None:
    notes = tmp_path / "My Notes"
    notes.mkdir()
    (notes / "README.md").write_text("# About\n\nThese are notes.\n")
    (notes / "backup.md").write_text("# Backup\n\nTest it.\n\n## Where\n\nElsewhere.\n")
    (notes / "facts.jsonl").write_text('{"id":"a","text":"b"}\n')
    packed = pack_folder(notes, store)
    assert str(packed.reference) == "my-notes:0.1.0"
    texts = [record.text for record in records_in(store, packed.cube)]
    assert any("Elsewhere." in text for text in texts)
    assert "b" in texts
    assert packed.cube.files[0].media_type == media_types.CARD


def test_a_folder_of_something_else_is_refused_with_the_next_step(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.py").write_text("print()")
    with pytest.raises(InvalidConfigError) as caught:
        pack_folder(tmp_path / "x", store)
    assert "memcube init" in str(caught.value.hint)


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is absent")
def test_a_memos_cube_packs_and_its_pickle_is_reported(store: Store) -> None:
    packed = pack_folder(DATA / "memos" / "mem_cube_2", store)
    assert packed.cube.config.memories[0].records == 2
    assert any("activation_memory.pickle" in note for note in packed.notes)


def test_damaged_bytes_in_the_store_never_become_a_folder(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    cube = pack_folder(folder, store).cube
    blob = store.path(cube.files[-1].digest)
    blob.chmod(0o600)
    content = bytearray(blob.read_bytes())
    content[0] ^= 1
    blob.write_bytes(content)
    with pytest.raises(DigestMismatchError):
        unpack_files(cube.files, store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_folder_that_holds_something_is_not_touched(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    cube = pack_folder(folder, store).cube
    with pytest.raises(ConflictError):
        unpack_files(cube.files, store, folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    unpack_files(cube.files, store, empty)
    assert (empty / "README.md").read_text() == "# Notes\n"


def test_a_link_in_the_place_of_the_folder_is_not_followed(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(ConflictError):
        unpack_files(pack_folder(folder, store).cube.files, store, tmp_path / "link")
    assert list(target.iterdir()) == []


def test_config_and_manifest_are_read_back_verified(store: Store, folder: Path) -> None:
    packed = pack_folder(folder, store)
    config = packed.cube.manifest.config
    assert config is not None
    assert read_verified(store, config.digest) == packed.cube.config.write()


def test_a_file_changed_in_place_under_the_same_size_is_packed_anew(
    store: Store, folder: Path
) -> None:
    first = pack_folder(folder, store).cube
    (folder / "README.md").write_text("# Votes\n")
    again = pack_folder(folder, store).cube
    assert again.files[0].size == first.files[0].size
    assert read_verified(store, again.files[0].digest) == b"# Votes\n"


def test_a_file_whose_blob_was_damaged_is_copied_again(store: Store, folder: Path) -> None:
    first = pack_folder(folder, store).cube
    blob = store.path(first.files[0].digest)
    blob.write_bytes(b"damaged!")
    assert pack_folder(folder, store).cube == first
    assert read_verified(store, first.files[0].digest) == b"# Notes\n"


def a_peft_folder(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(config_bytes())
    (folder / "adapter_model.safetensors").write_bytes(lora_file())
    (folder / "README.md").write_text("# Style\n")
    return folder


def test_a_trainers_folder_gives_the_adapter_and_nothing_else(store: Store, tmp_path: Path) -> None:
    folder = a_peft_folder(tmp_path / "Style [v2]")
    (folder / "training_args.bin").write_bytes(b"\x80\x04pickle")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_bytes(b"\x80\x04pickle")
    packed = pack_folder(folder, store)
    assert [file.path for file in packed.cube.files] == [
        "README.md",
        "parametric/style-v2/adapter_config.json",
        "parametric/style-v2/adapter_model.safetensors",
    ]
    assert {"left out: training_args.bin", "left out: checkpoint-10"} <= set(packed.notes)


def test_an_adapter_in_a_pickle_is_refused_with_the_way_out(store: Store, tmp_path: Path) -> None:
    folder = a_peft_folder(tmp_path / "style")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ForbiddenMediaTypeError) as caught:
        pack_folder(folder, store)
    assert "safe_serialization" in str(caught.value.hint)
