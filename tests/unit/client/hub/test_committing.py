"""Commits and tags past the library: the same as through it, and left to it wherever the Hub says anything else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from memcube.http import HttpClient, RetryPolicy
from memcube.hub.additions import Addition
from memcube.hub.committing import Committer
from memcube.hub.library import HubLibrary
from memcube.hub.site import Site
from memcube.settings import Endpoint, Settings
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NetworkError, UnavailableError
from support.hub import HubServer
from support.hub_machine import tolerant
from support.hub_repositories import Repository, lfs_file
from support.scripted import Answer

pytestmark = tolerant
NAME = "Org/Notes"
COMMIT = f"/api/models/{NAME}/commit/main"


@pytest.fixture
def repository(hub: HubServer) -> Repository:
    return hub.state.create("model", NAME)


@pytest.fixture
def mine(hub: HubServer, repository: Repository) -> Site:
    scheme, _, host = hub.url.partition("://")
    return Site(Endpoint(scheme, host), hub.state.token("ada", organisations=("Org",)))


@pytest.fixture
def committer(mine: Site) -> Committer:
    settings = Settings.load({"MEMCUBE_HOME": "/nonexistent", "MEMCUBE_INSECURE": "127.0.0.1"})
    return Committer(mine, HttpClient(settings, retry=RetryPolicy(attempts=3, first_wait_s=0)))


def text(path: str, content: bytes = b"words\n") -> Addition:
    return Addition(path, Digest.of(content), len(content), content)


def stored(hub: HubServer, repository: Repository, folder: Path, path: str) -> Addition:
    """A file that lies in the repository's LFS."""
    content = os.urandom(1000)
    file, digest = folder / path, Digest.of(content)
    file.write_bytes(content)
    hub.state.path_of(digest.hex).parent.mkdir(parents=True, exist_ok=True)
    hub.state.path_of(digest.hex).write_bytes(content)
    repository.lfs.add(digest.hex)
    return Addition(path, digest, len(content), file)


def committed(
    committer: Committer, repository: Repository, *additions: Addition, **options: Any
) -> str | None:
    held = {one.digest for one in additions if isinstance(one.content, Path)}
    options = {"deleted": (), "parent": repository.branches["main"], "held": held} | options
    return committer.commit(NAME, additions, title="Release 1.0.0", **options)


def test_a_commit_is_the_one_that_the_library_would_make(
    hub: HubServer, repository: Repository, committer: Committer, mine: Site, tmp_path: Path
) -> None:
    repository.add("by hand", {**repository.head.files, "old.txt": repository.regular(b"old")})
    before = repository.branches["main"]
    image = stored(hub, repository, tmp_path, "a.png")
    additions = [
        text("README.md"),
        text("größe/ü.txt", b'"\r\n\xff'),
        text("empty.png", b""),
        image,
    ]
    made = committed(committer, repository, *additions, deleted=["old.txt"])
    ours, head = dict(repository.head.files), repository.head
    assert made == head.oid
    assert head.title == "Release 1.0.0"
    assert ours["a.png"] == lfs_file(image.digest.hex, image.size)
    assert "old.txt" not in ours
    repository.branches["main"] = before
    library = HubLibrary(mine, threads=1)
    library.commit(NAME, [library.operation(one) for one in additions], ["old.txt"], before, "x")
    assert repository.head.files == ours


def test_files_that_lie_there_already_are_not_named_again(
    hub: HubServer, repository: Repository, committer: Committer, tmp_path: Path
) -> None:
    image = stored(hub, repository, tmp_path, "a.png")
    assert committed(committer, repository, text("README.md"), image)
    assert committed(committer, repository, text("README.md"), image, held=()) is None
    assert committed(committer, repository, text("README.md", b"other"), image, held=())
    assert len(repository.commits) == 3


def test_a_file_that_is_wanted_in_lfs_and_not_there_is_left_to_the_library(
    repository: Repository, committer: Committer
) -> None:
    assert committed(committer, repository, text("README.md"), text("a.png")) is None
    assert len(repository.commits) == 1


@pytest.mark.parametrize(
    "told",
    [
        {"files": [{"path": "README.md", "uploadMode": "regular", "shouldIgnore": True}]},
        {"files": [{"path": "README.md", "uploadMode": "xet"}]},
        {"files": [{"path": "other.md", "uploadMode": "regular"}]},
        {"files": [{"path": ["README.md"], "uploadMode": "regular"}, 1, None]},
        {"files": {"README.md": "regular"}},
        {},
    ],
)
def test_answers_that_are_not_the_plain_ones_are_left_to_the_library(
    hub: HubServer, repository: Repository, committer: Committer, told: object
) -> None:
    body = json.dumps(told).encode()
    hub.script = lambda seen: Answer(body=body) if "/preupload/" in seen.path else None
    assert committed(committer, repository, text("README.md")) is None
    assert not [seen for seen in hub.seen if seen.path == COMMIT]


@pytest.mark.parametrize("verb", ["preupload", "commit", "tag"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 429])
def test_what_the_hub_refuses_is_left_to_the_library(
    hub: HubServer, repository: Repository, committer: Committer, verb: str, status: int
) -> None:
    hub.script = lambda seen: Answer(status) if f"/{verb}/" in seen.path else None
    head = repository.branches["main"]
    if verb == "tag":
        assert not committer.add_tag(NAME, "1.0.0", head)
    else:
        assert committed(committer, repository, text("README.md")) is None
    assert repository.branches["main"] == head
    assert not repository.tags


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_commit_of_which_nobody_knows_whether_it_was_made_is_not_sent_again(
    hub: HubServer, repository: Repository, committer: Committer, status: int
) -> None:
    hub.script = lambda seen: Answer(status) if seen.path == COMMIT else None
    with pytest.raises((NetworkError, UnavailableError)):
        committed(committer, repository, text("README.md"))
    assert len([seen for seen in hub.seen if seen.path == COMMIT]) == 1


def test_a_commit_behind_another_head_is_left_to_the_library_which_is_refused(
    repository: Repository, committer: Committer
) -> None:
    assert committed(committer, repository, text("README.md"), parent="0" * 40) is None
    assert len(repository.commits) == 1


def test_a_name_of_a_commit_that_is_none_is_not_believed(
    hub: HubServer, repository: Repository, committer: Committer
) -> None:
    body = json.dumps({"commitOid": "../../other"}).encode()
    hub.script = lambda seen: Answer(body=body) if seen.path == COMMIT else None
    assert committed(committer, repository, text("README.md")) is None


def test_a_tag_leads_to_its_commit_and_is_never_moved(
    repository: Repository, committer: Committer
) -> None:
    head = repository.branches["main"]
    assert committer.add_tag(NAME, "1.0.0", head)
    assert repository.tags == {"1.0.0": head}
    assert committed(committer, repository, text("README.md"))
    assert not committer.add_tag(NAME, "1.0.0", repository.branches["main"])
    assert repository.tags == {"1.0.0": head}
