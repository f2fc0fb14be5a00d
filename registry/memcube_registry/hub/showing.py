"""What the Hub's API says about a cube, in its own JSON. What the registry does not know is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from memcube_protocol.digest import Digest
from memcube_protocol.oci import Descriptor

from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act
from memcube_registry.hub.folders import folders_above
from memcube_registry.hub.service import DEFAULT, LATEST, Snapshot
from memcube_registry.manifests.models import COMMIT_CHARS, commit_of

Entry = dict[str, Any]
ENTRIES_AT_ONCE: Final = 1000
_POINTER: Final = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


def info(snapshot: Snapshot, *, with_files: bool) -> Entry:
    """A repository at one revision. `with_files` adds the size and hash of each file."""
    files = snapshot.files.items()
    siblings = [
        {"rfilename": path} | (_sibling(layer) if with_files else {}) for path, layer in files
    ]
    return {
        "_id": snapshot.commit,
        "id": snapshot.name,
        "modelId": snapshot.name,
        "author": snapshot.name.partition("/")[0],
        "sha": snapshot.commit,
        "private": snapshot.is_private,
        "gated": False,
        "disabled": False,
        "createdAt": _moment(snapshot.created_at),
        "lastModified": _moment(snapshot.pushed_at),
        "tags": [],
        "siblings": siblings,
        "memcube": {"digest": str(snapshot.digest)},
    }


def entries(snapshot: Snapshot, under: str, *, recursive: bool) -> list[Entry]:
    """Files and folders below the folder `under`, by path; none where there is no such folder."""
    prefix = f"{under}/" if under else ""
    inside = {path: layer for path, layer in snapshot.files.items() if path.startswith(prefix)}
    folders = {path for path in folders_above(inside) if len(path) > len(under)}
    both = [_file(path, layer) for path, layer in inside.items()]
    both += [_folder(snapshot, path) for path in folders]
    kept = [e for e in both if recursive or "/" not in e["path"][len(prefix) :]]
    return sorted(kept, key=lambda entry: entry["path"])


def entries_at(snapshot: Snapshot, wanted: Iterable[str]) -> list[Entry]:
    """What lies at each of the paths; those at which nothing does are left out."""
    folders = folders_above(snapshot.files)
    return [
        _file(path, snapshot.files[path]) if path in snapshot.files else _folder(snapshot, path)
        for path in dict.fromkeys(wanted)
        if path in snapshot.files or path in folders
    ]


def refs(revisions: Sequence[tuple[str, str]]) -> Entry:
    """Tags as Git's tags, and what a client gets that names none as the branch `main`."""
    commits = dict(revisions)
    default = commits.get(DEFAULT) or commits.get(LATEST)
    return {
        "branches": [_ref("heads", DEFAULT, default)] if default else [],
        "converts": [],
        "tags": [_ref("tags", tag, commit) for tag, commit in revisions],
        "pullRequests": [],
    }


def whoami(principal: Principal, organisations: Sequence[str]) -> Entry:
    """Whose the token is, and whether it may write."""
    may_write = any(scope.act is not Act.READ for scope in principal.scopes)
    return {
        "type": "user",
        "id": str(principal.account_id),
        "name": principal.name,
        "fullname": principal.name,
        "isPro": False,
        "orgs": [{"type": "org", "name": name, "fullname": name} for name in organisations],
        "auth": {
            "type": "access_token",
            "accessToken": {
                "displayName": "memcube",
                "role": "write" if may_write else "read",
            },
        },
    }


def entity_tag(digest: Digest) -> str:
    """A blob's name in the caches of the Hub's clients: the bare hex digits of its digest."""
    return digest.hex


def _file(path: str, layer: Descriptor) -> Entry:
    entry: Entry = {"type": "file", "oid": _oid(layer), "size": layer.size, "path": path}
    if layer.digest.algorithm == "sha256":
        size = len(_pointer(layer))
        entry["lfs"] = {"oid": layer.digest.hex, "size": layer.size, "pointerSize": size}
    return entry


def _sibling(layer: Descriptor) -> Entry:
    about: Entry = {"size": layer.size, "blobId": _oid(layer)}
    if layer.digest.algorithm == "sha256":
        size = len(_pointer(layer))
        about["lfs"] = {"sha256": layer.digest.hex, "size": layer.size, "pointerSize": size}
    return about


def _folder(snapshot: Snapshot, path: str) -> Entry:
    name = Digest.of(f"{snapshot.digest} {path}".encode())
    return {"type": "directory", "oid": commit_of(name), "size": 0, "path": path}


def _oid(layer: Descriptor) -> str:
    """Git's name of the file's LFS pointer; of a file that LFS cannot name, the start of its digest."""
    if layer.digest.algorithm != "sha256":
        return layer.digest.hex[:COMMIT_CHARS]
    pointer = _pointer(layer)
    content = b"blob %d\0%s" % (len(pointer), pointer)
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _pointer(layer: Descriptor) -> bytes:
    return _POINTER.format(layer.digest.hex, layer.size).encode()


def _ref(kind: str, name: str, commit: str) -> Entry:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
