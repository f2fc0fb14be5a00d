"""Our client and our registry on a real S3 server: bytes that pass the registry on neither way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, fresh
from memcube.accounts.credentials import Credentials
from memcube.http import HttpClient, RetryPolicy
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import Outcome, Silent, pull_blobs, push_blobs
from memcube_protocol import limits, media_types
from memcube_protocol.digest import Digest
from memcube_protocol.errors import DigestMismatchError
from memcube_protocol.oci import Descriptor
from support.faults import Fault, faulty_proxy
from support.machine import Machine
from support.proxy import Counter, counting_proxy
from support.servers import MemcubeServer, command, free_port, memcube_server, run
from support.swift import SwiftServer

MIB = limits.MIB
WHOLE_BYTES = 8 * MIB


@dataclass
class Place:
    """A registry on S3, whose clients reach the S3 server through a line that counts."""

    server: MemcubeServer
    line: Counter
    owner: str
    token: str

    def registry(self, **settings: str) -> Registry:
        loaded = Settings.load({"MEMCUBE_HOME": "/nonexistent", **settings})
        http = HttpClient(
            loaded,
            find_credentials=lambda host: Credentials("", self.token),
            retry=RetryPolicy(first_wait_s=0.05),
        )
        return Registry(self.server.url.removeprefix("http://"), http, loaded)

    def received_bytes(self) -> float:
        """Bytes of bodies that the registry itself was sent."""
        lines = self.server.wire.get("/metrics").body.decode().splitlines()
        name = "memcube_received_bytes_total"
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.fixture(scope="module")
def place(s3_server: SwiftServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    port = int(s3_server.endpoint_url.rpartition(":")[2])
    with counting_proxy(port) as line:
        more = {"S3_PUBLIC_URL": line.url, "S3_WHOLE_BYTES": str(WHOLE_BYTES)}
        settings = NO_LIMITS | s3_server.registry_settings(**more)
        with memcube_server(tmp_path_factory.mktemp("direct"), settings) as server:
            server.create_account("ann")
            yield Place(server, line, "ann", server.create_token("ann", *ALL_SCOPES))


def stored(store: Store, *sizes: int) -> list[Descriptor]:
    found = []
    for size in sizes:
        content = os.urandom(size)
        store.blobs.add(content)
        found.append(Descriptor(media_types.RECORDS, Digest.of(content), size))
    return found


class Watched(Silent):
    """What a progress bar would show in the end."""

    def __init__(self) -> None:
        self.shown: Tally[Digest] = Tally()
        self._lock = threading.Lock()

    def advance(self, blob: Descriptor, size_bytes: int) -> None:
        with self._lock:
            self.shown[blob.digest] += size_bytes


def test_large_blobs_pass_the_registry_on_neither_way(place: Place, tmp_path: Path) -> None:
    store, name, watched = Store(tmp_path / "store"), f"ann/{fresh('cube')}", Watched()
    blobs = stored(store, 1000, 5 * MIB, WHOLE_BYTES, 9 * MIB, 70 * MIB)
    before = place.received_bytes()
    place.line.reset()
    report = push_blobs(place.registry(), name, blobs, store, progress=watched)
    assert [moved.outcome for moved in report.blobs] == [Outcome.SENT] * 5
    assert report.moved_bytes == report.total_bytes
    assert watched.shown == {blob.digest: blob.size for blob in blobs}
    assert place.received_bytes() - before < 50_000
    assert place.line.sent_bytes > report.total_bytes - 1000
    consumer = Store(tmp_path / "consumer", strict=True)
    pull_blobs(place.registry(), name, blobs, consumer)
    assert all(consumer.has(blob.digest, blob.size) for blob in blobs)


def test_what_is_there_or_elsewhere_is_not_sent(place: Place, tmp_path: Path) -> None:
    store, name = Store(tmp_path / "store"), f"ann/{fresh('cube')}"
    blobs = stored(store, 9 * MIB)
    push_blobs(place.registry(), name, blobs, store)
    place.line.reset()
    again = push_blobs(place.registry(), name, blobs, store)
    assert again.count(Outcome.PRESENT) == 1
    elsewhere = push_blobs(place.registry(), f"ann/{fresh('other')}", blobs, store)
    assert elsewhere.count(Outcome.MOUNTED) == 1
    assert place.line.sent_bytes == 0


def test_the_setting_of_the_client_sends_everything_through_the_registry(
    place: Place, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    place.line.reset()
    registry = place.registry(MEMCUBE_DIRECT="0")
    report = push_blobs(registry, f"ann/{fresh('cube')}", stored(store, 9 * MIB), store)
    assert report.count(Outcome.SENT) == 1
    assert place.line.sent_bytes == 0


def test_the_same_blob_from_two_clients_at_once_is_one_blob(place: Place, tmp_path: Path) -> None:
    store, name = Store(tmp_path / "store"), f"ann/{fresh('cube')}"
    blobs = stored(store, 40 * MIB, 6 * MIB)
    failures: list[BaseException] = []

    def push() -> None:
        try:
            push_blobs(place.registry(), name, blobs, store)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=push) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(110)
    assert not failures
    consumer = Store(tmp_path / "consumer", strict=True)
    pull_blobs(place.registry(), name, blobs, consumer)
    assert all(consumer.has(blob.digest, blob.size) for blob in blobs)


def test_a_local_copy_that_was_damaged_becomes_no_blob(place: Place, tmp_path: Path) -> None:
    """The registry hears of it from the store, or finds it out by reading back."""
    store = Store(tmp_path / "store")
    for size in (5 * MIB, 9 * MIB):
        (blob,) = stored(store, size)
        name, path = f"ann/{fresh('cube')}", store.path(blob.digest, blob.size)
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.write(b"damaged")
        with pytest.raises(DigestMismatchError):
            push_blobs(place.registry(), name, [blob], store)
        assert place.registry().blob_size(name, blob.digest) is None


PUSH = """
import sys
from pathlib import Path
from memcube.accounts.credentials import Credentials
from memcube.http import HttpClient
from memcube.remote import Registry
from memcube.settings import Settings
from memcube.store import Store
from memcube.transfer import push_blobs
from memcube_protocol import media_types
from memcube_protocol.digest import Digest
from memcube_protocol.oci import Descriptor
host, token, name, folder, digest, size = sys.argv[1:]
settings = Settings.load({"MEMCUBE_HOME": "/nonexistent"})
http = HttpClient(settings, find_credentials=lambda host: Credentials("", token))
blob = Descriptor(media_types.RECORDS, Digest.parse(digest), int(size))
report = push_blobs(Registry(host, http, settings), name, [blob], Store(Path(folder)), parallel=1)
print(report.moved_bytes)
"""


def pushing(arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUSH, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_push_goes_on_after_the_parts_that_arrived(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    """Parts are what larger blobs come in, and those of which a first push brought nothing."""
    port = int(s3_server.endpoint_url.rpartition(":")[2])
    store = Store(tmp_path / "store")
    (blob,) = stored(store, 80 * MIB)
    with counting_proxy(port, bytes_per_s=60 * MIB) as line:
        more = {"S3_PUBLIC_URL": line.url, "S3_WHOLE_BYTES": str(WHOLE_BYTES)}
        settings = NO_LIMITS | s3_server.registry_settings(**more)
        with memcube_server(tmp_path / "registry", settings) as server:
            server.create_account("ann")
            token = server.create_token("ann", *ALL_SCOPES)
            host, size = server.url.removeprefix("http://"), str(blob.size)
            told = [host, token, "ann/killed", str(store.root), str(blob.digest), size]
            process = pushing(told)
            deadline = time.monotonic() + 60
            while line.sent_bytes < 40 * MIB and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert process.poll() is None, "it was done before it could be killed"
            process.send_signal(signal.SIGKILL)
            process.communicate()
            out, _ = pushing(told).communicate(timeout=100)
            assert int(out) == blob.size - 32 * MIB


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.LOST_ANSWER, Fault.ERROR])
def test_a_large_blob_whose_one_request_fails_comes_in_parts(
    s3_server: SwiftServer, tmp_path: Path, fault: Fault
) -> None:
    store, watched, name = Store(tmp_path / "store"), Watched(), f"ann/{fresh('cube')}"
    (blob,) = stored(store, 65 * MIB)
    with faulty_proxy(int(s3_server.endpoint_url.rpartition(":")[2])) as proxy:
        settings = NO_LIMITS | s3_server.registry_settings(S3_PUBLIC_URL=proxy.url)
        with memcube_server(tmp_path / "registry", settings) as server:
            server.create_account("ann")
            token = server.create_token("ann", *ALL_SCOPES)
            proxy.order(fault, when=lambda seen: seen.method == "PUT")
            registry = Place(server, Counter(0), "ann", token).registry()
            report = push_blobs(registry, name, [blob], store, progress=watched)
            assert report.count(Outcome.SENT) == 1
            assert watched.shown == {blob.digest: blob.size}
            puts = [seen for seen in proxy.seen if seen.method == "PUT"]
            assert len(puts) == (1 if fault is Fault.LOST_ANSWER else 4)
            assert all("partNumber" in seen.path for seen in puts[1:])
            consumer = Store(tmp_path / "consumer", strict=True)
            pull_blobs(registry, name, [blob], consumer)
            assert consumer.has(blob.digest, blob.size)


def test_where_clients_cannot_reach_the_s3_server_bytes_go_through_the_registry(
    s3_server: SwiftServer, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    settings = NO_LIMITS | s3_server.registry_settings(
        S3_PUBLIC_URL=f"http://127.0.0.1:{free_port()}", S3_READS="stream"
    )
    with memcube_server(tmp_path / "registry", settings) as server:
        server.create_account("ann")
        place = Place(server, Counter(0), "ann", server.create_token("ann", *ALL_SCOPES))
        blobs, watched = stored(store, 70 * MIB, 5 * MIB), Watched()
        report = push_blobs(place.registry(), "ann/far", blobs, store, progress=watched)
        assert report.count(Outcome.SENT) == 2
        assert watched.shown == {blob.digest: blob.size for blob in blobs}
        assert place.received_bytes() > report.total_bytes
        consumer = Store(tmp_path / "consumer", strict=True)
        pull_blobs(place.registry(), "ann/far", blobs, consumer)
        uploads = [
            float(line.split()[-1])
            for line in server.wire.get("/metrics").body.decode().splitlines()
            if line.startswith("memcube_uploads_open")
        ]
        assert uploads == [0]


def test_a_cube_is_published_and_pulled_by_its_commands(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "cube"
    assert run([command("memcube"), "init", str(folder), "--name", "ann/sounds"]).returncode == 0
    (folder / "attachments").mkdir()
    content = os.urandom(20 * MIB)
    (folder / "attachments" / "sound.wav").write_bytes(content)
    machine = Machine(tmp_path / "ann", place.server.url, place.token)
    machine.ok("keys", "generate", "mine")
    before = place.received_bytes()
    machine.ok("push", folder)
    assert place.received_bytes() - before < MIB
    reader = Machine(tmp_path / "reader", place.server.url, place.token)
    reader.ok("pull", "ann/sounds:0.1.0")
    reader.ok("unpack", "ann/sounds:0.1.0", tmp_path / "out")
    assert (tmp_path / "out" / "attachments" / "sound.wav").read_bytes() == content
