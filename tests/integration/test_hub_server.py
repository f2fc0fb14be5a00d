"""The Hub's test server against the real client library, in two versions, each in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub import HubServer, hub_server

OLDER = Path("/usr/local/lib/huggingface-hub/bin/python")
PYTHONS = [
    pytest.param(Path(sys.executable), id="installed"),
    pytest.param(
        OLDER,
        id="1.20",
        marks=pytest.mark.skipif(
            not OLDER.exists(), reason="the older huggingface_hub is absent: .ci/hub installs it"
        ),
    ),
]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with hub_server(tmp_path / "hub") as server:
        server.state.part_bytes = 1024 * 1024
        yield server


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> Path:
    return request.param


def hf(python: Path, environment: dict[str, str], *words: str | Path) -> str:
    """What `hf` prints."""
    done = subprocess.run(
        [python.parent / "hf", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def act(python: Path, environment: dict[str, str], lines: str) -> dict[str, object]:
    """Run `lines` with an `api`; what they left in `found`, or the error's class name."""
    program = (
        "import json, sys\nfrom huggingface_hub import *\nfrom huggingface_hub import errors\n"
        "api, found = HfApi(), {}\ntry:\n"
        + "\n".join(f"    {line}" for line in lines.strip().splitlines())
        + "\nexcept Exception as error:\n    found = {'error': type(error).__name__,"
        " 'status': getattr(getattr(error, 'response', None), 'status_code', None)}\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [python, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def folder_of_files(place: Path) -> dict[str, bytes]:
    files = {
        "README.md": b"---\nlicense: mit\n---\n# Notes\n",
        "small/one.json": b'{"a":1}',
        "data/whole.bin": secrets.token_bytes(700_000),
        "data/parts.bin": secrets.token_bytes(2_500_000),
        "empty.txt": b"",
    }
    for path, content in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    return files


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_folder_goes_up_and_comes_down_as_it_was(
    hub: HubServer, python: Path, kind: str, tmp_path: Path
) -> None:
    files = folder_of_files(tmp_path / "up")
    token = hub.state.token("ada")
    environment = hub.environment(token)
    hf(python, environment, "upload", "ada/notes", tmp_path / "up", ".", f"--repo-type={kind}")
    hf(
        python,
        environment,
        *("download", "ada/notes", f"--repo-type={kind}", "--local-dir", tmp_path / "down"),
    )
    for path, content in files.items():
        assert (tmp_path / "down" / path).read_bytes() == content
    stored = hub.state.of(kind, "ada/notes").head.files
    assert stored["data/parts.bin"].lfs == hashlib.sha256(files["data/parts.bin"]).hexdigest()
    assert stored["README.md"].lfs is None
    assert hub.tokens_sent("hub") == {f"Bearer {token}"}
    assert hub.tokens_sent("storage") == set(), "the storage gets signed addresses, never a token"
    assert not [line for line in hub.lines() if "xet" in line]


def test_the_same_folder_again_sends_no_file(hub: HubServer, python: Path, tmp_path: Path) -> None:
    folder_of_files(tmp_path / "up")
    environment = hub.environment(hub.state.token("ada"))
    hf(python, environment, "upload", "ada/notes", tmp_path / "up", ".")
    head = hub.state.of("model", "ada/notes").head
    hub.seen.clear()
    hf(python, environment, "upload", "ada/notes", tmp_path / "up", ".")
    assert hub.state.of("model", "ada/notes").head == head
    assert not [seen for seen in hub.seen if seen.site == "storage"]


def test_who_comes_second_with_the_same_parent_is_refused(hub: HubServer, python: Path) -> None:
    found = act(
        python,
        hub.environment(hub.state.token("ada")),
        """
api.create_repo("ada/notes")
parent = api.repo_info("ada/notes").sha
def put(text):
    file = CommitOperationAdd("a.txt", text)
    return api.create_commit("ada/notes", [file], commit_message="x", parent_commit=parent)
found["first"] = put(b"one").oid
put(b"two")
""",
    )
    assert found == {"error": "HfHubHTTPError", "status": 412}
    repository = hub.state.of("model", "ada/notes")
    assert hub.state.content(repository, repository.head.files["a.txt"]) == b"one"


def test_tags_and_branches_come_and_go(hub: HubServer, python: Path) -> None:
    found = act(
        python,
        hub.environment(hub.state.token("ada")),
        """
api.create_repo("ada/notes", repo_type="dataset")
api.create_tag("ada/notes", tag="1.0.0", repo_type="dataset")
api.create_branch("ada/notes", branch="draft/one", repo_type="dataset")
refs = api.list_repo_refs("ada/notes", repo_type="dataset")
found["tags"] = [tag.name for tag in refs.tags]
found["branches"] = [branch.name for branch in refs.branches]
found["same"] = refs.tags[0].target_commit == api.repo_info(
    "ada/notes", revision="draft/one", repo_type="dataset").sha
api.delete_tag("ada/notes", tag="1.0.0", repo_type="dataset")
found["left"] = len(api.list_repo_refs("ada/notes", repo_type="dataset").tags)
api.create_tag("ada/notes", tag="2.0.0", repo_type="dataset")
api.create_tag("ada/notes", tag="2.0.0", repo_type="dataset", exist_ok=True)
found["who"] = api.whoami()["name"]
""",
    )
    assert found == {
        "tags": ["1.0.0"],
        "branches": ["draft/one", "main"],
        "same": True,
        "left": 0,
        "who": "ada",
    }


def test_a_listing_comes_in_pages(hub: HubServer, python: Path) -> None:
    hub.state.page_entries = 3
    repository = hub.state.create("model", "ada/many")
    files = {f"f/{number}.txt": repository.regular(b"%d" % number) for number in range(8)}
    repository.add("many", files)
    found = act(
        python,
        hub.environment(),
        """
found["paths"] = [f.path for f in api.list_repo_tree("ada/many", recursive=True)]
""",
    )
    assert found == {"paths": ["f", *sorted(files)]}
    assert len([line for line in hub.lines() if "/tree/" in line]) == 3


REFUSED = {
    "api.repo_info('ada/absent')": "RepositoryNotFoundError",
    "api.repo_info('ada/private')": "RepositoryNotFoundError",
    "hf_hub_download('ada/gated', 'a.txt')": "GatedRepoError",
    "hf_hub_download('ada/open', 'b.txt')": "RemoteEntryNotFoundError",
    "api.repo_info('ada/open', revision='9')": "RevisionNotFoundError",
}
"""What strangers try, and the error that the library makes of the Hub's answer."""


@pytest.mark.parametrize("login", [True, False])
def test_strangers_are_told_what_the_hub_tells_them(
    hub: HubServer, python: Path, login: bool
) -> None:
    for name, more in {"open": {}, "private": {"private": True}, "gated": {"gated": True}}.items():
        repository = hub.state.create("model", f"ada/{name}", **more)
        repository.add("a", {"a.txt": repository.regular(b"a")})
    environment = hub.environment(hub.state.token("eve") if login else None)
    found = act(
        python,
        environment,
        f"""
for tried in {list(REFUSED)}:
    try:
        found[tried] = repr(eval(tried))
    except Exception as error:
        found[tried] = type(error).__name__
""",
    )
    assert found.keys() == REFUSED.keys()
    # A missing local copy is what some versions report instead, with the Hub's answer as the cause.
    for tried, error in REFUSED.items():
        assert found[tried] in (error, "LocalEntryNotFoundError"), tried


def test_a_token_that_only_reads_cannot_write(hub: HubServer, python: Path) -> None:
    hub.state.create("model", "ada/notes")
    environment = hub.environment(hub.state.token("ada", role="read"))
    found = act(
        python,
        environment,
        "api.upload_file(path_or_fileobj=b'x', path_in_repo='a', repo_id='ada/notes')",
    )
    assert found["status"] == 403


def test_an_lfs_object_with_other_content_than_its_name_is_refused(hub: HubServer) -> None:
    token = hub.state.token("ada")
    repository = hub.state.create("model", "ada/notes")
    done = act(
        Path(sys.executable),
        hub.environment(token),
        """
from huggingface_hub.lfs import UploadInfo
operation = CommitOperationAdd("a.bin", b"right")
operation.upload_info.sha256 = bytes(32)
api.create_commit("ada/notes", [operation], commit_message="x")
""",
    )
    assert "error" in done
    assert not repository.lfs
    assert "a.bin" not in repository.head.files


def test_where_the_server_takes_xet_only_the_library_fails_and_nothing_is_kept(
    hub: HubServer,
) -> None:
    hub.state.xet_only = True
    repository = hub.state.create("model", "ada/notes")
    done = act(
        Path(sys.executable),
        hub.environment(hub.state.token("ada")),
        "api.upload_file(path_or_fileobj=b'x', path_in_repo='a.bin', repo_id='ada/notes')",
    )
    assert done["error"] == "ValueError"
    assert "a.bin" not in repository.head.files


def test_the_server_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-m", "support.hub", str(tmp_path), "ada"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": tests},
        text=True,
    ) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        environment = {
            **os.environ,
            "HF_ENDPOINT": started["url"],
            "HF_TOKEN": started["token"],
            "HF_HUB_DISABLE_XET": "1",
        }
        found = act(Path(sys.executable), environment, "found['who'] = api.whoami()['name']")
        assert found == {"who": "ada"}
        process.communicate(timeout=30)
