"""A registry is backed up while people push, destroyed, and restored: what was acknowledged is there."""

import hashlib
import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from support.postgres import postgres_url
from support.repository import Repository
from support.servers import (
    MemcubeServer,
    clean_environment,
    command,
    memcube_server,
    stop_process,
)
from support.wire import Wire

DEADLINE_S = 60.0


@dataclass
class Pushers:
    """Two people who push small cubes until they are told to stop, and remember what was acknowledged."""

    wire: Wire
    acknowledged: list[tuple[str, str, bytes]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def push(self, number: int) -> None:
        repository = Repository(self.wire, f"ada/notes-{number}")
        count = 0
        while not self.stopped.is_set():
            count += 1
            layer = hashlib.sha256(b"%d of %d" % (count, number)).digest() * 500
            config = repository.add_blob(b"{}")
            blob = repository.add_blob(layer)
            manifest = oci.write_manifest(
                artifact_type=media_types.CUBE,
                config=oci.Descriptor(media_types.CONFIG, config, 2),
                layers=[oci.Descriptor(media_types.RECORDS, blob, len(layer))],
            )
            tag = f"v{count}"
            assert repository.put_manifest(tag, manifest.raw).status == 201
            self.acknowledged.append((repository.name, tag, manifest.raw))
            self.stopped.wait(0.05)  # leaves the backup something of the processor

    def start(self) -> None:
        self.threads = [threading.Thread(target=self.push, args=(n,)) for n in range(2)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(DEADLINE_S)


def admin(settings: dict[str, str], *words: str) -> subprocess.Popen[str]:
    """`memcube-registry` with `words`, in a group of its own."""
    return subprocess.Popen(
        [command("memcube-registry"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(**settings),
        start_new_session=True,
    )


def done(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, said
    return said


def killed_when(process: subprocess.Popen[str], is_time: Callable[[], bool]) -> None:
    """Kill `process` as a power cut would once `is_time`, unless it ended before."""
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and not is_time() and time.monotonic() < deadline:
        time.sleep(0.002)
    stop_process(process, signal.SIGKILL)


def check_all(wire: Wire, acknowledged: list[tuple[str, str, bytes]]) -> None:
    """Every cube is there, whole, byte for byte."""
    assert acknowledged
    for name, tag, raw in acknowledged:
        repository = Repository(wire, name)
        found = repository.get_manifest(tag)
        assert (found.status, found.body) == (200, raw), (name, tag)
        parsed = oci.parse(raw, None)
        assert isinstance(parsed, oci.Manifest)
        for blob in parsed.blobs:
            assert Digest.of(repository.get_blob(blob.digest).body) == blob.digest


def database_settings(kind: str) -> dict[str, str]:
    if kind == "sqlite":
        return {}
    return {"MEMCUBE_REGISTRY_DATABASE_URL": postgres_url()}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("before", "after"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_what_was_acknowledged_before_the_backup_comes_back(
    tmp_path: Path, before: str, after: str
) -> None:
    backup = tmp_path / "backup"
    settings = {"MEMCUBE_REGISTRY_REQUESTS_PER_S": "0"} | database_settings(before)
    with memcube_server(tmp_path / "server", settings) as server:
        server.create_account("ada")
        token = server.create_token("ada")
        pushers = Pushers(server.wire.bearer(token))
        pushers.start()
        try:
            acknowledged = backed_up(server, backup, pushers)
        finally:
            pushers.stop()
        server.kill()
    shutil.rmtree(tmp_path / "server")
    fresh = {"MEMCUBE_REGISTRY_REQUESTS_PER_S": "0"} | database_settings(after)
    restored(tmp_path / "new", backup, fresh)
    again = MemcubeServer(tmp_path / "new", tmp_path / "log", fresh)
    again.start()
    try:
        check_all(again.wire.bearer(token), acknowledged)
        report = json.loads(again.admin("fsck", "--all", "--json").stdout)
        assert report["damage"] == 0
    finally:
        again.stop()


def backed_up(
    server: MemcubeServer, backup: Path, pushers: Pushers
) -> list[tuple[str, str, bytes]]:
    """What had been acknowledged when the backup that is whole began; two before it were killed."""
    words = ("backup", str(backup), "--all", "--data", str(server.data))
    killed_when(
        admin(dict(server.settings), *words),
        lambda: len(list(backup.glob("blobs/sha256/*/*"))) > 3,
    )
    killed_when(
        admin(dict(server.settings), *words), lambda: any(backup.glob(".partial-*/tables/*"))
    )
    time.sleep(1.1)  # snapshots are named by the second
    acknowledged = list(pushers.acknowledged)
    said = done(admin(dict(server.settings), *words))
    assert "proven" in said
    assert not list(backup.glob(".partial-*"))
    return acknowledged


def restored(data: Path, backup: Path, settings: dict[str, str]) -> None:
    """Restore into `data`, killed twice on the way; no registry starts in between."""
    words = ("restore", str(backup), "--all", "--data", str(data))
    journal = data / "restore.journal"
    for size in (1, 2000):
        killed_when(
            admin(settings, *words),
            lambda size=size: journal.exists() and journal.stat().st_size > size,  # type: ignore[misc]
        )
        if not journal.exists():
            return  # it had ended before
    refused = admin(settings, "serve", "--port", "0", "--data", str(data))
    said, _ = refused.communicate(timeout=DEADLINE_S)
    assert refused.returncode != 0
    assert "not complete" in said
    assert "is restored" in done(admin(settings, *words))
    assert not journal.exists()
