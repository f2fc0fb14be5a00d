"""A backup holds all of a registry, is proven, and becomes a registry again: on either database."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    IntegrityError,
    NotFoundError,
    UnsupportedError,
)
from memcube_registry.accounts.handshake import load_key
from memcube_registry.accounts.models import Account
from memcube_registry.backups import making, restoring, snapshot
from memcube_registry.backups.making import Made, Plan, make_backup, prune
from memcube_registry.backups.pool import Pool
from memcube_registry.backups.proving import prove
from memcube_registry.backups.restores import journal_of
from memcube_registry.backups.restoring import Wish, restore
from memcube_registry.backups.tables import kept_tables
from memcube_registry.checking.content import Sample
from memcube_registry.checking.findings import Report
from memcube_registry.database import Database
from memcube_registry.log import witnesses
from memcube_registry.log.service import TransparencyLog
from memcube_registry.log.submission import Submission
from memcube_registry.server import prepare
from memcube_registry.settings import Settings
from memcube_registry.storage import BlobStore, LocalFiles, MemoryStore
from memcube_signing.bundle import sign
from memcube_signing.statement import Statement
from memcube_signing.transparency.checkpoint import SignedCheckpoint
from sqlalchemy import select
from support.postgres import migrated_url, postgres_url
from support.registry_core import Core
from support.signing import ALICE, manifest

NAME = "alice/notes"
LAYERS = [b"first layer", b"", b"third layer" * 1000]
ALL = Sample(None, 0)
NO_WITNESSES = witnesses.parse("")
KINDS = ["sqlite", "postgresql"]
KEYS = ("token.key", "log.key", "countersigning.key")


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """The database of the registry that is backed up."""
    with ExitStack() as stack:
        if getattr(request, "param", "sqlite") == "sqlite":
            made = Database(request.getfixturevalue("sqlite_url"))
        else:
            made = Database(stack.enter_context(migrated_url()))
        yield made
        made.close()


@pytest.fixture
def core(database: Database, tmp_path: Path) -> Core:
    made = Core(database, LocalFiles(tmp_path / "data" / "blobs"))
    prepare(settings_of(made, tmp_path))
    made.principal = made.person("alice")
    for layer in LAYERS:
        made.push_blob(NAME, layer)
    child = made.push_manifest(NAME, LAYERS, "latest")
    made.push_manifest(NAME, [], "1.0.0", subject=child)
    made.push_index(NAME, [child], "all")
    log_of(made, tmp_path).add_all([submission(number) for number in range(20)])
    return made


def settings_of(core: Core, folder: Path) -> Settings:
    url = core.database.url.render_as_string(hide_password=False)
    return Settings(data_dir=folder / "data", database_url=url, log_origin="log.example")


def log_of(core: Core, folder: Path) -> TransparencyLog:
    seed = (folder / "data" / "log.key").read_bytes()
    return TransparencyLog(core.database, seed, "log.example", NO_WITNESSES)


def submission(number: int) -> Submission:
    said = Statement("cube", manifest("one").digest, "https://example.org/test", {"n": number})
    return Submission(NAME, sign(said, ALICE).envelope, ALICE.public_key)


def backed_up(core: Core, folder: Path, **wishes: bool) -> Made:
    core.wait(seconds=1)
    plan = Plan(sample=ALL, threads=2, **wishes)
    return make_backup(
        settings_of(core, folder), core.database, core.store, folder / "backup", plan, core.now
    )


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Settings, Database]]:
    """An empty registry."""
    url = "" if getattr(request, "param", "sqlite") == "sqlite" else postgres_url()
    settings = Settings(data_dir=tmp_path / "new", database_url=url, log_origin="log.example")
    database = Database.patient(settings)
    yield settings, database
    database.close()


def restored(
    core: Core,
    folder: Path,
    target: tuple[Settings, Database],
    store: BlobStore | None = None,
    seen: SignedCheckpoint | None = None,
    *,
    new_log: bool = False,
) -> Report:
    settings, database = target
    wish = Wish(sample=ALL, threads=2, seen=seen, new_log=new_log)
    found = snapshot.opened(folder / "backup", None)
    return restore(
        settings, database, store or new_store(settings), folder / "backup", found, wish, core.now
    )


def new_store(settings: Settings) -> LocalFiles:
    return LocalFiles(settings.data_dir / "blobs")


def rows(database: Database, but: str = "") -> dict[str, list[tuple[object, ...]]]:
    """Every row of every kept table, without the columns called `but`."""
    with database.read() as session:
        return {
            table.name: [
                tuple(row)
                for row in session.execute(
                    select(*(c for c in table.columns if c.name != but)).order_by(
                        *table.primary_key.columns
                    )
                )
            ]
            for table in kept_tables()
        }


@pytest.mark.parametrize("database", KINDS, indirect=True)
@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_a_registry_comes_back_whole_on_either_database(
    core: Core, tmp_path: Path, target: tuple[Settings, Database]
) -> None:
    made = backed_up(core, tmp_path)
    assert (made.blobs_copied, made.report.damage) == (4, 0)
    report = restored(core, tmp_path, target)
    settings, database = target
    assert report.damage == 0
    assert report.checked["log_entries"] == 20
    assert rows(database, "location") == rows(core.database, "location")
    for name in KEYS:
        key = settings.data_dir / name
        assert key.read_bytes() == (tmp_path / "data" / name).read_bytes()
        assert key.stat().st_mode & 0o777 == 0o600
    again = Core(database, new_store(settings), core.now, core.principal)
    assert again.has_blob(NAME, Digest.of(LAYERS[2]))
    assert not journal_of(settings.data_dir).exists()
    prepare(settings)
    # Numbers of new rows go on after those that were restored.
    again.push_blob(NAME, b"new")
    again.push_manifest("alice/other", [b"new"][:0], "latest")
    assert again.person("bob").account_id != core.principal.account_id


def test_the_second_backup_copies_what_is_new(core: Core, tmp_path: Path) -> None:
    backed_up(core, tmp_path)
    core.push_blob(NAME, b"new")
    made = backed_up(core, tmp_path)
    assert (made.blobs_copied, made.bytes_copied) == (1, 3)
    assert len(snapshot.names(tmp_path / "backup")) == 2


def test_old_snapshots_go_with_the_blobs_that_only_they_need(core: Core, tmp_path: Path) -> None:
    core.push_blob(NAME, b"passing")
    backed_up(core, tmp_path)
    core.collect_all()
    backed_up(core, tmp_path)
    assert prune(tmp_path / "backup", 1) == (1, 1)
    assert not Pool(tmp_path / "backup" / "blobs").has(str(Digest.of(b"passing")), 7)
    found = snapshot.opened(tmp_path / "backup", None)
    assert prove(tmp_path, found, Pool(tmp_path / "backup" / "blobs"), ALL).damage == 0


@pytest.mark.parametrize("database", KINDS, indirect=True)
def test_a_blob_that_is_collected_during_the_backup_is_in_no_snapshot(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump, dumps = making.dump, 0

    def dump_and_collect(database: Database, folder: Path) -> dict[str, int]:
        nonlocal dumps
        dumps += 1
        if dumps == 1:
            core.push_blob(NAME, b"passing")
        done = dump(database, folder)
        core.collect_all()
        return done

    monkeypatch.setattr(making, "dump", dump_and_collect)
    made = backed_up(core, tmp_path)
    assert dumps == 2
    assert made.report.damage == 0
    assert made.report.checked["blobs"] == 4


def test_bytes_may_stay_in_their_store(
    core: Core, tmp_path: Path, target: tuple[Settings, Database]
) -> None:
    made = backed_up(core, tmp_path, blobs=False)
    assert made.blobs_copied == 0
    assert not list(Pool(tmp_path / "backup" / "blobs").digests())
    assert restored(core, tmp_path, target, core.store).damage == 0
    assert rows(target[1]) == rows(core.database)


def test_a_backup_without_keys_holds_none(core: Core, tmp_path: Path) -> None:
    made = backed_up(core, tmp_path, keys=False)
    assert not made.snapshot.keys.exists()
    backed_up(core, tmp_path)
    newest = snapshot.opened(tmp_path / "backup", None)
    assert [(newest.keys / name).stat().st_mode & 0o777 for name in KEYS] == [0o600] * 3
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0


def test_a_damaged_blob_is_named_and_stops_the_backup(core: Core, tmp_path: Path) -> None:
    assert isinstance(core.store, LocalFiles)
    victim = next(each for each in core.store.objects())
    path = core.store._object(victim.name)
    path.chmod(0o600)
    content = path.read_bytes()
    path.write_bytes(content[::-1] + b"x")
    with pytest.raises(DigestMismatchError):
        backed_up(core, tmp_path)
    path.unlink()
    with pytest.raises(IntegrityError, match="no object"):
        backed_up(core, tmp_path)
    assert snapshot.names(tmp_path / "backup") == []


def test_a_damaged_registry_has_no_backup(core: Core, tmp_path: Path) -> None:
    with core.database.write() as session:
        session.get_one(Account, core.principal.account_id).used_bytes += 1
    with pytest.raises(IntegrityError, match="usage"):
        backed_up(core, tmp_path)
    assert snapshot.names(tmp_path / "backup") == []


@pytest.mark.parametrize("name", ["tables/tag.jsonl", "keys/token.key", "tables/more.jsonl"])
def test_a_snapshot_with_other_files_is_refused(core: Core, tmp_path: Path, name: str) -> None:
    made = backed_up(core, tmp_path)
    file = made.snapshot.folder / name
    file.write_bytes(b"[]" if not file.exists() else file.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=name):
        prove(tmp_path, made.snapshot, core.store, ALL)


def test_damaged_blobs_of_a_backup_are_found_before_anything_is_written(
    core: Core, tmp_path: Path, target: tuple[Settings, Database]
) -> None:
    backed_up(core, tmp_path)
    pool = Pool(tmp_path / "backup" / "blobs")
    victim = pool.path(str(Digest.of(LAYERS[0])))
    victim.chmod(0o600)
    victim.write_bytes(b"FIRST layer")
    with pytest.raises(IntegrityError, match="blob-digest"):
        restored(core, tmp_path, target)
    victim.unlink()
    with pytest.raises(IntegrityError, match="blob-missing"):
        restored(core, tmp_path, target)
    assert not list(new_store(target[0]).objects())
    assert not journal_of(target[0].data_dir).exists()


def test_another_version_or_format_is_refused(core: Core, tmp_path: Path) -> None:
    made = backed_up(core, tmp_path)
    file = made.snapshot.folder / "snapshot.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"revision": "0000"}))
    with pytest.raises(UnsupportedError, match="revision"):
        restoring.require_version(snapshot.read(made.snapshot.folder))
    file.write_text(json.dumps(said | {"format": 2}))
    with pytest.raises(UnsupportedError, match="format"):
        snapshot.read(made.snapshot.folder)
    file.write_text("{")
    with pytest.raises(IntegrityError):
        snapshot.read(made.snapshot.folder)


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_a_target_that_is_not_empty_is_left_alone(
    core: Core, tmp_path: Path, target: tuple[Settings, Database]
) -> None:
    backed_up(core, tmp_path)
    settings, database = target
    prepare(settings)
    (settings.data_dir / "token.key").write_bytes(bytes(32))
    with pytest.raises(ConflictError, match="another key"):
        restored(core, tmp_path, target)
    journal_of(settings.data_dir).unlink()
    shutil.rmtree(settings.data_dir / "blobs")
    sink = new_store(settings).open("a" * 32, size=0)
    sink.close()
    new_store(settings).finish("a" * 32, size=0)
    with pytest.raises(ConflictError, match="blob store is not empty"):
        restored(core, tmp_path, target)
    Core(database).person("bob")
    with pytest.raises(ConflictError, match="database is not empty"):
        restored(core, tmp_path, target)
    assert not journal_of(settings.data_dir).exists()
    prepare(settings)


def test_a_backup_is_restored_while_nobody_writes_to_it_and_without_writing_to_it(
    core: Core, tmp_path: Path, target: tuple[Settings, Database]
) -> None:
    backed_up(core, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "backup").rglob("*")}
    with making.held(tmp_path / "backup"), pytest.raises(ConflictError, match="another backup"):
        restored(core, tmp_path, target)
    assert restored(core, tmp_path, target).damage == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "backup").rglob("*")} == files
    (tmp_path / "backup" / "lock").unlink()
    with making.read_only(tmp_path / "backup"):
        assert snapshot.names(tmp_path / "backup")


def test_a_folder_of_something_else_becomes_no_backup(core: Core, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConflictError, match=r"thesis\.txt"):
        backed_up(core, tmp_path)
    with pytest.raises(NotFoundError):
        snapshot.opened(tmp_path / "backup", None)


def test_two_backups_do_not_write_to_one_folder(core: Core, tmp_path: Path) -> None:
    with making.held(tmp_path / "backup"), pytest.raises(ConflictError, match="another backup"):
        backed_up(core, tmp_path)
    backed_up(core, tmp_path)


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_a_restore_that_was_cut_off_goes_on_and_keeps_the_registry_from_starting(
    core: Core, tmp_path: Path, target: tuple[Settings, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(core, tmp_path)
    settings, database = target
    put, done = restoring._put_blob, 0

    def put_two(*args: object) -> str:
        nonlocal done
        done += 1
        if done > 2:
            raise KeyboardInterrupt
        return put(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(restoring, "_put_blob", put_two)
    with pytest.raises(KeyboardInterrupt):
        restored(core, tmp_path, target)
    with pytest.raises(ConflictError, match="not complete"):
        prepare(settings)
    with journal_of(settings.data_dir).open("ab") as file:
        file.write(b'{"digest": "sha256:cut o')
    monkeypatch.setattr(restoring, "_put_blob", put)
    assert restored(core, tmp_path, target).damage == 0
    assert len(list(new_store(settings).objects())) == 4
    assert rows(database, "location") == rows(core.database, "location")


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_a_restore_that_was_cut_off_after_its_rows_is_only_checked_again(
    core: Core, tmp_path: Path, target: tuple[Settings, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(core, tmp_path)
    check = restoring.check

    def cut_off(*_: object) -> Report:
        raise KeyboardInterrupt

    monkeypatch.setattr(restoring, "check", cut_off)
    with pytest.raises(KeyboardInterrupt):
        restored(core, tmp_path, target)
    monkeypatch.setattr(restoring, "check", check)
    before = rows(target[1])
    assert restored(core, tmp_path, target).damage == 0
    assert rows(target[1]) == before
    prepare(target[0])


def test_a_restore_of_another_snapshot_does_not_go_on_with_this_one(
    core: Core, tmp_path: Path, target: tuple[Settings, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(core, tmp_path)

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restoring, "load", cut_off)
    with pytest.raises(KeyboardInterrupt):
        restored(core, tmp_path, target)
    backed_up(core, tmp_path)
    with pytest.raises(ConflictError, match="another snapshot"):
        restored(core, tmp_path, target)


def test_a_log_that_has_shown_more_is_not_restored_when_that_is_known(
    core: Core, tmp_path: Path, target: tuple[Settings, Database]
) -> None:
    backed_up(core, tmp_path)
    log = log_of(core, tmp_path)
    held = log.checkpoint()
    log.add(submission(1000))
    with pytest.raises(IntegrityError, match="log-seen"):
        restored(core, tmp_path, target, seen=log.checkpoint())
    assert restored(core, tmp_path, target, seen=held).damage == 0


def test_another_log_begins_where_the_old_one_is_lost(
    core: Core, tmp_path: Path, target: tuple[Settings, Database]
) -> None:
    backed_up(core, tmp_path)
    report = restored(core, tmp_path, target, new_log=True)
    settings, database = target
    assert (report.damage, report.checked["log_entries"]) == (0, 0)
    prepare(settings)
    assert (settings.data_dir / "log.key").read_bytes() != (tmp_path / "data/log.key").read_bytes()
    assert (settings.data_dir / "token.key").exists()
    again = Core(database, new_store(settings))
    log = TransparencyLog(database, load_key(settings.log_key_file), "new.example", NO_WITNESSES)
    assert log.add(submission(1)).index == 0
    assert log.key.name == "new.example"
    assert rows(again.database, "location")["tag"] == rows(core.database, "location")["tag"]


def test_what_passes_is_left_out(core: Core, tmp_path: Path) -> None:
    kept = {table.name for table in kept_tables()}
    assert {"account", "blob", "manifest", "log_entry"} <= kept
    assert not kept & {"upload", "rate_bucket"}
    made = backed_up(core, tmp_path)
    assert set(made.snapshot.description.rows) == kept


def test_bytes_move_to_another_kind_of_store(
    core: Core, tmp_path: Path, target: tuple[Settings, Database]
) -> None:
    backed_up(core, tmp_path)
    store = MemoryStore()
    assert restored(core, tmp_path, target, store).damage == 0
    assert len(list(store.objects())) == 4


def test_a_backup_is_in_order_of_time(core: Core, tmp_path: Path) -> None:
    first = backed_up(core, tmp_path).snapshot.folder.name
    core.now += timedelta(days=400)
    second = backed_up(core, tmp_path).snapshot.folder.name
    assert snapshot.names(tmp_path / "backup") == [first, second]
    assert snapshot.opened(tmp_path / "backup", first).folder.name == first
    assert not list((tmp_path / "backup" / "blobs" / "incoming").iterdir())
