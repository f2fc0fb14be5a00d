"""The registry with everything it runs on, begun and killed as often as the plan says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conftest import ALL_SCOPES, NO_LIMITS
from support.measuring import descendants
from support.postgres import Cluster, new_cluster
from support.servers import MemcubeServer, clean_environment, free_port, run
from support.swift import SwiftServer, require_swift

from chaos.clock import Clock
from chaos.disk import Disk
from chaos.evidence import BlobFolder, Bucket, Objects
from chaos.plan import CUBE_ACCOUNTS, LONG_GRACE_S, PUBLIC, REPOSITORIES, Profile
from chaos.requests import Endpoints
from chaos.structure import Violation

RECOVERY_S = 90.0
WORKERS = 2
ACCOUNTS = ("ada", "bob", *CUBE_ACCOUNTS)
QUOTA = "40MiB"
SWEEP = """\
import os
from datetime import timedelta
from memcube_registry.blobs import removing
from memcube_registry.database import Database, utc_now
from memcube_registry.jobs.worker import Worker
from memcube_registry.manifests.collecting import collect_garbage
from memcube_registry.settings import load
from memcube_registry.storage.opening import open_store

settings = load(os.environ)
database = Database(settings.database_url)
store = open_store(settings, database)
# The first run condemns manifests, the second removes them, the third their blobs.
for days in (2, 4, 6):
    now = utc_now() + timedelta(days=days)
    collect_garbage(database, store, now, timedelta(0), upload_life=timedelta(seconds=1))
    handlers = {removing.KIND: removing.remover(database, store)}
    Worker(database, handlers, clock=lambda session: now).work_off()
"""
_KEYS = ("token", "log", "countersigning")


@dataclass
class Deployment:
    """Replicas of one registry; `folder` holds all that they write."""

    folder: Path
    profile: Profile
    servers: list[MemcubeServer] = field(default_factory=list)
    cluster: Cluster | None = None
    swift: SwiftServer | None = None
    database: str = ""
    clock: Clock | None = None
    disk: Disk | None = None
    tokens: dict[str, str] = field(default_factory=dict)
    starts: int = 0
    _store_settings: dict[str, str] = field(default_factory=dict)

    # Beginning

    def prepare(self) -> None:
        """Make everything for the first time, and the accounts."""
        self.clock = Clock.build(self.folder)
        (self.folder / "tmp").mkdir()
        if self.profile is Profile.POSTGRES:
            self._prepare_services()
        else:
            self.disk = Disk.mount(self.folder / "registry-0")
            self.database = f"sqlite:///{self.folder}/registry-0/data/registry.db"
        for number in range(2 if self.profile is Profile.POSTGRES else 1):
            place = self.folder / f"registry-{number}"
            place.mkdir(exist_ok=True)
            log = self.folder / f"registry-{number}.log"
            self.servers.append(MemcubeServer(place / "data", log, port=free_port()))
        self.start(LONG_GRACE_S)
        for name in ACCOUNTS:
            quota = QUOTA if name == "bob" else "0"
            self.servers[0].admin("account", "create", name, "--quota", quota)
            self.tokens[name] = self.servers[0].create_token(name, *ALL_SCOPES)
        for name in REPOSITORIES:
            visibility = "public" if name == PUBLIC else "private"
            reply = self.endpoints.repository(name, 0).wire.put(
                f"/api/v1/cubes/{name}",
                body=json.dumps({"visibility": visibility}).encode(),
                headers={"Content-Type": "application/json"},
            )
            assert reply.status == 200, reply

    def _prepare_services(self) -> None:
        require_swift()
        self.cluster = new_cluster()
        self.database = self.cluster.url(self.cluster.create())
        (self.folder / "swift").mkdir()
        self.swift = SwiftServer(self.folder / "swift")
        self.swift.start()
        self._store_settings = self.swift.registry_settings()

    def start(self, grace_s: int) -> None:
        """Begin every replica that is not running, with garbage collected after `grace_s`."""
        for server in self.servers:
            server.settings = self.settings(grace_s)
            self.begin(server)

    def begin(self, server: MemcubeServer) -> None:
        """Begin `server` if it is not running, as a supervisor would: again if it fails."""
        deadline = time.monotonic() + RECOVERY_S
        while True:
            if server.process is not None and server.process.poll() is None:
                return
            server.kill()
            try:
                server.start()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                self.starts += 1
                return

    def settings(self, grace_s: int) -> dict[str, str]:
        """Variables of a replica."""
        known = {
            "WORKERS": str(WORKERS),
            "GC_INTERVAL_S": "1",
            "GC_GRACE_S": str(grace_s),
            "UPLOAD_EXPIRY_S": "600",
            "EXTERNAL_URL": f"http://127.0.0.1:{self.servers[0].port}",
            "DATABASE_URL": self.database,
            "LOG_LEVEL": "warning",
        }
        known |= {f"{key.upper()}_KEY_FILE": str(self.folder / f"{key}.key") for key in _KEYS}
        found = {f"MEMCUBE_REGISTRY_{name}": value for name, value in known.items()}
        found |= NO_LIMITS | {"TMPDIR": str(self.folder / "tmp")}
        return found | (self.clock.environment if self.clock else {}) | self._store_settings

    def restart(self, grace_s: int) -> None:
        """Stop every replica whose settings would change in order, and begin it again."""
        for server in self.servers:
            if server.settings != self.settings(grace_s):
                server.stop()
        self.start(grace_s)

    @property
    def objects(self) -> Objects:
        """The store's bytes, for the checker."""
        if self.swift:
            return Bucket(self.swift.client(), self._store_settings["MEMCUBE_REGISTRY_S3_BUCKET"])
        return BlobFolder(self.folder / "registry-0" / "data" / "blobs")

    def strays(self) -> list[Violation]:
        """Files in the temporary folder that belong to no running replica."""
        found = [path.name for path in (self.folder / "tmp").iterdir()]
        if len(found) <= len(self.servers):
            return []
        return [Violation("leftover: temporary file", f"{len(found)}: {sorted(found)[:5]} …")]

    def start_database(self) -> None:
        """Begin PostgreSQL again: what was killed may hold its memory for a moment."""
        assert self.cluster
        deadline = time.monotonic() + RECOVERY_S
        while True:
            try:
                return self.cluster.start()
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    # What the monkey and the clients ask

    @property
    def endpoints(self) -> Endpoints:
        urls = tuple(f"http://127.0.0.1:{server.port}" for server in self.servers)
        return Endpoints(urls, self.tokens)

    def server(self, choice: int) -> MemcubeServer:
        return self.servers[choice % len(self.servers)]

    def workers(self, server: MemcubeServer) -> list[int]:
        """The worker processes of a replica."""
        return descendants(server.process.pid)[1:] if server.process else []

    def kill_everything(self) -> None:
        """Every process of the registry, at once."""
        for server in self.servers:
            if server.process is not None and server.process.poll() is None:
                os.killpg(server.process.pid, signal.SIGKILL)
        for server in self.servers:
            server.kill()

    def recover(self) -> None:
        """End what faults last, begin what was killed, and wait until all are ready.

        Nothing is collected from now on: what the check sees has to stay until the next round.
        """
        if self.disk:
            self.disk.free()
        if self.clock:
            self.clock.move(0)
        if self.cluster and not self.cluster.is_running():
            self.start_database()
        if self.swift and not self.swift.processes:
            self.swift.start()
        self.start(LONG_GRACE_S)
        deadline = time.monotonic() + RECOVERY_S
        for server in self.servers:
            while (reply := server.wire.get("/readyz")).status != 200:
                assert time.monotonic() < deadline, f"not ready after a restart: {reply}"
                time.sleep(0.1)

    def sweep(self) -> None:
        """Collect all that nothing refers to, as if days passed between the runs.

        No replica runs meanwhile: with its longer grace period it would spare what was condemned.
        """
        for server in self.servers:
            server.stop()
        environment = clean_environment(
            **self.settings(0), MEMCUBE_REGISTRY_DATA_DIR=str(self.servers[0].data)
        )
        command = [sys.executable, "-c", SWEEP]
        done = run(command, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        self.recover()

    def own_check(self) -> list[Violation]:
        """What the registry's own consistency check says: it must not miss what the checker finds."""
        done = self.servers[0].admin("fsck", "--all", "--json", check=False)
        return [Violation("fsck", done.stdout + done.stderr)] if done.returncode else []

    def close(self) -> None:
        """End everything and forget it."""
        self.kill_everything()
        if self.swift:
            self.swift.kill()
        if self.cluster:
            self.cluster.remove()
        if self.disk:
            self.disk.unmount()


@contextmanager
def deployed(folder: Path, profile: Profile) -> Iterator[Deployment]:
    """A running deployment, which is gone afterwards; its folder stays."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = Deployment(folder, profile)
    try:
        made.prepare()
        yield made
    finally:
        made.close()
