"""Changes of a repository on the Hub's test server: pre-upload, LFS batches, commits, tags, branches."""

from __future__ import annotations

import base64
import binascii
import json
import math
import secrets
from typing import Any

import yaml

from support.hub_repositories import MAIN, Commit, File, Hub, RefusedError, Repository, lfs_file

_CONFLICT = "A commit has happened since. Please refresh and try again."


def preupload(hub: Hub, repository: Repository, revision: str, body: dict[str, Any]) -> Any:
    """How each file is to be uploaded, and what is at its path now."""
    present = repository.at(revision).files
    answers = []
    for asked in body["files"]:
        path = safe_path(asked["path"])
        base64.b64decode(asked["sample"], validate=True)
        answer = {"path": path, "uploadMode": hub.mode_of(path, asked["size"])}
        answer |= {"shouldIgnore": False}
        if path in present:
            answer["oid"] = present[path].etag
        answers.append(answer)
    return {"files": answers, "commitOid": repository.at(revision).oid}


def lfs_batch(
    hub: Hub, repository: Repository, body: dict[str, Any], site: str, storage: str
) -> Any:
    """Upload instructions (git-lfs batch API, with the Hub's own `multipart`)."""
    objects = [
        _lfs_actions(hub, repository, one["oid"], one["size"], site, storage)
        for one in body["objects"]
    ]
    if hub.xet_only or not set(body.get("transfers", ["basic"])) & {"basic", "multipart"}:
        why = {"code": 501, "message": "this repository takes uploads through Xet only"}
        objects = [{"oid": o["oid"], "size": o["size"], "error": why} for o in objects]
        return {"transfer": "xet", "objects": objects}
    multipart = any(
        "chunk_size" in o.get("actions", {}).get("upload", {}).get("header", {}) for o in objects
    )
    return {"transfer": "multipart" if multipart else "basic", "objects": objects}


def _lfs_actions(
    hub: Hub, repository: Repository, oid: str, size: int, site: str, storage: str
) -> dict[str, Any]:
    if len(oid) != 64 or set(oid) - set("0123456789abcdef") or size < 0:
        raise RefusedError(400, "malformed object id")
    one: dict[str, Any] = {"oid": oid, "size": size}
    if oid in repository.lfs:
        return one

    def signed(path: str) -> str:
        return f"{storage}{path}?signature={hub.signature('PUT', path)}"

    upload = f"/upload/{repository.kind}/{repository.name}/{oid}/{secrets.token_hex(6)}"
    verify = f"{site}{_prefix(repository)}{repository.name}.git/info/lfs/objects/verify"
    header: dict[str, str] = {}
    href = signed(upload)
    if size > hub.part_bytes:
        header = {"chunk_size": str(hub.part_bytes)}
        for number in range(1, math.ceil(size / hub.part_bytes) + 1):
            header[str(number)] = signed(f"{upload}/{number}")
        signature = hub.signature("POST", upload)
        href = f"{site}/api/complete_multipart?upload={upload}&signature={signature}"
    one["actions"] = {"upload": {"href": href, "header": header}, "verify": {"href": verify}}
    return one


def _prefix(repository: Repository) -> str:
    return "/" if repository.kind == "model" else f"/{repository.kind}s/"


def commit(hub: Hub, repository: Repository, branch: str, lines: bytes) -> Commit:
    """The commit that newline-delimited JSON describes; all of it or nothing."""
    entries = [json.loads(line) for line in lines.splitlines() if line.strip()]
    with hub.lock:
        if branch not in repository.branches:
            raise RefusedError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        if not entries or entries[0]["key"] != "header":
            raise RefusedError(400, "the first line is no header")
        head, header = repository.at(branch), entries[0]["value"]
        if (parent := header.get("parentCommit")) and parent != head.oid:
            raise RefusedError(412, _CONFLICT)
        if not header.get("summary"):
            raise RefusedError(400, "a commit needs a summary")
        files = dict(head.files)
        for entry in entries[1:]:
            _apply(hub, repository, files, entry["key"], entry["value"])
        if "README.md" in files and "README.md" not in head.files:
            require_card(hub.content(repository, files["README.md"]))
        return repository.add(header["summary"], files, branch=branch)


def _apply(
    hub: Hub, repository: Repository, files: dict[str, File], key: str, value: dict[str, Any]
) -> None:
    path = safe_path(value["path"].rstrip("/"))
    if key == "file":
        content = _decoded(value)
        if hub.mode_of(path, len(content)) == "lfs":
            raise RefusedError(400, f"{path} has to be uploaded with LFS")
        files[path] = repository.regular(content)
    elif key == "lfsFile":
        oid = value["oid"]
        if value["algo"] != "sha256" or oid not in repository.lfs:
            raise RefusedError(400, f"the LFS object {oid} of {path} was not uploaded")
        size = hub.path_of(oid).stat().st_size
        if value.get("size", size) != size:
            raise RefusedError(400, f"the LFS object {oid} has {size} bytes")
        files[path] = lfs_file(oid, size)
    elif key == "deletedFile":
        if path not in files:
            raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
        del files[path]
    elif key == "deletedFolder":
        inside = [one for one in files if one.startswith(f"{path}/")]
        if not inside:
            raise RefusedError(404, "A folder with this name doesn't exist", "EntryNotFound")
        for one in inside:
            del files[one]
    else:
        raise RefusedError(400, f"unknown operation {key}")


def _decoded(value: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(value["content"], validate=True)
    except binascii.Error:
        raise RefusedError(400, "a file is not base64") from None


def safe_path(path: str) -> str:
    """`path`, if git takes it."""
    parts = path.split("/")
    if not path or path.startswith("/") or {"", ".", "..", ".git"} & set(parts) or "\\" in path:
        raise RefusedError(400, f"Invalid path: {path}")
    return path


def require_card(content: bytes) -> None:
    """Refuse a README whose metadata block is not YAML, or no mapping."""
    text = content.decode("utf-8", "replace")
    if not text.startswith("---\n"):
        return
    block, end, _ = text[4:].partition("\n---")
    try:
        if not end or not isinstance(yaml.safe_load(block), dict):
            raise RefusedError(400, "the metadata of README.md is no mapping")
    except yaml.YAMLError as error:
        raise RefusedError(400, f"the metadata of README.md is no YAML: {error}") from None


def card_tags(repository: Repository) -> list[str]:
    """The tags in the metadata block of the README on `main`."""
    card = repository.head.files.get("README.md")
    text = repository.contents[card.oid].decode() if card and not card.lfs else ""
    block = text[4:].partition("\n---")[0] if text.startswith("---\n") else ""
    return (yaml.safe_load(block) or {}).get("tags") or []


def add_tag(hub: Hub, repository: Repository, revision: str, name: str) -> None:
    """Let a new tag lead to `revision`."""
    with hub.lock:
        if name in repository.tags:
            raise RefusedError(409, f"Reference already exists: refs/tags/{name}")
        repository.tags[name] = repository.at(revision).oid


def drop_tag(hub: Hub, repository: Repository, name: str) -> None:
    """Remove a tag."""
    with hub.lock:
        if repository.tags.pop(name, None) is None:
            raise RefusedError(404, f"Tag {name} doesn't exist", "RevisionNotFound")


def add_branch(hub: Hub, repository: Repository, name: str, start: str | None) -> None:
    """Let a new branch lead to `start`, by default the head of main."""
    with hub.lock:
        if name in repository.branches:
            raise RefusedError(409, f"Reference already exists: refs/heads/{name}")
        repository.branches[name] = repository.at(start or MAIN).oid


def drop_branch(hub: Hub, repository: Repository, name: str) -> None:
    """Remove a branch, but not main."""
    with hub.lock:
        if name == MAIN:
            raise RefusedError(403, "main cannot be removed")
        if repository.branches.pop(name, None) is None:
            raise RefusedError(404, f"Branch {name} doesn't exist", "RevisionNotFound")


def refs(repository: Repository) -> dict[str, Any]:
    """All branches and tags, as one answer."""

    def listed(kind: str, found: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}
            for name, oid in sorted(found.items())
        ]

    return {
        "branches": listed("heads", repository.branches),
        "tags": listed("tags", repository.tags),
        "converts": [],
    }
