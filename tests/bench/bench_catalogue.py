"""Whether a registry stays as fast as its catalogue grows: one repository of up to 100 000 manifests.

Both registries are filled without HTTP: ours by its own services, the reference registry by the files
that it would have written. Then one client asks, one request at a time.
"""

from __future__ import annotations

import http.client
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from conftest import NO_LIMITS
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_registry.accounts.models import Account
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import parse_scopes
from memcube_registry.database import Database
from memcube_registry.manifests import service as manifests
from memcube_registry.storage.local import LocalFiles
from sqlmodel import select
from support.measuring import report
from support.registry_core import Core
from support.repository import ACCEPT
from support.servers import MemcubeServer, docker_registry

SIZES = (1_000, 10_000, 100_000)
TAGS = 10_000
REFERRERS = 20
REQUESTS = 400
PAGE = 100
NAME = "bench/cube"
_AT_ONCE = 500


def manifest(number: int, subject: Digest | None = None) -> bytes:
    """A manifest that is like no other. The first ones refer to number 0."""
    value = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": media_types.CUBE,
        "config": oci.EMPTY.to_json(),
        "layers": [],
        "annotations": {"org.memcube.bench": str(number)},
    }
    if subject:
        size = len(manifest(0))
        value["subject"] = {"mediaType": media_types.OCI_MANIFEST, "digest": str(subject), "size": size}  # fmt: skip
    return json.dumps(value).encode()


FIRST = Digest.of(manifest(0))


def contents(count: int) -> Iterator[tuple[bytes, str | None]]:
    """Manifests and their tags; the first 10 000 have one."""
    for number in range(count):
        subject = FIRST if 1 <= number <= REFERRERS else None
        yield manifest(number, subject), f"v{number:06}" if number < TAGS else None


@dataclass(frozen=True)
class Catalogue:
    """A registry that holds the first `count` manifests."""

    url: str
    count: int
    headers: dict[str, str]

    def latencies(self, paths: Callable[[random.Random], str]) -> tuple[float, float]:
        """Median and 99th percentile in ms of requests one after the other."""
        chosen, taken = random.Random(1), []
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        for number in range(REQUESTS + 50):
            path = paths(chosen)
            began = time.perf_counter()
            connection.request("GET", path, headers=self.headers | ACCEPT)
            answer = connection.getresponse()
            answer.read()
            if number >= 50:
                taken.append(time.perf_counter() - began)
            assert answer.status in (200, 404), (path, answer.status)
        connection.close()
        taken.sort()
        return 1e3 * taken[len(taken) // 2], 1e3 * taken[int(len(taken) * 0.99)]

    def tag(self, chosen: random.Random) -> str:
        return f"v{chosen.randrange(min(self.count, TAGS)):06}"

    def digest(self, chosen: random.Random) -> str:
        number = chosen.randrange(REFERRERS + 1, self.count)
        return str(Digest.of(manifest(number)))


@contextmanager
def ours(folder: Path, count: int) -> Iterator[Catalogue]:
    server = MemcubeServer(folder / "data", folder / "log", NO_LIMITS)
    folder.mkdir()
    server.create_account("bench")
    token = server.create_token("bench", "pull")
    database = Database(f"sqlite:///{server.data / 'registry.db'}")
    core = Core(database, LocalFiles(server.data / "blobs"), now=datetime.now(UTC))
    with database.read() as session:
        account = session.exec(select(Account).where(Account.name == "bench")).one()
        core.principal = Principal(account.id, account.name, parse_scopes("pull push delete"))
    core.push_blob(NAME, b"{}")
    waiting = list(contents(count))
    for at in range(0, count, _AT_ONCE):
        pushes = [
            manifests.read_push(raw, None, None, [tag] if tag else [])
            for raw, tag in waiting[at : at + _AT_ONCE]
        ]
        database.run(
            lambda session, pushes=pushes: [  # type: ignore[misc]
                manifests.put(session, core.principal, NAME, push, core.now) for push in pushes
            ]
        )
    database.close()
    server.start()
    try:
        yield Catalogue(server.url, count, {"Authorization": f"Bearer {token}"})
    finally:
        server.stop()


@contextmanager
def peer(folder: Path, count: int) -> Iterator[Catalogue]:
    root = folder / "blobs" / "docker/registry/v2"
    repository = root / "repositories" / NAME
    keep_peer_blob(root, b"{}")
    link(repository / "_layers", Digest.of(b"{}"))
    for raw, tag in contents(count):
        digest = keep_peer_blob(root, raw)
        link(repository / "_manifests/revisions", digest)
        if tag:
            place = repository / "_manifests/tags" / tag
            link(place / "index", digest)
            (place / "current").mkdir()
            (place / "current" / "link").write_text(str(digest))
    with docker_registry(folder) as (url, _):
        yield Catalogue(url, count, {})


def keep_peer_blob(root: Path, raw: bytes) -> Digest:
    digest = Digest.of(raw)
    folder = root / "blobs/sha256" / digest.hex[:2] / digest.hex
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").write_bytes(raw)
    return digest


def link(folder: Path, digest: Digest) -> None:
    place = folder / "sha256" / digest.hex
    place.mkdir(parents=True)
    (place / "link").write_text(str(digest))


def asked(catalogue: Catalogue, *, with_referrers: bool) -> dict[str, tuple[float, float]]:
    base = f"/v2/{NAME}"
    questions: dict[str, Callable[[random.Random], str]] = {
        "a page of 100 tags": lambda chosen: (
            f"{base}/tags/list?n={PAGE}&last={catalogue.tag(chosen)}"
        ),
        "manifest by tag": lambda chosen: f"{base}/manifests/{catalogue.tag(chosen)}",
        "manifest by digest": lambda chosen: f"{base}/manifests/{catalogue.digest(chosen)}",
    }
    if with_referrers:
        questions[f"{REFERRERS} referrers"] = lambda _: f"{base}/referrers/{quote(str(FIRST), safe=':')}"  # fmt: skip
    return {name: catalogue.latencies(paths) for name, paths in questions.items()}


def test_a_catalogue_that_grows(tmp_path: Path) -> None:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    rows = []
    for count in SIZES:
        for name, made in (("memcube", ours), ("docker-registry", peer)):
            folder = tmp_path / name
            with made(folder, count) as catalogue:
                found = asked(catalogue, with_referrers=made is ours)
            shutil.rmtree(folder)
            rows += [[what, name, count, p50, p99] for what, (p50, p99) in found.items()]
    rows.sort(key=lambda row: (row[0], row[1], row[2]))
    columns = ["GET of", "server", "manifests", "p50 ms", "p99 ms"]
    title = f"One request after the other, {REQUESTS} each, one repository with up to {TAGS} tags"
    report("catalogue", title, columns, rows)
