"""The registry countersigns what it verified, once and wholly, and nothing else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from memcube_protocol import limits, media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidSettingError, StorageError
from memcube_protocol.reference import Reference
from memcube_protocol.timestamps import whole_seconds
from memcube_registry.accounts.models import Account
from memcube_registry.app import create_app
from memcube_registry.catalog.showing import show
from memcube_registry.countersigning import evidence, rules, service
from memcube_registry.countersigning.attaching import attach
from memcube_registry.countersigning.key import signer_of
from memcube_registry.countersigning.models import Countersigning
from memcube_registry.countersigning.queue import KIND
from memcube_registry.database import Database
from memcube_registry.jobs.models import Job
from memcube_registry.jobs.service import jobs_of
from memcube_registry.jobs.worker import Task
from memcube_registry.log.models import LogUsage
from memcube_registry.manifests import service as manifests
from memcube_registry.services import Services
from memcube_registry.settings import Settings
from memcube_signing.authority import carrier
from memcube_signing.authority.document import KeyDocument, Quorum, sign_document
from memcube_signing.predicates import attest
from memcube_signing.predicates.countersignature import LEVEL, LEVEL_LOGGED
from memcube_signing.predicates.status import PREDICATE_TYPE as STATUS
from memcube_signing.predicates.status import Reason, State, Status
from memcube_signing.release import sign_release
from memcube_signing.transparency import bundled
from memcube_signing.transparency.entry import LogPolicy
from sqlmodel import select, update
from support.countersigned import NAME, Registry
from support.signing import ALICE, CREATED, MALLORY, ORIGIN, manifest, next_release, release


@pytest.fixture
def app(tmp_path: Path, database_url: str) -> Any:
    settings = Settings(
        data_dir=tmp_path,
        database_url=database_url,
        external_url="https://registry.example",
        log_level="error",
        job_poll_s=0,
    )
    return create_app(settings)


def client_of(app: Any) -> TestClient[Any]:
    async def as_servers_call(scope: Any, receive: Any, send: Any) -> None:
        # The test client leaves the query in raw_path, where ASGI says that it is not.
        if scope["type"] == "http":
            scope["raw_path"] = scope["raw_path"].partition(b"?")[0]
        await app(scope, receive, send)

    return TestClient(as_servers_call)


@pytest.fixture
def registry(app: Any, new_account: Any, new_token: Any) -> Iterator[Registry]:
    token = new_token(new_account("alice"))
    with client_of(app) as client:
        yield Registry(client, token)


@pytest.fixture
def settle_all(app: Any, database: Database) -> Callable[[], int]:
    """Does every job of countersigning, due or not; how many there were."""
    services: Services = app.state["services"]

    def settle() -> int:
        with database.read() as session:
            waiting = jobs_of(session, kind=KIND)
        return sum(services.worker.do_now(KIND, row.subject) for row in waiting)

    return settle


def waiting(database: Database) -> list[Job]:
    with database.read() as session:
        return jobs_of(session, kind=KIND)


def rows(database: Database) -> list[Countersigning]:
    with database.read() as session:
        return list(session.exec(select(Countersigning)))


def refused(database: Database) -> list[str | None]:
    return [row.refused for row in rows(database)]


class TestWhatIsSigned:
    def test_a_release_is_countersigned_when_its_bundle_is_attached(self, registry, database):
        before = datetime.now(UTC) - timedelta(seconds=2)
        bundle = registry.release()
        ((_, said),) = registry.countersignatures()
        value = said.value
        assert (value.subject, value.resource) == (manifest().digest, ORIGIN)
        assert value.passed
        assert value.levels == (LEVEL, LEVEL_LOGGED)
        assert value.inputs == (bundle.digest,)
        assert value.publishers == (ALICE.public_key.id,)
        assert value.log
        assert (value.log.origin, value.log.index) == ("registry.example", 0)
        assert value.verifier == "https://registry.example"
        assert before <= value.verified_at <= datetime.now(UTC)
        assert len(rows(database)) == 1
        assert waiting(database) == []

    def test_it_is_in_the_log_itself_with_a_proof(self, registry):
        registry.release()
        ((bundle, said),) = registry.countersignatures()
        logged = bundled.verify_logged(bundle, said.key, LogPolicy(registry.log_key))
        assert logged.index == 1

    def test_it_names_rules_that_the_registry_shows(self, registry):
        registry.release()
        ((_, said),) = registry.countersignatures()
        path = said.value.policy.removeprefix("https://registry.example")
        assert Digest.of(registry.client.get(path).content) == said.value.policy_digest

    def test_the_key_is_shown_where_tools_of_others_find_it(self, registry):
        assert registry.client.get(rules.KEY_PATH).text == registry.key.to_pem()

    def test_what_is_attested_beside_the_release_is_not_countersigned(self, registry, database):
        registry.push_cube()
        status = Status(manifest().digest, ORIGIN, "1.0.0", State.YANKED, Reason.WRONG, CREATED)
        registry.attach(attest(status, ALICE), ALICE, kind=STATUS)
        assert rows(database) == []
        assert registry.countersignatures() == []

    def test_a_new_version_by_the_same_key_is_countersigned_too(self, registry):
        registry.release()
        registry.release(said=next_release(release(), "two"), cube=manifest("two"))
        assert len(registry.countersignatures(manifest("two").digest)) == 1


class TestWhatIsRefused:
    def test_a_release_that_was_not_logged(self, registry, database):
        registry.push_cube()
        registry.attach(sign_release(release(), ALICE), ALICE)
        assert refused(database) == ["log-entry-missing"]
        assert registry.countersignatures() == []

    def test_a_release_of_another_registrys_name(self, registry, database):
        registry.release(said=release(origin="evil.example/alice/notes"))
        assert refused(database) == ["origin-mismatch"]

    def test_a_release_of_another_cubes_name(self, registry, database):
        registry.push_cube()
        bundle = registry.log(sign_release(release(), ALICE), ALICE)
        registry.push_cube(name="alice/other")
        registry.attach(bundle, ALICE, name="alice/other")
        assert refused(database) == ["origin-mismatch"]
        assert registry.countersignatures(name="alice/other") == []

    def test_a_release_of_another_manifest(self, registry, database):
        registry.push_cube()
        registry.push_cube(manifest("two"))
        bundle = registry.log(sign_release(release(), ALICE), ALICE)
        registry.attach(bundle, ALICE, cube=manifest("two"))
        assert refused(database) == ["wrong-subject"]

    def test_a_release_about_a_manifest_that_is_not_here(self, registry, database):
        registry.push_cube(manifest("two"))
        bundle = registry.log(sign_release(release(), ALICE), ALICE)
        registry.attach(bundle, ALICE)
        assert refused(database) == ["not-found"]

    def test_a_key_that_is_not_the_one_of_the_first_release(self, registry, database):
        registry.release()
        stolen = next_release(
            release(), "two", publishers=(MALLORY.public_key.id,), seq=1, previous=None
        )
        registry.release(MALLORY, stolen, manifest("two"))
        assert refused(database).count("key-not-on-record") == 1
        assert registry.countersignatures(manifest("two").digest) == []

    def test_another_key_for_a_new_name_of_the_namespace(self, registry, database):
        registry.release()
        registry.push_cube(name="alice/other")
        said = release(MALLORY, origin="registry.example/alice/other")
        bundle = registry.log(sign_release(said, MALLORY), MALLORY, "alice/other")
        registry.attach(bundle, MALLORY, name="alice/other")
        assert refused(database).count("key-not-on-record") == 1
        assert registry.countersignatures(name="alice/other") == []

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"expires_at": CREATED + timedelta(seconds=1)}, "release-expired"),
            ({"created_at": datetime(2200, 1, 1, tzinfo=UTC)}, "not-yet-valid"),
        ],
    )
    def test_a_release_outside_its_time(self, registry, database, change, reason):
        registry.release(said=release(**change))
        assert refused(database) == [reason]

    def test_a_clock_that_was_behind_refuses_nothing_for_good(
        self, registry, database, settle_all, monkeypatch
    ):
        later = datetime.now(UTC) + timedelta(hours=36)
        registry.release(said=release(created_at=whole_seconds(later)))
        assert refused(database) == [None]
        assert len(waiting(database)) == 1
        monkeypatch.setattr(service, "utc_now", lambda: later)
        assert settle_all() == 1
        assert len(registry.countersignatures()) == 1

    def test_bytes_that_are_no_bundle(self, registry, database):
        registry.push_cube()
        raw = b'{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"}'
        bundle = replace(sign_release(release(), ALICE), raw=raw)
        registry.attach(bundle, ALICE)
        (reason,) = refused(database)
        assert reason
        assert reason.startswith("malformed")

    def test_once_it_is_logged_the_same_release_is_accepted(self, registry, database):
        registry.push_cube()
        bare = sign_release(release(), ALICE)
        registry.attach(bare, ALICE)
        registry.attach(registry.log(bare, ALICE), ALICE)
        assert sorted(row.made is not None for row in rows(database)) == [False, True]
        assert len(registry.countersignatures()) == 1


class TestKeyDocuments:
    def announced(self, *keys: Any, threshold: int = 1) -> list[Any]:
        quorum = Quorum(tuple(sorted((k.public_key for k in keys), key=lambda k: k.id)), threshold)
        document = KeyDocument("registry.example/alice", 1, None, CREATED, quorum)
        return list(sign_document(document, keys))

    def test_let_another_key_sign(self, registry):
        registry.release()
        registry.announce(self.announced(MALLORY))
        later = next_release(release(), "two", publishers=(MALLORY.public_key.id,))
        registry.release(MALLORY, later, manifest("two"))
        ((_, said),) = registry.countersignatures(manifest("two").digest)
        assert said.value.publishers == (MALLORY.public_key.id,)

    def test_forbid_a_key_that_they_do_not_name(self, registry, database):
        registry.announce(self.announced(MALLORY))
        registry.release(ALICE)
        assert refused(database) == ["key-not-authorised"]

    def test_demand_as_many_signatures_as_they_say(self, registry, database):
        registry.announce(self.announced(ALICE, MALLORY, threshold=2))
        both = tuple(sorted((ALICE.public_key.id, MALLORY.public_key.id)))
        said = release(publishers=both)
        first = registry.release(ALICE, said)
        assert refused(database) == ["threshold-not-met"]
        second = registry.log(sign_release(said, MALLORY), MALLORY)
        registry.attach(second, MALLORY)
        ((_, found),) = registry.countersignatures()
        assert found.value.publishers == both
        assert found.value.inputs == (second.digest, first.digest)


class TestOnce:
    def test_pushing_the_release_again_makes_no_second_one(self, registry, settle_all):
        bundle = registry.release()
        registry.attach(bundle, ALICE)
        assert settle_all() == 0
        assert len(registry.countersignatures()) == 1

    def test_a_deleted_release_that_comes_back_is_countersigned_with_the_same_words(
        self, registry, database
    ):
        bundle = registry.release()
        ((before, _),) = registry.countersignatures()
        for one in registry.referrers():
            path = f"/v2/{NAME}/manifests/{one.digest}"
            assert registry.ask("DELETE", path).status_code == 202
        registry.attach(bundle, ALICE)
        ((after, _),) = registry.countersignatures()
        assert after.envelope == before.envelope

    def test_a_deleted_cube_leaves_nothing_to_countersign(self, registry, database):
        registry.release()
        assert registry.ask("DELETE", f"/api/v1/cubes/{NAME}").status_code == 204
        assert rows(database) == []

    def test_a_cube_that_is_deleted_and_released_for_ever_does_not_fill_the_log(
        self, registry, database
    ):
        quota_bytes = 20_000
        with database.write() as session:
            session.execute(update(Account).values(quota_bytes=quota_bytes))
        for _ in range(20):
            registry.release()
            if not registry.countersignatures():
                break
            assert registry.ask("DELETE", f"/api/v1/cubes/{NAME}").status_code == 204
        with database.read() as session:
            filled = session.exec(select(LogUsage.size_bytes)).one()
        assert quota_bytes < filled <= 2 * quota_bytes
        ((job,),) = (waiting(database),)
        assert "of the log" in (job.error or "")


def fail(*_: Any, **__: Any) -> None:
    raise StorageError("the disk is full", hint="free space")


SERVICE = "memcube_registry.countersigning.service"
STEPS = [
    f"{SERVICE}.gather",
    f"{SERVICE}._keep",
    "memcube_registry.log.service.TransparencyLog.add",
    f"{SERVICE}.attach",
    "memcube_registry.countersigning.attaching._written",
    "memcube_registry.countersigning.attaching._link",
]


class TestCutOff:
    @pytest.mark.parametrize("step", STEPS)
    def test_what_broke_off_anywhere_is_made_later_and_once(
        self, registry, settle_all, database, monkeypatch, step
    ):
        with monkeypatch.context() as patched:
            patched.setattr(step, fail)
            registry.release()
        assert registry.countersignatures() == []
        (due,) = waiting(database)
        assert due.error == "the disk is full"
        assert settle_all() == 1
        assert settle_all() == 0
        assert len(registry.countersignatures()) == 1
        size = registry.client.get("/log/checkpoint").text.splitlines()[1]
        assert size == "2", "the release and its countersignature, each once"

    def test_two_processes_at_once_make_one(self, app, registry, database, monkeypatch):
        services: Services = app.state["services"]
        with monkeypatch.context() as patched:
            patched.setattr(f"{SERVICE}.gather", fail)
            registry.release()

        (due,) = waiting(database)
        outcomes = []

        def overtaken(*arguments: Any) -> bool:
            monkeypatch.undo()
            services.countersigner.handle(Task(due.subject, {}))
            outcomes.append(attach(*arguments))
            return outcomes[-1]

        monkeypatch.setattr(f"{SERVICE}.attach", overtaken)
        services.countersigner.handle(Task(due.subject, {}))
        assert outcomes == [False]
        assert len(registry.countersignatures()) == 1

    def test_a_refusal_is_no_failure_that_comes_back(self, registry, settle_all):
        registry.push_cube()
        registry.attach(sign_release(release(), ALICE), ALICE)
        assert settle_all() == 0

    def test_a_release_that_went_away_meanwhile_is_given_up(
        self, registry, settle_all, database, monkeypatch
    ):
        with monkeypatch.context() as patched:
            patched.setattr(f"{SERVICE}.gather", fail)
            registry.release()
        (attached,) = registry.referrers()
        registry.ask("DELETE", f"/v2/{NAME}/manifests/{attached.digest}")
        settle_all()
        assert refused(database) == ["not-found"]


def test_the_key_comes_from_its_file_and_nothing_else():
    assert signer_of(b"\x01" * 32).public_key == signer_of(b"\x01" * 32).public_key
    assert signer_of(b"\x01" * 32).public_key != signer_of(b"\x02" * 32).public_key
    with pytest.raises(InvalidSettingError):
        signer_of(b"\x01" * 31)


class TestMemory:
    def test_one_document_that_is_named_a_thousand_times_is_not_read_once(self, registry, database):
        content = b"{" + b" " * (limits.BUNDLE_BYTES - 2) + b"}"
        layer = oci.Descriptor.of(media_types.SIGSTORE_BUNDLE, content)
        name = f"alice/{carrier.NAME}"
        for blob in (b"{}", content):
            registry.push_blob(blob, name)
        named = oci.write_manifest(
            artifact_type=media_types.KEYS, config=oci.EMPTY, layers=[layer] * 1000
        )
        registry.push_manifest(named, name, carrier.TAG)
        registry.release()
        assert refused(database) == ["limit-exceeded"]

    def test_of_large_bundles_beside_a_release_few_are_held_at_once(self, registry, app, database):
        registry.release()
        content = b"{" + b" " * (limits.BUNDLE_BYTES - 2) + b"}"
        layer = oci.Descriptor.of(media_types.SIGSTORE_BUNDLE, content)
        registry.push_blob(content)
        for number in range(8):
            registry.push_manifest(
                oci.write_manifest(
                    artifact_type=media_types.SIGSTORE_BUNDLE,
                    config=oci.EMPTY,
                    layers=[layer],
                    subject=manifest().descriptor(),
                    annotations={"number": str(number), media_types.BUNDLE_PREDICATE: "other"},
                )
            )
        services: Services = app.state["services"]
        (row,) = rows(database)
        found = evidence.gather(
            database, services.blobs, "registry.example", row.repository_id, row.referrer
        )
        assert sum(len(other.bundle) for other in found.others) <= evidence.BUNDLES_BYTES

    def test_of_large_manifests_beside_a_release_one_is_read_at_a_time(
        self, registry, app, database
    ):
        registry.release()
        (row,) = rows(database)
        keep_large_referrers(database, row.repository_id, 24)
        services: Services = app.state["services"]
        alice = services.authenticator.authenticate(
            f"Bearer {registry.token}".encode(), now=datetime.now(UTC)
        )
        place = ("registry.example", row.repository_id, row.referrer)
        cube = Reference("", NAME, digest=manifest().digest)
        for look in (
            lambda: evidence.gather(database, services.blobs, *place),
            lambda: show(services, alice, cube),
        ):
            tracemalloc.start()
            try:
                look()
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 24 * limits.MIB, "of 48 MiB and as much of annotations"


def keep_large_referrers(database: Database, repository_id: int, count: int) -> None:
    """Referrers of 2 MiB each that carry no bundle that is there, as a push would keep them."""
    for number in range(count):
        value = oci.write_manifest(
            artifact_type=media_types.SIGSTORE_BUNDLE,
            config=oci.EMPTY,
            layers=[oci.Descriptor.of(media_types.SIGSTORE_BUNDLE, b"absent")],
            subject=manifest().descriptor(),
            annotations={"number": str(number), "filling": "x" * (2 * limits.MIB)},
        )
        with database.write() as session:
            push = manifests.read_push(value.raw, None, None, ())
            manifests._insert(session, 1, repository_id, push, datetime.now(UTC))
