"""Direct uploads: what is announced, what arrives, what is proven, and what a crash leaves."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidRequestError,
    LimitExceededError,
    MemcubeError,
    NotFoundError,
    QuotaExceededError,
    UnavailableError,
    UnsupportedError,
)
from memcube_registry.blobs import direct as direct_module
from memcube_registry.blobs import proving, uploading
from memcube_registry.blobs.direct import Announcement, Found, OpenDirect, part_bytes_of
from memcube_registry.blobs.models import DirectUpload
from memcube_registry.blobs.proving import LEASE, Proof, Proven, Underway
from memcube_registry.checking.content import Sample
from memcube_registry.checking.service import Thoroughness, check
from memcube_registry.database import Database, utc_now
from memcube_registry.storage.claims import MemoryClaims
from memcube_registry.storage.direct import Guarantees
from memcube_registry.storage.s3 import Bucket, Place, S3Store
from support.direct import NAME, DirectCore, put
from support.moto import moto_server
from support.postgres import migrated_url
from support.registry_core import Core
from support.swift import ACCESS_KEY, REGION, SECRET_KEY, SwiftServer

MIB = 1 << 20
PART = 5 * MIB


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto_server() as server:
        yield server.endpoint_url


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


@pytest.fixture(params=["swift", "moto"])
def kind(request: pytest.FixtureRequest) -> str:
    """A store that checks what clients put, with PostgreSQL; and one that takes anything, with SQLite."""
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    if kind == "moto":
        yield request.getfixturevalue("sqlite_url")
        return
    with migrated_url() as found:
        yield found


@pytest.fixture
def store(kind: str, request: pytest.FixtureRequest) -> S3Store:
    if kind == "swift":
        server: SwiftServer = request.getfixturevalue("s3_server")
        return S3Store(Bucket(server.place()), MemoryClaims())
    return on_moto(request.getfixturevalue("moto_url"))


def on_moto(url: str) -> S3Store:
    from support.moto import MotoServer

    bucket = MotoServer(url).bucket()
    place = Place(bucket=bucket, endpoint_url=url, region=REGION, path_style=True)
    return S3Store(Bucket(place), MemoryClaims())


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_module, "PART_BYTES", PART)


@pytest.fixture
def ann(url: str, store: S3Store, small_parts: None) -> Iterator[DirectCore]:
    """Somebody with room for 100 MiB, whose whole objects have up to 6 MiB and parts 5 MiB."""
    database = Database(url)
    core = Core(database, store, now=utc_now())
    core.principal = core.person("ann", quota_bytes=100 * MIB)
    made = DirectCore.of(core, whole_bytes=6 * MIB)
    yield made
    made.prover.stop()
    database.close()


def checks(ann: DirectCore) -> bool:
    return ann.uploads.store.guarantees().checks_bodies


@pytest.mark.parametrize("size", [1, 6 * MIB, 6 * MIB + 1, 11 * MIB])
def test_what_was_announced_put_and_proven_is_a_blob(ann: DirectCore, size: int) -> None:
    content = os.urandom(size)
    direct = ann.begin(content)
    assert set(ann.put(direct, content)) == {200}
    proof = Proof.CHECKSUM if checks(ann) and size <= 6 * MIB else Proof.READ_BACK
    assert ann.complete(direct) == Proven(Digest.of(content), size, proof)
    assert ann.content(content) == content
    assert ann.core.used_bytes("ann") == size
    assert ann.reserved_bytes() == 0


def test_other_digests_than_sha256_are_read_back(ann: DirectCore) -> None:
    content = os.urandom(1000)
    direct = ann.begin(content, "sha512")
    ann.put(direct, content)
    done = ann.complete(direct)
    assert isinstance(done, Proven)
    assert done.proof is Proof.READ_BACK


def test_nothing_is_visible_before_it_is_proven(ann: DirectCore) -> None:
    content = os.urandom(1000)
    direct = ann.begin(content)
    ann.put(direct, content)
    with pytest.raises(NotFoundError):
        ann.content(content)


def test_announced_bytes_count_until_the_upload_ends(ann: DirectCore) -> None:
    direct = ann.begin(os.urandom(1000))
    ann.uploads.announce(
        ann.core.principal, Announcement(NAME, Digest.of(b"x"), 99 * MIB), ann.core.now
    )
    with pytest.raises(QuotaExceededError):
        ann.announce(os.urandom(2 * MIB))
    ann.uploads.cancel(ann.core.principal, direct.upload.id)
    assert ann.reserved_bytes() == 99 * MIB


def test_a_blob_that_is_there_or_elsewhere_need_not_be_sent(ann: DirectCore) -> None:
    content = os.urandom(1000)
    ann.core.push_blob("ann/other", content)
    assert ann.announce(content) is Found.MOUNTED
    assert ann.announce(content) is Found.PRESENT
    assert ann.content(content) == content


def test_the_same_announcement_goes_on_with_the_same_upload(ann: DirectCore) -> None:
    content = os.urandom(11 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content, [2])
    again = ann.begin(content)
    assert again == direct
    assert list(ann.uploads.received(again)) == [2]
    ann.put(again, content, [1, 3])
    assert isinstance(ann.complete(again), Proven)


def test_an_upload_is_its_owners_alone(ann: DirectCore) -> None:
    content = os.urandom(1000)
    direct = ann.begin(content)
    bob = ann.core.person("bob")
    with pytest.raises(NotFoundError):
        ann.uploads.resume(bob, direct.upload.id)
    with pytest.raises(NotFoundError):
        ann.uploads.cancel(bob, direct.upload.id)
    wanted = Announcement(NAME, direct.digest, direct.size_bytes)
    with pytest.raises(MemcubeError):
        ann.uploads.announce(bob, wanted, ann.core.now)


def test_an_upload_cannot_be_entered_through_the_other_door(ann: DirectCore) -> None:
    direct = ann.begin(os.urandom(1000))
    core = ann.core
    with pytest.raises(NotFoundError):
        uploading.resume(core.database, core.store, core.principal, NAME, direct.upload.id)
    with pytest.raises(NotFoundError):
        uploading.cancel(core.database, core.store, core.principal, NAME, direct.upload.id)


@pytest.mark.parametrize("size", [1000, 11 * MIB])
def test_what_has_not_arrived_cannot_be_completed(ann: DirectCore, size: int) -> None:
    content = os.urandom(size)
    direct = ann.begin(content)
    if direct.part_count > 1:
        ann.put(direct, content, [1, 3])
    with pytest.raises(ConflictError, match="have not arrived"):
        ann.complete(direct)
    ann.put(direct, content)
    assert isinstance(ann.complete(direct), Proven)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_there_are_no_other_parts(ann: DirectCore, number: int) -> None:
    direct = ann.begin(os.urandom(11 * MIB))
    with pytest.raises(InvalidRequestError):
        ann.uploads.sign(direct, {number: "0" * 64}, ann.core.now)


def test_a_part_needs_its_hash_where_bodies_are_checked_and_there_alone(ann: DirectCore) -> None:
    direct = ann.begin(os.urandom(11 * MIB))
    if not checks(ann):
        ((_, signed),) = ann.uploads.sign(direct, {1: None}, ann.core.now)
        assert not signed.headers
        return
    with pytest.raises(InvalidRequestError):
        ann.uploads.sign(direct, {1: None}, ann.core.now)


@pytest.mark.parametrize("size", [1000, 11 * MIB])
def test_other_bytes_are_refused_and_nothing_of_them_stays(ann: DirectCore, size: int) -> None:
    """Each part is what its request binds, and yet the blob is another one."""
    content, other = os.urandom(size), os.urandom(size)
    direct = ann.begin(content)
    if direct.is_whole:
        assert ann.put(direct, other) == [400]
        return
    ann.put(direct, other)
    with pytest.raises(DigestMismatchError):
        ann.complete(direct)
    assert ann.uploads.store.arrived(direct.location) is None
    assert ann.reserved_bytes() == 0
    with pytest.raises(NotFoundError):
        ann.content(content)


def test_a_second_completion_finds_the_upload_over(ann: DirectCore) -> None:
    content = os.urandom(7 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content)
    ann.complete(direct)
    with pytest.raises(NotFoundError):
        ann.complete(direct)
    assert ann.content(content) == content


def test_the_same_blob_sent_twice_is_kept_once(ann: DirectCore) -> None:
    content = os.urandom(7 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content)
    ann.core.push_blob(NAME, content)
    assert isinstance(ann.complete(direct), Proven)
    assert ann.content(content) == content
    assert len(list(ann.store.objects())) == 1


def test_one_account_does_not_take_every_thread_that_reads_back(
    ann: DirectCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(7 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content)
    monkeypatch.setattr(proving, "_TURN_S", 0)
    with monkeypatch.context() as none_free:
        none_free.setattr(proving, "_AT_ONCE", 0)
        assert ann.complete(direct) == Underway(0)
    assert isinstance(ann.complete(direct), Proven)


def test_cancelling_leaves_nothing(ann: DirectCore) -> None:
    content = os.urandom(11 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content, [1])
    ann.uploads.cancel(ann.core.principal, direct.upload.id)
    assert not list(ann.store.uploads())
    assert not list(ann.store.objects())
    assert ann.reserved_bytes() == 0


def test_what_was_signed_before_it_was_cancelled_keeps_no_bytes(ann: DirectCore) -> None:
    """Else an account could fill the store past its quota: announce, sign, cancel, put."""
    content = os.urandom(1000)
    direct = ann.begin(content)
    ((_, signed),) = ann.uploads.sign(direct, {1: direct.digest.hex}, ann.core.now)
    ann.uploads.cancel(ann.core.principal, direct.upload.id)
    assert put(signed.url, dict(signed.headers), content) in (404, 412)
    assert not ann.uploads.store.arrived(direct.location)


@pytest.mark.parametrize("size", [1000, 11 * MIB])
def test_what_nobody_goes_on_with_is_swept(ann: DirectCore, size: int) -> None:
    content = os.urandom(size)
    direct = ann.begin(content)
    ann.put(direct, content, [1])
    ann.core.collect_all()
    assert ann.reserved_bytes() == 0
    assert not list(ann.store.uploads())
    assert not list(ann.store.objects())
    with pytest.raises(NotFoundError):
        ann.complete(direct)


def test_what_is_underway_is_not_swept_however_old_its_object_is(ann: DirectCore) -> None:
    content = os.urandom(11 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content)
    store = ann.uploads.store
    store.join(direct.location, direct.parts_id, store.held(direct.location, direct.parts_id) or ())
    ann.core.wait(hours=23)
    ann.core.collect(timedelta(0))
    assert isinstance(ann.complete(direct), Proven)
    ann.core.now = utc_now()
    ann.core.collect()
    assert ann.content(content) == content


def test_an_upload_that_rests_is_no_damage(ann: DirectCore) -> None:
    content = os.urandom(11 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content, [1])
    ann.core.wait(hours=2)
    how = Thoroughness(Sample(None, 0))
    assert not check(ann.core.database, ann.store, how, ann.core.now).findings


def test_a_crash_after_the_parts_were_joined_is_gone_on_from(ann: DirectCore) -> None:
    content = os.urandom(11 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content)
    store = ann.uploads.store
    store.join(direct.location, direct.parts_id, store.held(direct.location, direct.parts_id) or ())
    again = ann.begin(content)
    assert list(ann.uploads.received(again)) == [1, 2, 3]
    assert isinstance(ann.complete(again), Proven)


def test_a_crash_after_a_whole_object_came_is_gone_on_from(ann: DirectCore) -> None:
    content = os.urandom(1000)
    direct = ann.begin(content)
    ann.put(direct, content)
    again = ann.begin(content)
    assert list(ann.uploads.received(again)) == [1]
    assert isinstance(ann.complete(again), Proven)


@pytest.fixture
def broken_off(ann: DirectCore, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, OpenDirect]:
    """A blob of 6 MiB that the store checks whole, large enough for parts, of which nothing has arrived."""
    if not checks(ann):
        pytest.skip("this store takes any body: everything comes in parts")
    monkeypatch.setattr(direct_module, "RESUMED_BYTES", PART)
    content = os.urandom(6 * MIB)
    direct = ann.begin(content)
    assert direct.is_whole
    return content, direct


def test_a_large_blob_that_did_not_arrive_whole_comes_in_parts(
    ann: DirectCore, broken_off: tuple[bytes, OpenDirect]
) -> None:
    content, direct = broken_off
    again = ann.begin(content)
    assert (again.upload.id, again.part_count) == (direct.upload.id, 2)
    ann.put(again, content, [2])
    killed = ann.begin(content)
    assert killed == again
    assert list(ann.uploads.received(killed)) == [2]
    ann.put(killed, content, [1])
    assert ann.complete(killed) == Proven(direct.digest, len(content), Proof.READ_BACK)
    assert ann.content(content) == content
    assert ann.reserved_bytes() == 0


def test_a_large_blob_that_did_arrive_whole_is_not_asked_for_again(
    ann: DirectCore, broken_off: tuple[bytes, OpenDirect]
) -> None:
    content, direct = broken_off
    ann.put(direct, content)
    assert ann.begin(content) == direct
    assert ann.complete(direct) == Proven(direct.digest, len(content), Proof.CHECKSUM)


@pytest.mark.parametrize("numbers", [[1], [1, 2]])
def test_the_request_for_the_whole_blob_may_still_arrive_beside_its_parts(
    ann: DirectCore, broken_off: tuple[bytes, OpenDirect], numbers: list[int]
) -> None:
    """As when two machines of one account push the same blob, or a proxy kept what the client gave up."""
    content, direct = broken_off
    ((_, signed),) = ann.uploads.sign(direct, {1: None}, ann.core.now)
    again = ann.begin(content)
    ann.put(again, content, numbers)
    other = os.urandom(len(content))
    assert put(signed.url, dict(signed.headers), other) == 400
    assert put(signed.url, dict(signed.headers), content) == 200
    assert isinstance(ann.complete(direct), Proven)
    assert put(signed.url, dict(signed.headers), content) == 412
    assert ann.content(content) == content
    ann.core.wait(hours=25)
    ann.core.collect()
    assert not list(ann.store.uploads())
    assert ann.content(content) == content


def test_what_was_signed_before_it_came_in_parts_keeps_no_bytes_once_cancelled(
    ann: DirectCore, broken_off: tuple[bytes, OpenDirect]
) -> None:
    content, direct = broken_off
    ((_, signed),) = ann.uploads.sign(direct, {1: None}, ann.core.now)
    again = ann.begin(content)
    ann.put(again, content, [1])
    ann.uploads.cancel(ann.core.principal, again.upload.id)
    assert put(signed.url, dict(signed.headers), content) == 412
    assert not ann.uploads.store.arrived(direct.location)
    assert not list(ann.store.uploads())


def test_a_process_that_died_while_reading_back_is_followed_by_another(ann: DirectCore) -> None:
    content = os.urandom(7 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content)
    _lend(ann, direct, utc_now() + LEASE)
    assert ann.complete(direct) == Underway(4711)
    _lend(ann, direct, utc_now() - timedelta(seconds=1))
    assert isinstance(ann.complete(direct), Proven)


def _lend(ann: DirectCore, direct: OpenDirect, until: object) -> None:
    """Let it look as if another process read back until then."""
    with ann.core.database.write() as session:
        row = session.get_one(DirectUpload, direct.upload.id)
        row.read_back_by, row.read_back_until, row.read_back_bytes = "other", until, 4711  # type: ignore[assignment]
        session.add(row)


def test_two_processes_that_complete_at_once_make_one_blob(ann: DirectCore) -> None:
    content = os.urandom(11 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content)
    other = DirectCore.of(ann.core, whole_bytes=6 * MIB)
    results: list[object] = []

    def complete(core: DirectCore) -> None:
        try:
            results.append(core.complete(direct))
        except MemcubeError as error:
            results.append(error)

    threads = [threading.Thread(target=complete, args=(core,)) for core in (ann, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.prover.stop()
    assert any(isinstance(result, Proven) for result in results)
    allowed = Proven | Underway | NotFoundError | ConflictError
    assert all(isinstance(result, allowed) for result in results)
    assert ann.content(content) == content
    assert len(list(ann.store.objects())) == 1


def test_a_server_that_stops_gives_the_proof_up_and_the_next_one_makes_it(
    ann: DirectCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(7 * MIB)
    direct = ann.begin(content)
    ann.put(direct, content)
    ann.prover._stopped.set()
    with pytest.raises(UnavailableError):
        ann.complete(direct)
    following = DirectCore.of(ann.core, whole_bytes=6 * MIB)
    assert isinstance(following.complete(direct), Proven)
    following.prover.stop()


def test_a_push_that_may_no_longer_be_made_leaves_nothing_visible(ann: DirectCore) -> None:
    """The account's room went to somebody else between announcement and completion."""
    content = os.urandom(1000)
    direct = ann.begin(content)
    ann.put(direct, content)
    with ann.core.database.write() as session:
        from memcube_registry.accounts.service import add_usage

        add_usage(session, direct.upload.owner_id, 100 * MIB)
    with pytest.raises(QuotaExceededError):
        ann.complete(direct)
    with pytest.raises(NotFoundError):
        ann.content(content)


def test_on_a_store_that_guarantees_nothing_there_are_none(
    ann: DirectCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = Guarantees(checks_bodies=False, ends_uploads=False)
    monkeypatch.setattr(type(ann.uploads.store), "guarantees", lambda self: weak)
    with pytest.raises(UnsupportedError):
        ann.announce(b"x")
    assert ann.reserved_bytes() == 0


def test_no_blob_has_more_parts_than_a_store_takes() -> None:
    sizes = [1, 32 * MIB, 33 * MIB, 32_000 * MIB, 32_000 * MIB + 1, 5 << 40]
    assert [part_bytes_of(size) // MIB for size in sizes] == [32, 32, 32, 32, 33, 5243]
    assert all(-(-size // part_bytes_of(size)) <= 1000 for size in sizes)
    with pytest.raises(LimitExceededError):
        Announcement(NAME, Digest.of(b""), (5000 << 30) + 1)
