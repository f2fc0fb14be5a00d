"""The end of a cube: everything goes, the name stays, and published versions never change."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient
from memcube_registry.accounts.models import Account
from memcube_registry.app import create_app
from memcube_registry.catalog.service import TAGS_MAX
from memcube_registry.settings import Settings

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Client = TestClient[Any]


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def push(client: Client, headers: dict[str, str], name: str, content: bytes, *tags: str) -> int:
    """A cube of one layer with `content`, tagged; the size of its manifest."""
    for blob in (content, b"{}"):
        path = f"/v2/{name}/blobs/uploads/?digest={digest(blob)}"
        done = client.post(path, content=blob, headers=headers)
        assert done.status_code == 201, done.text
    layer = {"mediaType": "x/y", "digest": digest(content), "size": len(content)}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "x/z", "digest": digest(b"{}"), "size": 2},
        "layers": [layer],
    }
    raw = json.dumps(manifest).encode()
    for tag in tags:
        answer = client.put(
            f"/v2/{name}/manifests/{tag}",
            content=raw,
            headers={**headers, "content-type": MANIFEST},
        )
        assert answer.status_code == 201, answer.text
    return len(raw)


@pytest.fixture
def client(tmp_path: Path, database_url: str) -> Iterator[Client]:
    app = create_app(Settings(data_dir=tmp_path, database_url=database_url, log_level="error"))

    async def as_servers_call(scope: Any, receive: Any, send: Any) -> None:
        # The test client leaves the query in raw_path, where ASGI says that it is not.
        if scope["type"] == "http":
            scope["raw_path"] = scope["raw_path"].partition(b"?")[0]
        await app(scope, receive, send)

    with TestClient(as_servers_call, base_url="http://127.0.0.1") as made:
        yield made


@pytest.fixture
def alice(new_account: Callable[[str], Account], new_token: Callable[..., str]) -> dict[str, str]:
    return {"authorization": f"Bearer {new_token(new_account('alice'))}"}


def used(client: Client, headers: dict[str, str]) -> int:
    return int(client.get("/api/v1/me", headers=headers).json()["usedBytes"])


def test_a_deleted_cube_is_gone_and_its_storage_is_free(
    client: Client, alice: dict[str, str]
) -> None:
    manifest_bytes = push(client, alice, "alice/notes", b"one" * 100, "1.0.0", "latest")
    client.post("/v2/alice/notes/blobs/uploads/", headers=alice)
    assert used(client, alice) == 302 + manifest_bytes
    assert client.delete("/api/v1/cubes/alice/notes", headers=alice).status_code == 204
    assert used(client, alice) == 0
    for path in ("manifests/latest", "manifests/1.0.0", f"blobs/{digest(b'one' * 100)}"):
        assert client.get(f"/v2/alice/notes/{path}", headers=alice).status_code == 404
    assert client.delete("/api/v1/cubes/alice/notes", headers=alice).status_code == 404


def test_blobs_that_another_cube_of_the_account_has_stay_counted_once(
    client: Client, alice: dict[str, str]
) -> None:
    for name in ("alice/one", "alice/two"):
        manifest_bytes = push(client, alice, name, b"shared" * 10, "latest")
    assert used(client, alice) == 62 + 2 * manifest_bytes
    client.delete("/api/v1/cubes/alice/one", headers=alice)
    assert used(client, alice) == 62 + manifest_bytes
    assert client.get("/v2/alice/two/manifests/latest", headers=alice).status_code == 200


def test_a_deleted_version_does_not_come_back_as_another(
    client: Client, alice: dict[str, str]
) -> None:
    push(client, alice, "alice/notes", b"first", "1.0.0")
    client.delete("/api/v1/cubes/alice/notes", headers=alice)
    push(client, alice, "alice/notes", b"first", "1.0.0")
    client.delete("/api/v1/cubes/alice/notes", headers=alice)
    with pytest.raises(AssertionError, match=r"1\.0\.0"):
        push(client, alice, "alice/notes", b"second", "1.0.0")
    push(client, alice, "alice/notes", b"second", "1.0.1")


def test_only_those_who_may_delete_do(
    client: Client,
    alice: dict[str, str],
    new_account: Callable[[str], Account],
    new_token: Callable[..., str],
) -> None:
    push(client, alice, "alice/notes", b"one", "latest")
    bob = {"authorization": f"Bearer {new_token(new_account('bob'))}"}
    absent = client.delete("/api/v1/cubes/alice/absent", headers=bob)
    private = client.delete("/api/v1/cubes/alice/notes", headers=bob)
    assert (private.status_code, absent.status_code) == (403, 403)
    assert client.delete("/api/v1/cubes/alice/notes").status_code == 401
    assert client.get("/v2/alice/notes/manifests/latest", headers=alice).status_code == 200


def test_tags_are_listed_with_their_digests(client: Client, alice: dict[str, str]) -> None:
    push(client, alice, "alice/notes", b"one", "latest", "1.0.0")
    tags = client.get("/api/v1/tags/alice/notes", headers=alice).json()
    assert [tag["name"] for tag in tags] == ["1.0.0", "latest"]
    assert len({tag["digest"] for tag in tags}) == 1


def test_however_many_tags_there_are_an_answer_holds_a_bounded_number(
    client: Client, alice: dict[str, str]
) -> None:
    push(client, alice, "alice/notes", b"one", "a", "b", "c")

    def listed(**query: Any) -> Any:
        answer = client.get("/api/v1/tags/alice/notes", params=query, headers=alice)
        return [tag["name"] for tag in answer.json()] if answer.status_code == 200 else None

    assert listed(limit=2) == ["a", "b"]
    assert listed(limit=2, after="b") == ["c"]
    assert listed(after="c") == []
    assert listed(limit=TAGS_MAX) == listed()
    assert listed(limit=TAGS_MAX + 1) is None
