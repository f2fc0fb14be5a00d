"""A registry's disk loses the bytes of a blob: its operator marks it, and its publisher's next push heals it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person
from memcube_protocol.digest import Digest
from support.machine import Machine
from support.servers import MemcubeServer, memcube_server

RECORDS = "".join(json.dumps({"text": f"fact {number}"}) + "\n" for number in range(50))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemcubeServer]:
    with memcube_server(tmp_path_factory.mktemp("lossy"), NO_LIMITS) as made:
        yield made


@pytest.fixture(scope="module")
def ann(server: MemcubeServer) -> Person:
    server.create_account("ann")
    return Person(server, "ann", server.create_token("ann", *ALL_SCOPES))


def lose_all(server: MemcubeServer) -> int:
    """The disk loses every blob; how many there were."""
    found = [path for path in (server.data / "blobs").rglob("*") if path.is_file()]
    for path in found:
        path.unlink()
    return len(found)


def test_a_version_whose_blobs_are_lost_is_pushed_again_and_pulls_whole(
    server: MemcubeServer, ann: Person, tmp_path: Path
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "records.jsonl").write_text(RECORDS)
    publisher = Machine(tmp_path / "publisher", server.url, ann.token)
    publisher.ok("push", folder, "ann/notes:1.0.0")
    assert lose_all(server)
    lost = Machine(tmp_path / "one", server.url, ann.token).run("pull", "ann/notes:1.0.0")
    assert lost.returncode != 0
    assert "damaged or lost" in lost.stderr
    marked = server.admin("fsck", "--all", "--repair", check=False)
    assert (marked.returncode, "marked as lost" in marked.stdout) == (6, True)
    assert "sent again" in publisher.ok("push", folder, "ann/notes:1.0.0", "--again")
    assert "nothing was sent" in publisher.ok("push", folder, "ann/notes:1.0.0", "--again")
    Machine(tmp_path / "two", server.url, ann.token).ok("pull", "ann/notes:1.0.0")


def test_no_answer_claims_a_blob_that_is_marked_as_lost(server: MemcubeServer, ann: Person) -> None:
    content = b"what the disk forgets"
    repository, digest = ann.repository(), Digest.of(content)
    repository.add_blob(content)
    lose_all(server)
    assert repository.get_blob(digest).status == 503
    server.admin("fsck", "--repair", check=False)
    assert repository.head_blob(digest).status == 404
    assert repository.get_blob(digest).error_codes == ["BLOB_UNKNOWN"]
    for source in (repository.name, ann.repository().name):
        asked = {"mount": str(digest), "from": source}
        assert repository.start_upload(**asked).status == 202
    assert repository.put_blob(content, digest).status == 201
    assert repository.get_blob(digest).body == content
