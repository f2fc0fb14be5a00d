"""Power cuts, full disks and read-only disks: what was acknowledged stays, nothing else shows."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import IncompleteRead
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person
from memcube_protocol.digest import Digest
from support.repository import location_of, with_query
from support.samples import Sample, one_image
from support.servers import MemcubeServer, memcube_server

MIB = 1024 * 1024


def person_on(server: MemcubeServer, name: str = "ada") -> Person:
    server.create_account(name)
    return Person(server, name, server.create_token(name, *ALL_SCOPES))


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def ada(tmp_path: Path) -> Iterator[Person]:
    """Somebody on a server of their own."""
    with memcube_server(tmp_path, NO_LIMITS) as server:
        yield person_on(server)


def end_by_signal(server: MemcubeServer) -> None:
    server.stop()


def end_by_power_cut(server: MemcubeServer) -> None:
    server.kill()


endings = pytest.mark.parametrize(
    "end", [end_by_signal, end_by_power_cut], ids=lambda end: end.__name__
)


@endings
def test_everything_acknowledged_is_there_after_a_restart(
    ada: Person, end: Callable[[MemcubeServer], None]
) -> None:
    repository, sample = ada.repository("kept"), Sample()
    subject = sample.image(tag="v1")
    sample.artifact(subject=subject, tag="note")
    sample.push(repository)
    end(ada.server)
    ada.server.start()
    assert repository.tags() == ["note", "v1"]
    for digest, content in sample.manifests.items():
        assert repository.get_manifest(digest).body == content
    for digest, content in sample.blobs.items():
        assert repository.get_blob(digest).body == content
    assert len(repository.referrers(subject["digest"])) == 1


@endings
def test_an_upload_continues_after_a_restart(
    ada: Person, end: Callable[[MemcubeServer], None]
) -> None:
    repository, content = ada.repository(), os.urandom(3 * MIB)
    patched = repository.patch(repository.upload_location(), content[:MIB], start=0)
    end(ada.server)
    ada.server.start()
    status = repository.wire.get(location_of(patched))
    assert (status.status, status.header("Range")) == (204, f"0-{MIB - 1}")
    patched = repository.patch(location_of(status), content[MIB:], start=MIB)
    digest = Digest.of(content)
    assert repository.finish_upload(location_of(patched), digest).status == 201
    assert repository.get_blob(digest).body == content


def test_a_power_cut_in_the_middle_of_an_upload_leaves_a_state_to_continue(ada: Person) -> None:
    repository, content = ada.repository(), os.urandom(24 * MIB)
    location = repository.upload_location()
    sent = threading.Event()

    def slowly() -> Iterator[bytes]:
        for start in range(0, len(content), MIB):
            yield content[start : start + MIB]
            if start == 8 * MIB:
                sent.set()
            time.sleep(0.02)

    def push() -> None:
        with suppress(OSError):  # the server goes away
            repository.patch(location, slowly())

    pushing = threading.Thread(target=push)
    pushing.start()
    assert sent.wait(30)
    ada.server.kill()
    pushing.join(60)
    ada.server.start()
    status = repository.wire.get(location)
    assert status.status == 204
    range_header = status.header("Range")
    done = int(range_header.split("-")[1]) + 1 if range_header not in {None, "0-0"} else 0
    assert done <= len(content)
    patched = repository.patch(location_of(status), content[done:], start=done)
    assert patched.status == 202, patched
    digest = Digest.of(content)
    assert repository.finish_upload(location_of(patched), digest).status == 201
    assert repository.get_blob(digest).body == content


def test_power_cuts_during_pushes_never_leave_a_manifest_without_its_blobs(ada: Person) -> None:
    repository = ada.repository()
    for round_number in range(4):
        acknowledged: list[Sample] = []

        def push_until_cut(done: list[Sample] = acknowledged) -> None:
            try:
                while True:
                    sample = one_image(f"tag-{len(done)}")
                    sample.push(repository)
                    done.append(sample)
            except (OSError, AssertionError):
                pass  # the cut

        pushing = threading.Thread(target=push_until_cut)
        pushing.start()
        time.sleep(0.4 + 0.13 * round_number)
        ada.server.kill()
        pushing.join(60)
        ada.server.start()
        for sample in acknowledged:
            assert repository.get_manifest(sample.top).status == 200
        for tag in repository.tags():
            manifest = repository.get_manifest(tag)
            assert manifest.status == 200
            body = manifest.json()
            for descriptor in [body["config"], *body["layers"]]:
                blob = repository.get_blob(descriptor["digest"])
                assert len(blob.body) == descriptor["size"]
                assert str(Digest.of(blob.body)) == descriptor["digest"]


def test_an_aborted_upload_leaves_no_file(ada: Person) -> None:
    repository = ada.repository()
    repository.add_blob(b"{}")
    before = files_below(ada.server.data / "blobs")
    patched = repository.patch(repository.upload_location(), os.urandom(MIB), start=0)
    assert repository.wire.delete(location_of(patched)).status == 204
    wrong = repository.put_blob(os.urandom(MIB), Digest.of(b"other"))
    assert wrong.status == 400
    assert files_below(ada.server.data / "blobs") == before


def test_a_damaged_blob_on_disk_is_not_served_as_if_it_were_whole(ada: Person) -> None:
    """A shortened file cannot be given out under its old length."""
    repository, content = ada.repository(), os.urandom(2 * MIB)
    before = files_below(ada.server.data / "blobs")
    digest = repository.add_blob(content)
    (path,) = files_below(ada.server.data / "blobs") - before
    path.chmod(0o600)
    os.truncate(path, MIB)
    try:
        reply = repository.get_blob(digest)
    except (OSError, IncompleteRead):
        return
    assert reply.status >= 500


def test_the_data_is_readable_by_its_owner_only(ada: Person) -> None:
    assert ada.server.data.stat().st_mode & 0o077 == 0
    for key in ada.server.data.glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    """A mount at `at`; skips where mounting is not permitted."""
    done = subprocess.run(
        ["mount", *arguments, str(at)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False, capture_output=True)


class TestFullDisk:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Person]:
        """Somebody on a server whose blobs lie on a disk of 12 MiB."""
        folder = tmp_path / "small"
        folder.mkdir()
        (folder / "data").mkdir()
        with (
            mounted("-t", "tmpfs", "-o", "size=12m,mode=0755", "tmpfs", at=folder / "data"),
            memcube_server(folder, NO_LIMITS) as server,
        ):
            yield person_on(server)

    def test_is_507_and_everything_else_goes_on(self, small: Person) -> None:
        repository = small.repository()
        kept = os.urandom(MIB)
        digest = repository.add_blob(kept)
        big = os.urandom(20 * MIB)
        try:
            reply = repository.put_blob(big, Digest.of(big))
            assert reply.status in {413, 507}, reply
            assert reply.json()["errors"][0]["message"]
        except OSError:
            pass  # the server answered and closed before all was sent
        assert repository.head_blob(Digest.of(big)).status == 404
        assert repository.get_blob(digest).body == kept
        assert small.wire.get("/v2/").status == 200

    def test_gives_its_room_back_after_the_failure(self, small: Person) -> None:
        repository = small.repository()
        for _ in range(3):
            big = os.urandom(16 * MIB)
            with suppress(OSError):
                assert repository.put_blob(big, Digest.of(big)).status in {413, 507}
        content = os.urandom(4 * MIB)
        assert repository.put_blob(content, Digest.of(content)).status == 201

    def test_does_not_kill_a_stream_of_unknown_length(self, small: Person) -> None:
        repository = small.repository()
        location = repository.upload_location()
        try:
            reply = repository.patch(location, (os.urandom(MIB) for _ in range(24)))
            assert reply.status in {413, 507}
        except OSError:
            pass
        assert repository.wire.get("/v2/").status == 200
        assert repository.wire.delete(location).status in {204, 404}
        assert repository.add_blob(os.urandom(MIB))

    def test_shows_in_the_readiness_not_in_a_crash(self, small: Person) -> None:
        filler = small.server.data / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(64 * 1024))
                    file.flush()
            except OSError:
                pass
        reply = small.wire.get("/v2/")
        assert reply.status in {200, 503, 507}
        push = small.repository().start_upload()
        assert push.status in {202, 503, 507}
        filler.unlink()
        assert small.repository().add_blob(b"room again")


def test_a_read_only_blob_store_still_serves_and_says_why_it_takes_nothing(ada: Person) -> None:
    repository = ada.repository()
    content = os.urandom(MIB)
    digest = repository.add_blob(content)
    folder = ada.server.data / "blobs"
    with mounted("--bind", str(folder), at=folder):
        remount = ["mount", "-o", "remount,ro,bind", str(folder)]
        if subprocess.run(remount, check=False, capture_output=True).returncode:
            pytest.skip("remounting is not permitted here")
        assert repository.get_blob(digest).body == content
        more = os.urandom(1000)
        for reply in (
            repository.post_blob(more, Digest.of(more)),
            repository.wire.put(
                with_query(repository.path("blobs/uploads/" + "0" * 32), digest=str(digest))
            ),
        ):
            assert reply.status in {404, 503}, reply
        assert repository.head_blob(Digest.of(more)).status == 404
    assert repository.add_blob(more)
