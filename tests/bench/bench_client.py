"""Our client and server against oras and skopeo with the reference registry, whole cubes at a time."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import NO_LIMITS
from memcube_protocol.digest import Digest
from support.machine import Machine
from support.measuring import (
    AS_INSTALLED,
    GIB,
    MIB,
    Cost,
    alternate,
    measure,
    medians,
    report,
    write_random,
)
from support.nginx import nginx
from support.proxy import Counter, counting_proxy
from support.repository import IMAGE
from support.samples import EMPTY_JSON, to_json
from support.servers import (
    clean_environment,
    command,
    docker_registry,
    free_port,
    memcube_server,
    run,
)

LAYERS = 32
ROUNDS = 3
RECORDS = 100_000
TYPE = "application/vnd.example.memcube.bench.v1"
OURS, BEHIND_NGINX = "memcube", "memcube, blobs sent by nginx"
ORAS, SKOPEO = "oras + docker-registry", "skopeo + docker-registry"


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: these files are large."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def make_cube(folder: Path, files: int, file_bytes: int) -> Path:
    """A cube folder with `files` attachments of random bytes."""
    done = run([command("memcube"), "init", str(folder), "--name", "bench/cube"])
    assert done.returncode == 0, done.stderr
    (folder / "attachments").mkdir()
    for number in range(files):
        write_random(folder / "attachments" / f"part-{number:02}.wav", file_bytes)
    return folder


@contextmanager
def fresh_machine(folder: Path) -> Iterator[tuple[Machine, int]]:
    """A user with an empty home, and the process of an empty server of ours."""
    folder.mkdir(parents=True)
    try:
        with memcube_server(folder, NO_LIMITS | AS_INSTALLED) as server:
            server.create_account("bench")
            token = server.create_token("bench", "pull", "push", "delete")
            assert server.process is not None
            yield Machine(folder / "home", server.url, token), server.process.pid
    finally:
        shutil.rmtree(folder)


@contextmanager
def fresh_machine_behind_nginx(folder: Path) -> Iterator[tuple[Machine, tuple[int, int]]]:
    """The same, where the nginx of the guide stands before the server and sends its blobs."""
    folder.mkdir(parents=True)
    port = free_port()
    settings = {
        "MEMCUBE_REGISTRY_LOCAL_READS": "nginx",
        "MEMCUBE_REGISTRY_EXTERNAL_URL": f"http://127.0.0.1:{port}",
    }
    try:
        with memcube_server(folder, NO_LIMITS | AS_INSTALLED | settings) as server:
            blobs = server.data / "blobs" / "blobs"
            with nginx(folder / "nginx", [server.port], port, blobs=blobs) as front:
                server.create_account("bench")
                token = server.create_token("bench", "pull", "push", "delete")
                assert server.process is not None
                machine = Machine(folder / "home", front.url, token)
                yield machine, (server.process.pid, front.process.pid)
    finally:
        shutil.rmtree(folder)


@contextmanager
def fresh_peer(folder: Path) -> Iterator[tuple[str, int]]:
    """Host and process of an empty reference registry."""
    folder.mkdir(parents=True)
    try:
        with docker_registry(folder) as (url, process):
            yield url.removeprefix("http://"), process.pid
    finally:
        shutil.rmtree(folder)


def memcube(machine: Machine, server: int | tuple[int, ...], *arguments: str | Path) -> Cost:
    """One command, in a process of its own as users run it."""
    words = [command("memcube"), *map(str, arguments)]
    return measure(words, server=server, env=machine.environment)


def with_memcube(cube: Path, scratch: Path, *, behind_nginx: bool = False) -> dict[str, Cost]:
    fresh = fresh_machine_behind_nginx if behind_nginx else fresh_machine
    with fresh(scratch / "memcube") as (machine, pid):
        push = memcube(machine, pid, "push", cube)
        reader = replace(machine, home=machine.home.with_name("reader"))
        return {"push": push, "pull": memcube(reader, pid, "pull", "bench/cube:0.1.0")}


def with_oras(cube: Path, scratch: Path) -> dict[str, Cost]:
    with fresh_peer(scratch / "oras") as (host, pid):
        names = sorted(str(path.relative_to(cube)) for path in cube.rglob("*.wav"))
        target, environment = f"{host}/bench/cube:v1", clean_environment(HOME=str(scratch))
        push = measure(
            ["oras", "push", "--plain-http", "--artifact-type", TYPE, target, *names],
            server=pid,
            cwd=cube,
            env=environment,
        )
        pull = measure(
            ["oras", "pull", "--plain-http", target, "-o", str(scratch / "oras" / "out")],
            server=pid,
            env=environment,
        )
        return {"push": push, "pull": pull}


def with_skopeo(layout: Path, scratch: Path) -> dict[str, Cost]:
    with fresh_peer(scratch / "skopeo") as (host, pid):
        target = f"docker://{host}/bench/cube:v1"
        copy = ["skopeo", "copy", "--preserve-digests", "--quiet"]
        push = measure([*copy, "--dest-tls-verify=false", f"oci:{layout}:v1", target], server=pid)
        pull = measure(
            [*copy, "--src-tls-verify=false", target, f"oci:{scratch}/skopeo/out:v1"], server=pid
        )
        return {"push": push, "pull": pull}


def make_layout(cube: Path, layout: Path) -> Path:
    """The cube's large files as an OCI layout, which is what skopeo reads: linked, not copied."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    descriptors = []
    for path in sorted(cube.rglob("*.wav")):
        digest = Digest.of(path.read_bytes())
        (blobs / digest.hex).hardlink_to(path)
        size = path.stat().st_size
        descriptors.append({"mediaType": TYPE, "digest": str(digest), "size": size})
    config = {"mediaType": EMPTY_JSON, "digest": str(Digest.of(b"{}")), "size": 2}
    manifest = to_json(
        {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": descriptors}
    )
    for content in (b"{}", manifest):
        (blobs / Digest.of(content).hex).write_bytes(content)
    entry = {"mediaType": IMAGE, "digest": str(Digest.of(manifest)), "size": len(manifest)}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    (layout / "index.json").write_bytes(to_json({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


def test_push_and_verified_pull_of_one_gibibyte(scratch: Path) -> None:
    cube = make_cube(scratch / "cube", LAYERS, GIB // LAYERS)
    layout = make_layout(cube, scratch / "layout")
    ways: dict[str, Callable[[], dict[str, Cost]]] = {OURS: lambda: with_memcube(cube, scratch)}
    if shutil.which("nginx"):
        ways[BEHIND_NGINX] = lambda: with_memcube(cube, scratch, behind_nginx=True)
    if shutil.which("oras"):
        ways[ORAS] = lambda: with_oras(cube, scratch)
    if shutil.which("skopeo"):
        ways[SKOPEO] = lambda: with_skopeo(layout, scratch)
    pulls: dict[str, list[Cost]] = {name: [] for name in ways}

    def push(name: str) -> Cost:
        costs = ways[name]()
        pulls[name].append(costs["pull"])
        return costs["push"]

    pushed = alternate({name: lambda name=name: push(name) for name in ways}, ROUNDS)  # type: ignore[misc]
    pulled = {name: medians(each) for name, each in pulls.items()}
    rows = [
        [what, name, cost.wall_s, cost.total_cpu_s, cost.client_cpu_s, cost.server_cpu_s]
        for what, costs in (("push", pushed), ("verified pull", pulled))
        for name, cost in costs.items()
    ]
    columns = ["1 GiB cube", "with", "wall s", "CPU s in all", "client CPU s", "server CPU s"]
    report("client_cube", f"A cube of 1 GiB in 32 layers, medians of {ROUNDS}", columns, rows)


def test_peak_memory_of_the_client(scratch: Path) -> None:
    cube = make_cube(scratch / "cube", 8, 4 * GIB // 8)
    with fresh_machine(scratch / "memcube") as (machine, pid):
        push = memcube(machine, pid, "push", cube)
        shutil.rmtree(machine.home / "store", ignore_errors=True)
        reader = replace(machine, home=machine.home.with_name("reader"))
        pull = memcube(reader, pid, "pull", "bench/cube:0.1.0")
    rows = [
        [what, round(cost.peak_bytes / MIB), cost.wall_s]
        for what, cost in (("push", push), ("verified pull", pull))
    ]
    columns = ["4 GiB cube", "peak resident MiB of the client", "wall s"]
    report("client_memory", "Memory of the client", columns, rows)


PAGES = Path(__file__).parents[3] / "shared/data/tldr/pages.jsonl.gz"


def sentences() -> list[str]:
    """Real sentences where the shared help pages are here, else made-up ones."""
    if not PAGES.exists():
        chosen = random.Random(1)
        words = [f"word{number}" for number in range(2000)]
        return [" ".join(chosen.choices(words, k=chosen.randint(8, 40))) for _ in range(20_000)]
    with gzip.open(PAGES) as lines:
        pages = [json.loads(line) for line in lines]
    return [f"{each['task']}: {each['command']}" for page in pages for each in page["examples"]]


def write_records(path: Path, edited: set[int]) -> None:
    """100 000 records of one to eight sentences; to those in `edited` a word was added."""
    texts, chosen = sentences(), random.Random(2)
    with path.open("w") as file:
        for number in range(RECORDS):
            text = "\n".join(chosen.sample(texts, chosen.randint(1, 8)))
            text += "\nEdited." if number in edited else ""
            record = {"id": f"memory/{number:06}", "text": text, "tags": [f"topic-{number % 97}"]}
            file.write(json.dumps(record) + "\n")


def set_version(folder: Path, version: str) -> None:
    toml = folder / "memcube.toml"
    lines = toml.read_text().splitlines()
    lines = [f'version = "{version}"' if line.startswith("version =") else line for line in lines]
    toml.write_text("\n".join(lines) + "\n")


@contextmanager
def counted_memcube(scratch: Path) -> Iterator[tuple[Machine, Counter]]:
    """A user of a server of ours who reaches it through a proxy that counts."""
    port = free_port()
    with counting_proxy(port) as counter:
        settings = NO_LIMITS | AS_INSTALLED | {"MEMCUBE_REGISTRY_EXTERNAL_URL": counter.url}
        with memcube_server(scratch / "server", settings, port=port) as server:
            server.create_account("bench")
            token = server.create_token("bench", "pull", "push")
            yield Machine(scratch / "home", counter.url, token, own_process=True), counter


@contextmanager
def counted_peer(scratch: Path) -> Iterator[Counter]:
    (scratch / "peer").mkdir()
    with docker_registry(scratch / "peer") as (url, _), counting_proxy(int(url[-5:])) as counter:
        yield counter


def oras_push(counter: Counter, folder: Path, tag: str) -> None:
    target = f"127.0.0.1:{counter.port}/bench/cube:{tag}"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    done = run(
        ["oras", "push", "--plain-http", "--artifact-type", TYPE, target, *files], cwd=folder
    )
    assert done.returncode == 0, done.stderr


EDITS = {
    "nothing": lambda: set[int](),
    "1 % of the records, neighbours": lambda: set(range(40_000, 40_000 + RECORDS // 100)),
    "1 % of the records, scattered": lambda: set(
        random.Random(7).sample(range(RECORDS), RECORDS // 100)
    ),
}


def test_second_push_after_an_edit(scratch: Path) -> None:
    rows = []
    for kind, edited in EDITS.items():
        with counted_memcube(scratch) as (machine, counter):
            folder = make_cube(scratch / "cube", 0, 0)
            records = folder / "plaintext" / "records.jsonl"
            write_records(records, set())
            machine.ok("push", folder)
            first = counter.sent_bytes
            counter.reset()
            write_records(records, edited())
            if edited():
                set_version(folder, "0.2.0")
            answer = machine.json("push", folder)
            rows.append([kind, OURS, *_sent(counter, first, answer["sentBytes"])])
        if shutil.which("oras"):
            with counted_peer(scratch) as counter:
                write_records(records, set())
                oras_push(counter, folder, "v1")
                first = counter.sent_bytes
                counter.reset()
                write_records(records, edited())
                oras_push(counter, folder, "v1" if not edited() else "v2")
                rows.append([kind, ORAS, *_sent(counter, first, None)])
        for name in ("cube", "home", "server", "peer"):
            shutil.rmtree(scratch / name, ignore_errors=True)
    columns = [
        "changed since the first push",
        "with",
        "first push, bytes",
        "second push, bytes",
        "of the first",
        "layers alone",
        "requests",
    ]
    report("client_edits", "A second push of 100 000 records", columns, rows)


def _sent(counter: Counter, first_bytes: int, layer_bytes: int | None) -> list[object]:
    def share(part: int) -> str:
        return f"{100 * part / first_bytes:.2f} %"

    layers = "not said" if layer_bytes is None else share(layer_bytes)
    requests = len(counter.without_tokens())
    return [first_bytes, counter.sent_bytes, share(counter.sent_bytes), layers, requests]
