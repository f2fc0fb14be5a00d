"""Our registry with its blobs in a repository of the Hub: what goes where, and what never does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person
from memcube_protocol.digest import Digest
from support.folders import publish, push_files
from support.hub import HubServer, Seen, hub_server
from support.hub_library import OLDER, HubLibrary, both_versions
from support.machine import Machine
from support.scripted import Answer
from support.servers import MemcubeServer, clean_environment, memcube_server
from support.wire import Reply, Wire

pytest.importorskip("huggingface_hub")

NAME = "acme/blobs"


@dataclass(frozen=True)
class Pair:
    """A registry, the Hub behind it, the token that the registry uses there, and somebody."""

    server: MemcubeServer
    hub: HubServer
    hub_token: str
    ada: Person

    def commits(self) -> int:
        return len(self.hub.state.of("dataset", NAME).commits)

    def files(self) -> list[str]:
        paths = self.hub.state.of("dataset", NAME).head.files
        return sorted(path for path in paths if path.startswith("blobs/"))


@contextmanager
def registry_on_hub(folder: Path, *, private: bool = True, **settings: str) -> Iterator[Pair]:
    with hub_server(folder / "hub") as hub:
        token = hub.state.token("acme")
        hub.state.create("dataset", NAME, private=private)
        named = {
            "STORAGE": "hub",
            "HUB_REPOSITORY": NAME,
            "HUB_ENDPOINT": hub.url,
            "HUB_TOKEN": token,
            **settings,
        }
        environment = NO_LIMITS | {f"MEMCUBE_REGISTRY_{name}": v for name, v in named.items()}
        with memcube_server(folder / "registry", environment) as server:
            server.create_account("ada")
            ada = Person(server, "ada", server.create_token("ada", *ALL_SCOPES))
            yield Pair(server, hub, token, ada)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with registry_on_hub(tmp_path_factory.mktemp("pair")) as made:
        yield made


@pytest.fixture(autouse=True)
def _calm(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did to the shared Hub ends with it."""
    yield
    if "pair" in request.fixturenames:
        request.getfixturevalue("pair").hub.script = lambda seen: None


def fetched(reply: Reply) -> bytes:
    """What lies where a redirect leads, asked for without any credentials."""
    location = urlsplit(reply.header("Location") or "")
    wire = Wire(f"{location.scheme}://{location.netloc}")
    return wire.get(f"{location.path}?{location.query}").body


def test_blobs_are_lfs_files_under_their_sha256_and_leave_by_the_cdn(pair: Pair) -> None:
    repository, content = pair.ada.repository(), os.urandom(100_000)
    digest = repository.add_blob(content)
    held = pair.hub.state.of("dataset", NAME).head.files
    assert digest.hex in {file.lfs for file in held.values()}
    reply = repository.get_blob(digest)
    assert (reply.status, fetched(reply)) == (307, content)
    assert reply.header(
        "Location",
    ).startswith(pair.hub.storage_url)
    assert repository.head_blob(digest).status == 200


def test_the_registrys_token_goes_to_the_hub_alone(pair: Pair) -> None:
    repository = pair.ada.repository()
    digest = repository.add_blob(b"told to nobody")
    reply = repository.get_blob(digest)
    assert pair.hub_token not in str(reply.headers)
    assert pair.hub.url + "/" not in (reply.header("Location") or "")
    assert pair.hub.tokens_sent("storage") == set()
    assert pair.hub.tokens_sent("hub") == {f"Bearer {pair.hub_token}"}
    assert pair.hub_token not in pair.server.log_text()
    assert pair.hub_token not in pair.server.admin("settings").stdout


def test_what_the_hub_keeps_in_git_itself_is_streamed(pair: Pair) -> None:
    repository = pair.ada.repository()
    digest = repository.add_blob(b"")
    reply = repository.get_blob(digest)
    assert (reply.status, reply.body) == (200, b"")


def test_a_range_is_kept_on_the_way(pair: Pair) -> None:
    repository, content = pair.ada.repository(), os.urandom(50_000)
    digest = repository.add_blob(content)
    location = urlsplit(repository.get_blob(digest, "bytes=10-19").header("Location") or "")
    wire = Wire(f"{location.scheme}://{location.netloc}")
    part = wire.get(f"{location.path}?{location.query}", headers={"Range": "bytes=10-19"})
    assert part.body == content[10:20]


def test_blobs_that_finish_together_share_a_commit(pair: Pair) -> None:
    repository = pair.ada.repository()
    repository.add_blob(b"first of all")
    before, blobs = pair.commits(), [os.urandom(40) for _ in range(24)]

    def slow(seen: Seen) -> Answer | None:
        if "/commit/" in seen.path:
            time.sleep(0.5)
        return None

    pair.hub.script = slow
    with ThreadPoolExecutor(12) as pool:
        digests = list(pool.map(repository.add_blob, blobs))
    assert {repository.head_blob(digest).status for digest in digests} == {200}
    assert pair.commits() - before <= len(blobs) // 2


def test_a_busy_hub_is_asked_again(pair: Pair) -> None:
    refusals = [429, 503, 412]

    def busy(seen: Seen) -> Answer | None:
        if "/commit/" in seen.path and refusals:
            return Answer(refusals.pop(), {"Retry-After": "0"}, b"{}")
        return None

    pair.hub.script = busy
    repository = pair.ada.repository()
    digest = repository.add_blob(b"in the end")
    assert refusals == []
    assert fetched(repository.get_blob(digest)) == b"in the end"


def test_a_hub_that_is_down_is_503_and_nothing_needs_a_restart(pair: Pair) -> None:
    repository = pair.ada.repository()
    digest = repository.add_blob(b"before")
    pair.hub.script = lambda seen: Answer(503, {"Retry-After": "3600"}, b"{}")
    refused = repository.put_blob(b"meanwhile", Digest.of(b"meanwhile"))
    assert (refused.status, refused.header("Retry-After")) == (503, "5")
    assert pair.server.wire.get("/readyz").status == 503
    assert repository.head_blob(digest).status == 200
    pair.hub.script = lambda seen: None
    assert repository.put_blob(b"meanwhile", Digest.of(b"meanwhile")).status == 201
    assert pair.server.wire.get("/readyz").status == 200
    assert fetched(repository.get_blob(digest)) == b"before"


def test_an_upload_that_the_hub_did_not_take_can_be_finished_later(pair: Pair) -> None:
    repository, content = pair.ada.repository(), os.urandom(5_000)
    location = repository.upload_location()
    assert repository.patch(location, content).status == 202
    pair.hub.script = lambda seen: Answer(503, {"Retry-After": "3600"}, b"{}")
    assert repository.finish_upload(location, Digest.of(content)).status == 503
    pair.hub.script = lambda seen: None
    assert repository.finish_upload(location, Digest.of(content)).status == 201
    assert fetched(repository.get_blob(Digest.of(content))) == content


def test_what_nothing_needs_goes_from_the_branch_in_few_commits(tmp_path: Path) -> None:
    with registry_on_hub(tmp_path, GC_GRACE_S="0", GC_INTERVAL_S="0") as pair:
        repository = pair.ada.repository("kept")
        for number in range(12):
            repository.add_blob(b"blob %d" % number)
        assert len(pair.files()) == 12
        before = pair.commits()
        deadline = time.monotonic() + 60
        while pair.files() and time.monotonic() < deadline:
            pair.server.admin("gc")
        assert pair.files() == []
        assert pair.commits() - before < 12


def test_a_public_repository_takes_nothing(tmp_path: Path) -> None:
    with registry_on_hub(tmp_path, private=False) as pair:
        assert pair.server.wire.get("/readyz").status == 503
        repository = pair.ada.repository()
        refused = repository.put_blob(b"secret", Digest.of(b"secret"))
        assert refused.status >= 500
        assert "public" in pair.server.log_text()
        assert pair.files() == []


def test_streamed_reads_tell_no_address(tmp_path: Path) -> None:
    with registry_on_hub(tmp_path, HUB_READS="stream") as pair:
        repository, content = pair.ada.repository(), os.urandom(2_000_000)
        digest = repository.add_blob(content)
        assert repository.get_blob(digest).body == content
        part = repository.get_blob(digest, "bytes=1000000-")
        assert (part.status, part.body) == (206, content[1_000_000:])
        assert pair.hub.tokens_sent("storage") == set()


@both_versions
def test_the_hubs_library_reads_through_the_registry_and_leaves_its_token_there(
    python: Path, pair: Pair, tmp_path: Path
) -> None:
    files = {"a.safetensors": os.urandom(300_000), "README.md": b"# Cube"}
    made = push_files(pair.ada.repository(), files, "latest")
    seen = len(pair.hub.seen)
    library = HubLibrary(python, pair.server.url, tmp_path / "home", pair.ada.token)
    place = Path(library.run("say(snapshot_download(sys.argv[1]))", made.name))
    assert {path.name: path.read_bytes() for path in place.iterdir()} == files
    reads = [one for one in pair.hub.seen[seen:] if one.site == "storage" and one.method == "GET"]
    assert len(reads) == 2
    assert {one.authorization for one in reads} == {None}
    publish(pair.ada, made.name)
    anybody = HubLibrary(python, pair.server.url, tmp_path / "other")
    assert anybody.hf("download", made.name, "README.md").returncode == 0


def test_a_cube_is_pushed_pulled_and_checked_with_its_blobs_on_the_hub(
    pair: Pair, tmp_path: Path
) -> None:
    folder = tmp_path / "cube"
    (folder / "plaintext").mkdir(parents=True)
    (folder / "plaintext" / "notes.jsonl").write_text('{"id":"r1","text":"kept on the Hub"}\n')
    (folder / "memcube.toml").write_text('name = "ada/on-the-hub"\nversion = "1.0.0"\n')
    before = pair.commits()
    pushed = Machine(tmp_path / "home", pair.server.url, pair.ada.token).json("push", folder)
    reader = Machine(tmp_path / "reader", pair.server.url, pair.ada.token)
    assert reader.json("pull", "ada/on-the-hub")["digest"] == pushed["digest"]
    assert pair.commits() > before
    assert pair.hub.tokens_sent("storage") == set()
    report = json.loads(pair.server.admin("fsck", "--all", "--json").stdout)
    assert report["damage"] == 0


@pytest.mark.parametrize("moment", ["storage PUT", "/commit/"])
def test_a_registry_killed_on_the_way_to_the_hub_loses_nothing_acknowledged(
    tmp_path: Path, moment: str
) -> None:
    with registry_on_hub(tmp_path, GC_GRACE_S="0", GC_INTERVAL_S="0") as pair:
        repository, content = pair.ada.repository(), os.urandom(20_000)
        kept = repository.add_blob(b"acknowledged before")
        location = repository.upload_location()
        assert repository.patch(location, content).status == 202
        reached, go_on = threading.Event(), threading.Event()

        def hold(seen: Seen) -> None:
            if moment in str(seen):
                reached.set()
                go_on.wait(60)

        pair.hub.script = hold
        digest = Digest.of(content)
        with ThreadPoolExecutor(1) as pool:
            cut = pool.submit(repository.finish_upload, location, digest)
            assert reached.wait(60)
            pair.server.kill()
            go_on.set()
            with pytest.raises((OSError, HTTPException)):
                cut.result()
        pair.hub.script = lambda seen: None
        pair.server.start()
        assert repository.head_blob(digest).status == 404
        assert fetched(repository.get_blob(kept)) == b"acknowledged before"
        assert repository.finish_upload(location, digest).status == 201
        assert fetched(repository.get_blob(digest)) == content
        # A commit that was made all the same names an orphan; the sweep takes it after an hour.
        orphans = {"/commit/": 1}.get(moment, 0)
        deadline = time.monotonic() + 60
        while len(pair.files()) > orphans and time.monotonic() < deadline:
            pair.server.admin("gc")
        assert len(pair.files()) <= orphans
        assert not list((pair.server.data / "staging" / "uploads").iterdir())


@pytest.mark.skipif(not OLDER.exists(), reason="run .ci/hub for an older huggingface_hub")
def test_the_store_works_with_the_older_library_too() -> None:
    root = Path(__file__).parents[2]
    packages = next((OLDER.parents[1] / "lib").glob("python3*/site-packages"))
    tests = "tests/unit/registry/storage/test_hub_store.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        cwd=root,
        env=clean_environment(PYTHONPATH=str(packages)),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert " passed" in done.stdout
