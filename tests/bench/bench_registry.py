"""Our server against the reference registry, with the same client: curl for blobs, wrk for manifests."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import NO_LIMITS
from memcube_protocol.digest import Digest
from support.measuring import AS_INSTALLED, GIB, Cost, alternate, measure, report, write_random
from support.repository import ACCEPT, Repository, with_query
from support.samples import one_image
from support.servers import docker_registry, memcube_server
from support.wire import Wire

ROUNDS = 5
OURS, PEER = "memcube", "docker-registry"
OURS_WITH_TOKEN = "memcube, with a token"
OURS_ALONE = "memcube --workers 1"


@dataclass(frozen=True)
class Contestant:
    repository: Repository
    pid: int

    @property
    def headers(self) -> list[str]:
        authorization = self.repository.wire.authorization
        return ["-H", f"Authorization: {authorization}"] if authorization else []


@pytest.fixture(scope="module")
def contestants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Contestant]]:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    folder = tmp_path_factory.mktemp("peer")
    with (
        memcube_server(tmp_path_factory.mktemp("ours"), NO_LIMITS | AS_INSTALLED) as server,
        docker_registry(folder) as (url, process),
    ):
        server.create_account("bench")
        wire = server.wire.bearer(server.create_token("bench", "pull", "push", "delete"))
        assert server.process is not None
        yield {
            OURS: Contestant(Repository(wire, "bench/cube"), server.process.pid),
            PEER: Contestant(Repository(Wire(url), "bench/cube"), process.pid),
        }


def curl(contestant: Contestant, *arguments: str) -> Cost:
    command = ["curl", "--silent", "--show-error", "--fail", *contestant.headers, *arguments]
    return measure(command, server=contestant.pid)


def absolute(contestant: Contestant, target: str) -> str:
    return target if "://" in target else contestant.repository.wire.url + target


def push(contestant: Contestant, path: Path, digest: Digest) -> Cost:
    """A fresh upload of `path`: what an earlier round stored is removed first."""
    contestant.repository.delete_blob(digest)
    target = absolute(contestant, contestant.repository.upload_location())
    return curl(
        contestant,
        "-X",
        "PUT",
        "-H",
        "Content-Type: application/octet-stream",
        "--upload-file",
        str(path),
        with_query(target, digest=str(digest)),
    )


def pull(contestant: Contestant, digest: Digest) -> Cost:
    target = absolute(contestant, contestant.repository.path(f"blobs/{digest}"))
    return curl(contestant, "--output", "/dev/null", target)


def test_push_and_pull_of_one_gibibyte(contestants: dict[str, Contestant], tmp_path: Path) -> None:
    paths = [write_random(tmp_path / f"blob-{n}", GIB) for n in range(ROUNDS)]
    digests = [Digest.parse("sha256:" + sha256_of(path)) for path in paths]
    pushes = {name: iter(range(ROUNDS)) for name in contestants}

    def push_next(name: str) -> Cost:
        number = next(pushes[name])
        return push(contestants[name], paths[number], digests[number])

    pushed = alternate({n: lambda n=n: push_next(n) for n in contestants}, ROUNDS)  # type: ignore[misc]
    for contestant in contestants.values():
        pull(contestant, digests[-1])  # warms the page cache alike
    pulled = alternate(
        {n: lambda c=c: pull(c, digests[-1]) for n, c in contestants.items()},
        ROUNDS,  # type: ignore[misc]
    )
    rows = [
        [what, name, cost.wall_s, cost.server_cpu_s, cost.client_cpu_s]
        for what, costs in (("push", pushed), ("pull", pulled))
        for name, cost in costs.items()
    ]
    columns = ["1 GiB blob with curl", "server", "wall s", "server CPU s", "client CPU s"]
    report("registry_blobs", f"One blob of 1 GiB, medians of {ROUNDS} runs", columns, rows)


def sha256_of(path: Path) -> str:
    done = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def requests_per_second(contestant: Contestant, reference: str) -> float:
    target = absolute(contestant, contestant.repository.path(f"manifests/{reference}"))
    done = subprocess.run(
        [
            "wrk",
            "-t2",
            "-c16",
            "-d5s",
            "-H",
            f"Accept: {ACCEPT['Accept']}",
            *contestant.headers,
            target,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Non-2xx" not in done.stdout, done.stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found.group(1))


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contestant]:
    settings = NO_LIMITS | {"MEMCUBE_REGISTRY_WORKERS": "1"}
    with memcube_server(tmp_path_factory.mktemp("one"), settings) as server:
        server.create_account("bench")
        wire = server.wire.bearer(server.create_token("bench", "pull", "push"))
        assert server.process is not None
        yield Contestant(Repository(wire, "bench/cube"), server.process.pid)


def test_manifests_a_second(contestants: dict[str, Contestant], one_worker: Contestant) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    sample, ours = one_image("v1"), contestants[OURS]
    for contestant in (*contestants.values(), one_worker):
        sample.push(contestant.repository)
    asked = {
        OURS: read_by_anybody(ours),
        OURS_ALONE: read_by_anybody(one_worker),
        PEER: contestants[PEER],
        OURS_WITH_TOKEN: ours,
    }
    rows = []
    for what, reference in (("tag", "v1"), ("digest", str(sample.top))):
        rates: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(3):
            for name, contestant in asked.items():
                rates[name].append(requests_per_second(contestant, reference))
        rows += [[what, name, round(sorted(each)[1])] for name, each in rates.items()]
    columns = ["GET of a manifest by", "server", "requests a second"]
    report("registry_manifests", "Manifests, 16 connections, medians of 3 runs", columns, rows)


def read_by_anybody(contestant: Contestant) -> Contestant:
    """The same repository, public and asked without a login, as the reference registry is asked."""
    repository = contestant.repository
    reply = repository.wire.put(
        f"/api/v1/cubes/{repository.name}",
        body=b'{"visibility": "public"}',
        headers={"Content-Type": "application/json"},
    )
    assert reply.status == 200, reply
    return Contestant(repository.seen_by(repository.wire.anonymous()), contestant.pid)
