"""The Hub's own library reads cubes from our registry: two versions of it, with and without Xet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube_protocol import media_types
from memcube_protocol.digest import Digest
from support.hub_library import HubLibrary, both_versions
from support.repository import IMAGE, Repository
from support.samples import to_json

LARGE = os.urandom(3_000_001)
FILES = {
    "README.md": b"# A cube\n",
    "plaintext/records/0000.jsonl.zst": b"records",
    "parametric/style/adapter_model.safetensors": LARGE,
    "attachments/\u00e9tude no. 1 (draft)+100%.txt": b"a name with everything",
    "attachments/empty.txt": b"",
}
SETTINGS = [{}, {"HF_HUB_DISABLE_XET": "1"}]


@dataclass(frozen=True)
class Folder:
    """An artifact with files, and the digest of its manifest."""

    repository: Repository
    digest: Digest

    @property
    def name(self) -> str:
        return self.repository.name

    @property
    def commit(self) -> str:
        return self.digest.hex[:40]


def push_files(repository: Repository, files: dict[str, bytes], *tags: str) -> Folder:
    """`files` as the layers of an artifact, as `oras push` makes it."""
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": str(repository.add_blob(content)),
            "size": len(content),
            "annotations": {media_types.TITLE: path},
        }
        for path, content in files.items()
    ]
    empty = {
        "mediaType": media_types.OCI_EMPTY,
        "digest": str(repository.add_blob(b"{}")),
        "size": 2,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": "application/vnd.example+files",
        "config": empty,
        "layers": layers,
    }
    raw = to_json(manifest)
    digest = Digest.of(raw)
    assert repository.put_manifest(digest, raw, tags=tags).status == 201
    return Folder(repository, digest)


def publish(person: Person, name: str) -> None:
    body, headers = b'{"visibility": "public"}', {"Content-Type": "application/json"}
    reply = person.wire.put(f"/api/v1/cubes/{name}", body=body, headers=headers)
    assert reply.status == 200, reply


@pytest.fixture(scope="module")
def public(ada: Person) -> Folder:
    made = push_files(ada.repository(fresh("files")), FILES, "1.0.0", "latest")
    publish(ada, made.name)
    return made


@pytest.fixture(scope="module")
def private(ada: Person) -> Folder:
    return push_files(ada.repository(fresh("secret")), {"diary.txt": b"dear diary"}, "latest")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


@both_versions
@pytest.mark.parametrize("more", SETTINGS, ids=["with xet", "without xet"])
def test_hf_download_fetches_a_whole_public_cube(
    python: Path, more: dict[str, str], public: Folder, ada: Person, tmp_path: Path
) -> None:
    library = HubLibrary(python, ada.server.url, tmp_path / "home", more=more)
    done = library.hf("download", public.name, "--local-dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(tmp_path / "out") == FILES
