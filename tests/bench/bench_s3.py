"""A registry on S3: pulls by redirect and through it, direct pushes, against `aws s3 cp` on the same S3 server.

The S3 server is OpenStack Swift on loopback; it is the slowest part of all, and the same for everybody.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import NO_LIMITS
from memcube_protocol.digest import Digest
from support.machine import Machine
from support.measuring import (
    AS_INSTALLED,
    GIB,
    Cost,
    alternate,
    measure,
    medians,
    report,
    write_random,
)
from support.repository import Repository
from support.servers import (
    clean_environment,
    command,
    docker_registry,
    memcube_server,
    run,
)
from support.swift import SwiftServer, swift_server
from support.wire import Wire

ROUNDS = int(os.environ.get("MEMCUBE_BENCH_ROUNDS", "3"))
AWS = "aws s3 cp"
REDIRECT, STREAM = "memcube, redirect", "memcube, streaming"
PEER_REDIRECT, PEER_STREAM = "docker-registry, redirect", "docker-registry, streaming"
PEER_S3 = (
    "s3: {{accesskey: '{access}', secretkey: '{secret}', region: {region}, bucket: {bucket}, "
    "regionendpoint: '{endpoint}', secure: false}}\n  redirect: {{disable: {disable}}}"
)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: these files are large."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def store(scratch: Path) -> Iterator[SwiftServer]:
    """An S3 server of this test alone."""
    with swift_server(scratch / "swift") as server:
        yield server


@dataclass(frozen=True)
class Contestant:
    """A registry whose public repository holds the blob."""

    url: str
    pid: int


def settings_of(store: SwiftServer, **more: str) -> dict[str, str]:
    return NO_LIMITS | AS_INSTALLED | store.registry_settings(**more)


def make_public(wire: Wire, name: str) -> None:
    reply = wire.put(
        f"/api/v1/cubes/{name}",
        body=b'{"visibility": "public"}',
        headers={"Content-Type": "application/json"},
    )
    assert reply.status == 200, reply


@contextmanager
def ours(folder: Path, store: SwiftServer, path: Path, reads: str) -> Iterator[Contestant]:
    with memcube_server(folder, settings_of(store, S3_READS=reads)) as server:
        server.create_account("bench")
        wire = server.wire.bearer(server.create_token("bench", "pull", "push"))
        digest = push(Repository(wire, "bench/cube"), path)
        make_public(wire, "bench/cube")
        assert server.process is not None
        yield Contestant(f"{server.url}/v2/bench/cube/blobs/{digest}", server.process.pid)


@contextmanager
def peer(folder: Path, store: SwiftServer, path: Path, disable: str) -> Iterator[Contestant]:
    """The reference registry with its own S3 driver."""
    folder.mkdir()
    options = store.environment
    storage = PEER_S3.format(
        access=options["AWS_ACCESS_KEY_ID"],
        secret=options["AWS_SECRET_ACCESS_KEY"],
        region=options["AWS_DEFAULT_REGION"],
        endpoint=store.endpoint_url,
        bucket=store.bucket(),
        disable=disable,
    )
    with docker_registry(folder, storage=storage) as (url, process):
        digest = push(Repository(Wire(url), "bench/cube"), path)
        yield Contestant(f"{url}/v2/bench/cube/blobs/{digest}", process.pid)


def push(repository: Repository, path: Path) -> Digest:
    """Store the file under its digest, through the registry."""
    digest = Digest.parse("sha256:" + run(["sha256sum", str(path)]).stdout.split()[0])
    target = repository.upload_location()
    url = target if "://" in target else repository.wire.url + target
    arguments = ["curl", "-sSf", "-X", "PUT", "--upload-file", str(path)]
    if repository.wire.authorization:
        arguments += ["-H", f"Authorization: {repository.wire.authorization}"]
    divider = "&" if "?" in url else "?"
    done = run([*arguments, f"{url}{divider}digest={digest}"], timeout=600)
    assert done.returncode == 0, done.stderr
    return digest


def test_cpu_of_the_registry_for_a_pull(scratch: Path, store: SwiftServer) -> None:
    path = write_random(scratch / "blob", GIB)

    def pull(contestant: Contestant) -> Cost:
        arguments = ["curl", "-sSfL", "--output", "/dev/null", contestant.url]
        return measure(arguments, server=contestant.pid)

    with (
        ours(scratch / "redirect", store, path, "redirect") as redirect,
        ours(scratch / "stream", store, path, "stream") as stream,
    ):
        contestants = {REDIRECT: redirect, STREAM: stream}
        if shutil.which("docker-registry") is None:
            costs = alternate({n: lambda c=c: pull(c) for n, c in contestants.items()}, ROUNDS)  # type: ignore[misc]
        else:
            with (
                peer(scratch / "peer-redirect", store, path, "false") as by_redirect,
                peer(scratch / "peer-stream", store, path, "true") as through,
            ):
                contestants |= {PEER_REDIRECT: by_redirect, PEER_STREAM: through}
                costs = alternate({n: lambda c=c: pull(c) for n, c in contestants.items()}, ROUNDS)  # type: ignore[misc]
    rows = [
        [name, cost.wall_s, cost.server_cpu_s, cost.client_cpu_s] for name, cost in costs.items()
    ]
    columns = ["1 GiB blob on S3, pulled with curl", "wall s", "registry CPU s", "client CPU s"]
    report("s3_registry", f"A pull of 1 GiB from S3, medians of {ROUNDS} runs", columns, rows)


SENDERS: dict[str, dict[str, str]] = {
    "memcube": {},
    "memcube, in parts (s3_whole_bytes=64MiB)": {"S3_WHOLE_BYTES": "64MiB"},
}


def test_push_and_pull_against_aws(scratch: Path, store: SwiftServer) -> None:
    if shutil.which("aws") is None:
        pytest.skip("aws, the AWS command line, is not installed (pip install awscli)")
    cube, wav = make_cube(scratch / "cube")
    runs = {
        name: lambda more=more: with_memcube(scratch, store, cube, more)  # type: ignore[misc]
        for name, more in SENDERS.items()
    }
    runs[AWS] = lambda: with_aws(scratch, store, wav)
    costs: dict[str, list[dict[str, Cost]]] = {name: [] for name in runs}
    for number in range(ROUNDS):
        for name in [*runs] if number % 2 == 0 else [*reversed(runs)]:
            costs[name].append(runs[name]())
    rows = []
    for what in ("push", "pull"):
        for name, each in costs.items():
            cost = medians(one[what] for one in each)
            rows.append([what, name, cost.wall_s, cost.client_cpu_s, cost.server_cpu_s])
    columns = ["1 GiB", "with", "wall s", "client CPU s", "registry CPU s"]
    report("s3_client", f"1 GiB to and from S3, medians of {ROUNDS} runs", columns, rows)


def make_cube(folder: Path) -> tuple[Path, Path]:
    """A cube folder with one attachment of 1 GiB, and that file."""
    done = run([command("memcube"), "init", str(folder), "--name", "bench/cube"])
    assert done.returncode == 0, done.stderr
    (folder / "attachments").mkdir()
    return folder, write_random(folder / "attachments" / "sound.wav", GIB)


def pack(home: Path, cube: Path) -> None:
    """Pack the cube into the store of `home`: what `aws s3 cp` need not do either."""
    machine = Machine(home, "http://127.0.0.1:7070")
    words = [command("memcube"), "pack", str(cube)]
    done = run(words, env=machine.environment, timeout=600)
    assert done.returncode == 0, done.stderr


def with_memcube(
    scratch: Path, store: SwiftServer, cube: Path, more: Mapping[str, str]
) -> dict[str, Cost]:
    """A push of the packed cube to an empty registry, and a pull to an empty home."""
    folder = scratch / "run"
    pack(folder / "publisher", cube)
    with memcube_server(folder, settings_of(store, **more)) as server:
        server.create_account("bench")
        token = server.create_token("bench", "pull", "push", "delete")
        assert server.process is not None
        pid, name = server.process.pid, "bench/cube:0.1.0"
        machine = Machine(folder / "publisher", server.url, token)
        reader = replace(machine, home=folder / "reader")
        done = {
            "push": measure(
                [command("memcube"), "push", name], server=pid, env=machine.environment
            ),
            "pull": measure([command("memcube"), "pull", name], server=pid, env=reader.environment),
        }
    shutil.rmtree(folder)
    empty(store, server.settings["MEMCUBE_REGISTRY_S3_BUCKET"])
    return done


def with_aws(scratch: Path, store: SwiftServer, path: Path) -> dict[str, Cost]:
    """The file alone to an empty bucket and back."""
    bucket, target = store.bucket(), scratch / "from-aws"
    base = ["aws", "--endpoint-url", store.endpoint_url, "s3", "cp", "--only-show-errors"]
    environment = clean_environment(**store.environment, HOME=str(scratch))
    object_url = f"s3://{bucket}/blob"
    done = {
        "push": measure([*base, str(path), object_url], env=environment),
        "pull": measure([*base, object_url, str(target)], env=environment),
    }
    target.unlink()
    empty(store, bucket)
    return done


def empty(store: SwiftServer, bucket: str) -> None:
    client = store.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", ()):
            client.delete_object(Bucket=bucket, Key=found["Key"])
