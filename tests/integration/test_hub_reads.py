"""The Hub's own library reads cubes from our registry: two versions of it, with and without Xet."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Person, fresh
from support.folders import Folder, publish, push_files
from support.hostile import Hostile
from support.hub_library import HubLibrary, both_versions
from support.scripted import Answer, Received, scripted
from support.servers import clean_environment

MIB = 1 << 20
LARGE = os.urandom(3_000_001)
FILES = {
    "README.md": b"# A cube\n",
    "plaintext/records/0000.jsonl.zst": b"records",
    "parametric/style/adapter_model.safetensors": LARGE,
    "attachments/\u00e9tude no. 1 (draft)+100%.txt": b"a name with everything",
    "attachments/empty.txt": b"",
}
OLD = {"README.md": b"# The first version\n"}
SETTINGS = [{}, {"HF_HUB_DISABLE_XET": "1"}]


@pytest.fixture(scope="module")
def public(ada: Person) -> Folder:
    made = push_files(ada.repository(fresh("files")), OLD, "1.0.0", "latest")
    made = push_files(made.repository, FILES, "2.0.0", "latest")
    publish(ada, made.name)
    return made


@pytest.fixture(scope="module")
def private(ada: Person) -> Folder:
    return push_files(ada.repository(fresh("secret")), {"diary.txt": b"dear diary"}, "latest")


@pytest.fixture
def library(python: Path, ada: Person, tmp_path: Path) -> HubLibrary:
    """Somebody without a token."""
    return HubLibrary(python, ada.server.url, tmp_path / "home")


@pytest.fixture
def front(ada: Person) -> Iterator[Hostile]:
    """A line to the registry on which a test can break things."""
    made: list[Hostile] = []
    with scripted(lambda request: made[0].answer(request)) as line:
        made.append(Hostile(line, ada.server))
        yield made[0]


def contents(folder: str | Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


@both_versions
@pytest.mark.parametrize("more", SETTINGS, ids=["with xet", "without xet"])
def test_hf_download_fetches_a_whole_public_cube(
    library: HubLibrary, more: dict[str, str], public: Folder, tmp_path: Path
) -> None:
    library = replace(library, more=more)
    done = library.hf("download", public.name, "--local-dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(tmp_path / "out") == FILES


@both_versions
def test_a_snapshot_is_the_same_by_tag_digest_and_commit(
    library: HubLibrary, public: Folder
) -> None:
    script = """
name, *revisions = sys.argv[1:]
say([snapshot_download(name, revision=r) for r in revisions] + [snapshot_download(name)])
"""
    revisions = ["2.0.0", "latest", "main", str(public.digest), public.commit]
    places = library.run(script, public.name, *revisions)
    assert {Path(place).name for place in places} == {public.commit}
    assert contents(places[0]) == FILES


@both_versions
def test_an_older_version_stays_what_it_was(library: HubLibrary, public: Folder) -> None:
    place = library.run("say(snapshot_download(sys.argv[1], revision='1.0.0'))", public.name)
    assert contents(place) == OLD
    assert Path(place).name != public.commit


@both_versions
def test_patterns_choose_files_and_a_dataset_is_the_same_cube(
    library: HubLibrary, public: Folder
) -> None:
    script = """
say(snapshot_download(sys.argv[1], repo_type="dataset", allow_patterns=["*.md", "plaintext/*"]))
"""
    found = contents(library.run(script, public.name))
    assert set(found) == {"README.md", "plaintext/records/0000.jsonl.zst"}


@both_versions
def test_what_was_fetched_is_there_without_a_network(library: HubLibrary, public: Folder) -> None:
    script = "say(hf_hub_download(sys.argv[1], 'README.md', revision='2.0.0'))"
    online = library.run(script, public.name)
    away = replace(library, endpoint="http://127.0.0.1:9", more={"HF_HUB_OFFLINE": "1"})
    assert away.run(script, public.name) == online
    assert Path(online).read_bytes() == FILES["README.md"]


@both_versions
def test_the_library_hears_what_is_missing_in_its_own_words(
    library: HubLibrary, public: Folder
) -> None:
    script = """
name = sys.argv[1]
say([
    refusal(lambda: hf_hub_download(name, "absent.txt")),
    refusal(lambda: hf_hub_download(name, "attachments")),
    refusal(lambda: hf_hub_download(name, "README.md", revision="9.9.9")),
    refusal(lambda: hf_hub_download(name, "README.md", revision="refs/pr/1")),
    refusal(lambda: hf_hub_download(name, "README.md", revision="f" * 40)),
    refusal(lambda: snapshot_download(name + "-absent")),
    refusal(lambda: list(api.list_repo_tree(name, "absent"))),
    api.file_exists(name, "README.md"), api.file_exists(name, "absent.txt"),
    api.repo_exists(name), api.repo_exists(name + "-absent"),
    api.revision_exists(name, "2.0.0"), api.revision_exists(name, "9.9.9"),
])
"""
    entry, revision = "RemoteEntryNotFoundError", "RevisionNotFoundError"
    assert library.run(script, public.name) == [
        entry, entry, revision, revision, revision, "RepositoryNotFoundError", entry,
        True, False, True, False, True, False,
    ]  # fmt: skip


@both_versions
def test_a_private_cube_is_read_with_a_token_and_absent_without(
    library: HubLibrary, private: Folder, ada: Person, bob: Person, tmp_path: Path
) -> None:
    owner = replace(library, token=ada.token)
    place = owner.run("say(snapshot_download(sys.argv[1]))", private.name)
    assert contents(place) == {"diary.txt": b"dear diary"}
    script = """
name = sys.argv[1]
say([refusal(lambda: snapshot_download(name)), refusal(lambda: hf_hub_download(name, "diary.txt")),
     refusal(lambda: api.model_info(name)), api.repo_exists(name)])
"""
    for token in (bob.token, None):
        stranger = replace(library, home=tmp_path / "stranger", token=token)
        assert stranger.run(script, private.name) == ["RepositoryNotFoundError"] * 3 + [False]


@both_versions
def test_whoami_names_the_account_of_the_token(library: HubLibrary, ada: Person) -> None:
    done = replace(library, token=ada.token).hf("auth", "whoami")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ada.name in done.stdout
    wrong = replace(library, token="mct_" + "x" * 43).hf("auth", "whoami")
    assert wrong.returncode != 0
    assert "nvalid" in wrong.stdout + wrong.stderr


@both_versions
def test_what_the_library_lists_is_what_it_gets(library: HubLibrary, public: Folder) -> None:
    script = """
name = sys.argv[1]
info = api.model_info(name, files_metadata=True)
tree = list(api.list_repo_tree(name, recursive=True))
top = sorted(entry.path for entry in api.list_repo_tree(name))
refs = api.list_repo_refs(name)
paths = api.get_paths_info(name, ["README.md", "plaintext", "absent"])
say({
    "sha": info.sha, "private": info.private, "dataset": api.dataset_info(name).sha,
    "siblings": {s.rfilename: [s.size, s.lfs and s.lfs.sha256] for s in info.siblings},
    "files": {e.path: [e.size, e.lfs.sha256] for e in tree if hasattr(e, "size")},
    "top": top, "paths": sorted(p.path for p in paths),
    "refs": {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]},
})
"""
    said: dict[str, Any] = library.run(script, public.name)
    files = {p: [len(c), hashed(c)] for p, c in FILES.items()}
    assert (said["sha"], said["dataset"], said["private"]) == (public.commit, public.commit, False)
    assert said["files"] == said["siblings"] == files
    assert said["top"] == ["README.md", "attachments", "parametric", "plaintext"]
    assert said["paths"] == ["README.md", "plaintext"]
    assert {said["refs"][name] for name in ("main", "latest", "2.0.0")} == {public.commit}
    assert said["refs"]["1.0.0"] != public.commit


@both_versions
def test_the_librarys_file_system_reads_parts_of_files(library: HubLibrary, public: Folder) -> None:
    script = """
fs = hub.HfFileSystem()
path = f"{sys.argv[1]}/parametric/style/adapter_model.safetensors"
with fs.open(path, "rb", block_size=65536) as file:
    file.seek(2_000_000)
    part = file.read(10)
say({"size": fs.info(path)["size"], "part": part.hex(), "ls": sorted(fs.ls(sys.argv[1], detail=False))})
"""
    said = library.run(script, public.name)
    assert said["size"] == len(LARGE)
    assert said["part"] == LARGE[2_000_000:2_000_010].hex()
    assert said["ls"] == [
        f"{public.name}/{p}" for p in ("README.md", "attachments", "parametric", "plaintext")
    ]


@both_versions
def test_an_interrupted_download_goes_on_where_it_stopped(
    library: HubLibrary, front: Hostile, ada: Person
) -> None:
    kept_at_once, size = 10 * MIB, 11 * MIB
    files = {"weights.safetensors": os.urandom(size)}
    made = push_files(ada.repository(fresh("large")), files, "latest")
    path = f"/{made.name}/resolve/{made.commit}/weights.safetensors"
    asked: list[str | None] = []

    def cut(request: Received, honest: Answer) -> Answer:
        if request.method != "GET" or request.path != path:
            return honest
        asked.append(request.headers.get("range"))
        return replace(honest, break_after=size - 1) if len(asked) == 1 else honest

    front.lies.append(cut)
    user = replace(library, endpoint=front.front.url, token=ada.token)
    assert contents(user.run("say(snapshot_download(sys.argv[1]))", made.name)) == files
    assert asked == [None, f"bytes={kept_at_once}-"]


def test_the_commands_of_the_guide_run(ada: Person, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs/guide/cubes-on-the-hub.md").read_text("utf-8")
    _, _, section = guide.partition("\n## Read a registry's cubes with the Hub's tools\n")
    block = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[0]
    files = {"README.md": b"# Handbook", "plaintext/a.jsonl.zst": b"records"}
    made = push_files(ada.repository(fresh("handbook")), files, "1.2.0", "latest")
    here = {"https://registry.example.org": ada.server.url, "mct_…": ada.token}
    for shown, meant in {**here, "alice/handbook": made.name}.items():
        assert shown in block
        block = block.replace(shown, meant)
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + block],
        cwd=tmp_path,
        env=clean_environment(PATH=path, **home),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ada.name in done.stdout
    assert contents(tmp_path / "handbook") == {"plaintext/a.jsonl.zst": b"records"}


def test_a_registry_says_where_the_hubs_clients_find_it(ada: Person) -> None:
    described = ada.server.wire.get("/.well-known/memcube.json").json()
    assert described["features"]["hubEndpoint"] == ada.server.url


def test_a_long_list_of_files_comes_in_pages(ada: Person, tmp_path: Path) -> None:
    files = {f"notes/{number:04}.txt": b"same" for number in range(2_300)}
    made = push_files(ada.repository(fresh("many")), files, "latest")
    library = HubLibrary(Path(sys.executable), ada.server.url, tmp_path, ada.token)
    script = "say([e.path for e in api.list_repo_tree(sys.argv[1], recursive=True)])"
    assert library.run(script, made.name) == ["notes", *files]


def hashed(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
