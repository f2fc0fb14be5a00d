"""The check, the backup and the restore work alike for blobs on S3 and on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from memcube_protocol.digest import Digest
from memcube_registry.backups import snapshot
from memcube_registry.backups.making import Plan, make_backup
from memcube_registry.backups.restoring import Wish, restore
from memcube_registry.checking.content import Sample
from memcube_registry.checking.findings import Rule
from memcube_registry.checking.service import Thoroughness, check
from memcube_registry.database import Database, utc_now
from memcube_registry.server import prepare
from memcube_registry.settings import Settings
from memcube_registry.storage import BlobStore, LocalFiles
from memcube_registry.storage.claim_table import DatabaseClaims
from sqlalchemy import text
from support.hub import HubServer
from support.registry_core import Core
from support.swift import SwiftServer

# The Hub's own library passes a file to its HTTP client in a way that the latter warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")

NAME = "alice/notes"
LAYERS = [b"first layer", b"", b"third layer" * 100_000]
ALL = Sample(None, 0)
Maker = Callable[[Path, Database], BlobStore]


@pytest.fixture
def on_s3(s3_server: SwiftServer, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """Makes stores in fresh buckets."""
    from memcube_registry.storage.s3 import Bucket, S3Store

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return lambda _, database: S3Store(Bucket(s3_server.place()), DatabaseClaims(database))


@pytest.fixture
def on_the_hub(hub: HubServer) -> Maker:
    """Makes stores in fresh repositories."""
    from memcube_registry.storage.hub import Dataset, HubStore, Place

    token, made = hub.state.token("acme"), 0

    def make(folder: Path, _: Database) -> BlobStore:
        nonlocal made
        made += 1
        hub.state.create("dataset", f"acme/blobs-{made}", private=True)
        place = Place(f"acme/blobs-{made}", hub.url, token)
        return HubStore(Dataset(place), folder / "staging")

    return make


@pytest.fixture(params=["on_s3", "on_the_hub"])
def store_in(request: pytest.FixtureRequest) -> Maker:
    found: Maker = request.getfixturevalue(request.param)
    return found


def in_files(folder: Path, _: Database) -> BlobStore:
    return LocalFiles(folder / "blobs")


@pytest.fixture
def new_registry() -> Iterator[Callable[[Path], tuple[Settings, Database]]]:
    """Makes registries, empty and without tables."""
    made: list[Database] = []

    def make(folder: Path) -> tuple[Settings, Database]:
        settings = Settings(data_dir=folder)
        made.append(Database.patient(settings))
        return settings, made[-1]

    yield make
    for database in made:
        database.close()


@pytest.mark.parametrize("there", [True, False], ids=["from files", "to files"])
def test_a_registry_moves_between_kinds_of_stores(
    tmp_path: Path,
    new_registry: Callable[[Path], tuple[Settings, Database]],
    store_in: Maker,
    there: bool,
) -> None:
    old, new = (in_files, store_in) if there else (store_in, in_files)
    settings, database = new_registry(tmp_path / "old")
    prepare(settings)
    core = Core(database, old(tmp_path / "old", database), utc_now())
    core.principal = core.person("alice")
    for layer in LAYERS:
        core.push_blob(NAME, layer)
    core.push_manifest(NAME, LAYERS, "latest")
    backup = tmp_path / "backup"
    made = make_backup(settings, database, core.store, backup, Plan(sample=ALL), core.now)
    assert (made.blobs_copied, made.report.damage) == (4, 0)
    target, fresh = new_registry(tmp_path / "new")
    store = new(tmp_path / "new", fresh)
    found, wish = snapshot.opened(backup, None), Wish(sample=ALL)
    assert restore(target, fresh, store, backup, found, wish, core.now).damage == 0
    again = Core(fresh, store, core.now, core.principal)
    assert all(again.has_blob(NAME, Digest.of(layer)) for layer in LAYERS)


def test_damage_in_a_store_is_found(
    tmp_path: Path,
    new_registry: Callable[[Path], tuple[Settings, Database]],
    store_in: Maker,
) -> None:
    settings, database = new_registry(tmp_path / "old")
    prepare(settings)
    core = Core(database, store_in(tmp_path / "old", database), utc_now())
    core.principal = core.person("alice")
    for layer in LAYERS:
        core.push_blob(NAME, layer)
    assert check(database, core.store, Thoroughness(ALL), core.now).findings == ()
    with database.write() as session:
        rows = dict(
            session.connection().execute(text("SELECT size_bytes, location FROM blob")).all()  # type: ignore[arg-type]
        )
        core.store.delete(rows[len(LAYERS[0])])
        wrong = {"size": len(LAYERS[2]) + 7, "location": rows[len(LAYERS[2])]}
        change = text("UPDATE blob SET size_bytes = :size WHERE location = :location")
        session.connection().execute(change, wrong)
    report = check(database, core.store, Thoroughness(Sample(0, 0)), core.now)
    assert {Rule.BLOB_MISSING, Rule.BLOB_SIZE} <= {one.rule for one in report.findings}
