import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from memcube.store import Store
from memcube.store.files import disk_bytes
from memcube.store.uploads import Uploads
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, StorageError
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import Reference

NOW = timedelta(0)
NOTES = Reference.parse("registry.example/ann/notes:1.0.0")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def cube(store: Store, *contents: bytes, subject: oci.Manifest | None = None) -> oci.Manifest:
    """A cube of these layers in the store."""
    layers = [Descriptor(media_types.RECORDS, *store.blobs.add(content)) for content in contents]
    manifest = oci.write_manifest(
        artifact_type=media_types.CUBE,
        config=Descriptor(media_types.CONFIG, *store.blobs.add(b"{}")),
        layers=layers,
        subject=subject.descriptor() if subject else None,
    )
    store.blobs.add(manifest.raw)
    return manifest


def held(store: Store) -> set[Digest]:
    return {digest for digest, _ in store.blobs}


def test_a_ref_is_found_by_its_tag_and_checked_by_its_digest(store: Store) -> None:
    manifest = cube(store, b"one")
    ref = store.put_ref(NOTES, manifest.digest, related=(Digest.of(b"bundle"),))
    assert store.ref(NOTES) == ref
    assert store.ref(NOTES.with_digest(manifest.digest)) == ref
    assert store.ref(NOTES.with_digest(Digest.of(b"other"))) is None
    assert store.refs() == [ref]
    assert store.remove_ref(NOTES)
    assert not store.remove_ref(NOTES)
    assert store.ref(NOTES) is None


def test_a_damaged_ref_is_an_error_and_not_a_reason_to_prune(store: Store) -> None:
    store.put_ref(NOTES, cube(store, b"one").digest)
    (path,) = (store.root / "refs").iterdir()
    path.write_bytes(b"{}")
    with pytest.raises(StorageError, match="damaged"):
        store.prune(young=NOW)
    assert held(store)


def test_pruning_keeps_what_refs_need_and_removes_the_rest(store: Store) -> None:
    kept = cube(store, b"shared", b"own")
    bundle = cube(store, b"signature", subject=kept)
    gone = cube(store, b"shared", b"alone")
    store.put_ref(NOTES, kept.digest, related=(bundle.digest,))
    before = store.disk_bytes()
    pruned = store.prune(young=NOW)
    assert set(pruned.blobs) == {gone.digest, Digest.of(b"alone")}
    assert pruned.freed_bytes == before - store.disk_bytes() > 0
    assert held(store) >= {kept.digest, bundle.digest, Digest.of(b"signature")}


def test_what_is_young_stays_since_somebody_may_be_about_to_name_it(store: Store) -> None:
    cube(store, b"one")
    assert store.prune().blobs == ()


def test_refs_go_by_age_unless_kept(store: Store) -> None:
    old, pinned = cube(store, b"one"), cube(store, b"two")
    store.put_ref(NOTES, old.digest)
    store.put_ref(Reference.parse("registry.example/ann/pinned:1.0.0"), pinned.digest, kept=True)
    pruned = store.prune(older_than=NOW, young=NOW)
    assert [ref.digest for ref in pruned.refs] == [old.digest]
    assert held(store) == {pinned.digest, Digest.of(b"two"), Digest.of(b"{}")}


def test_the_least_recently_used_go_first_when_space_is_short(store: Store) -> None:
    references = [Reference.parse(f"registry.example/ann/notes:{n}.0.0") for n in range(4)]
    for number, reference in enumerate(references):
        store.put_ref(reference, cube(store, bytes([number]) * 10_000).digest)
    first = store.ref(references[0])
    assert first
    store.touch_ref(first)
    pruned = store.prune(max_bytes=45_000, young=NOW)
    assert [ref.reference for ref in pruned.refs] == references[1:3]
    assert {ref.reference for ref in store.refs()} == {references[0], references[3]}


def test_nobody_prunes_while_another_process_is_at_work(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memcube.store._PRUNE_WAIT_S", 0.2)
    cube(store, b"one")
    script = (
        "import sys; from pathlib import Path; from memcube.store import Store\n"
        "with Store(Path(sys.argv[1])).session():\n"
        "    print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(ConflictError, match="in use"):
            store.prune(young=NOW)
        other.kill()
    assert store.prune(young=NOW).blobs


def test_leftovers_of_a_week_are_pruned(store: Store) -> None:
    import os

    store.blobs.partial.mkdir(parents=True)
    for name, days in (("old", 8), ("new", 1)):
        path = store.blobs.partial / name
        path.write_bytes(b"12345")
        taken = disk_bytes(path.stat())
        at = (datetime.now(UTC) - timedelta(days=days)).timestamp()
        os.utime(path, (at, at))
    assert store.prune().freed_bytes == taken
    assert [path.name for path in store.blobs.partial.iterdir()] == ["new"]


def test_locations_are_known_from_the_refs_of_the_same_registry(store: Store) -> None:
    manifest = cube(store, b"one")
    store.put_ref(NOTES, manifest.digest)
    assert store.locations("registry.example")[Digest.of(b"one")] == "ann/notes"
    assert store.locations("other.example") == {}


def test_an_upload_note_outlives_its_writer_and_ends_with_its_session(tmp_path: Path) -> None:
    uploads, digest = Uploads(tmp_path / "uploads"), Digest.of(b"one")
    with uploads.note("host", "a/b", digest) as note:
        assert note.url is None
        note.remember("https://host/v2/a/b/blobs/uploads/1")
    with uploads.note("host", "a/b", digest) as note:
        assert note.url == "https://host/v2/a/b/blobs/uploads/1"
        with uploads.note("host", "a/b", digest) as other:
            assert other.url is None  # the session belongs to whoever has the lock
            other.remember("https://elsewhere")
        note.forget()
    assert not list(uploads.folder.iterdir())
