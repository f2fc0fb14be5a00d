"""What the test server of the Hub holds: people, repositories, commits, files; checked as the Hub checks.

Commits are immutable and content-addressed; regular files are kept in memory, LFS files on disk under
their SHA-256, which was verified. See `support.hub` for the server.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import json
import secrets
import threading
from dataclasses import dataclass, field
from pathlib import Path

MAIN = "main"
LFS_PATTERNS = ("*.zst", "*.safetensors", "*.bin", "*.parquet", "*.npz", "*.u32", "*.png")


class RefusedError(Exception):
    """An error answer of the Hub: status, `X-Error-Code`, and the message."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass(frozen=True)
class File:
    """One file of a commit: `oid` is git's name of it (of the pointer, if it is in LFS)."""

    size: int
    oid: str
    lfs: str | None = None

    @property
    def etag(self) -> str:
        return self.lfs or self.oid

    def to_json(self, path: str) -> dict[str, object]:
        found: dict[str, object] = {"type": "file", "path": path, "size": self.size}
        found["oid"] = self.oid
        if self.lfs:
            found["lfs"] = {"oid": self.lfs, "size": self.size, "pointerSize": len(self.pointer)}
        return found

    @property
    def pointer(self) -> bytes:
        return pointer(self.lfs or "", self.size)


@dataclass(frozen=True)
class Commit:
    """A state of a repository; `files` by path."""

    oid: str
    parent: str | None
    title: str
    files: dict[str, File]


@dataclass(frozen=True)
class Person:
    """Whose token it is, what it may do (`read` or `write`), and the organisations of its owner."""

    name: str
    role: str = "write"
    organisations: tuple[str, ...] = ()

    def is_of(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.organisations


@dataclass
class Repository:
    """A repository with its history. `kind` is `model` or `dataset`; `lfs` what was uploaded to it."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.name.partition("/")[0]

    @property
    def head(self) -> Commit:
        return self.commits[self.branches[MAIN]]

    def at(self, revision: str) -> Commit:
        """The commit that a branch, a tag or 40 hex digits name."""
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def add(self, title: str, files: dict[str, File], *, branch: str = MAIN) -> Commit:
        """Let `branch` lead to a new commit that holds exactly `files`."""
        parent = self.branches.get(branch)
        listed = json.dumps({path: file.etag for path, file in sorted(files.items())})
        seed = f"{self.kind}/{self.name}\n{parent}\n{title}\n{listed}"
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), parent, title, dict(files))
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def regular(self, content: bytes) -> File:
        """A file kept as git keeps it."""
        oid = git_oid(content)
        self.contents[oid] = content
        return File(len(content), oid)


@dataclass
class Hub:
    """Everything that the server knows. `lock` guards all of it; big files lie below `folder`."""

    folder: Path
    people: dict[str, Person] = field(default_factory=dict)
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    lfs_from_bytes: int = 10 * 1024 * 1024
    part_bytes: int = 64 * 1024 * 1024
    page_entries: int = 1000
    xet_only: bool = False
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    lock: threading.RLock = field(default_factory=threading.RLock)

    def token(self, name: str, *, role: str = "write", organisations: tuple[str, ...] = ()) -> str:
        """A fresh token of the person `name`."""
        token = f"hf_{secrets.token_hex(16)}"
        self.people[token] = Person(name, role, organisations)
        return token

    def create(
        self, kind: str, name: str, *, private: bool = False, gated: bool = False
    ) -> Repository:
        """A new repository with the first commit that the Hub makes."""
        with self.lock:
            if (kind, name) in self.repositories:
                raise RefusedError(409, f"You already created this {kind} repo: {name}")
            made = Repository(kind, name, private, gated)
            attributes = "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in LFS_PATTERNS)
            made.add("initial commit", {".gitattributes": made.regular(attributes.encode())})
            self.repositories[kind, name] = made
            return made

    def of(self, kind: str, name: str) -> Repository:
        """The repository, whoever asks: for tests."""
        return self.repositories[kind, name]

    def readable(self, kind: str, name: str, who: Person | None) -> Repository:
        """The repository, if `who` may see that it exists."""
        found = self.repositories.get((kind, name))
        if found is None or (found.private and not (who and who.is_of(found.namespace))):
            if who is None:
                raise RefusedError(401, "Invalid username or password.", "RepoNotFound")
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        return found

    def files_of(self, kind: str, name: str, who: Person | None) -> Repository:
        """The repository, if `who` may read its files: a gated one wants a login that was let in."""
        found = self.readable(kind, name, who)
        if found.gated and not (who and who.is_of(found.namespace)):
            why = f"Access to {kind} {name} is restricted. You must be authenticated to access it."
            raise RefusedError(403 if who else 401, why, "GatedRepo")
        return found

    def writable(self, kind: str, name: str, who: Person | None) -> Repository:
        """The repository, if `who` may change it."""
        found = self.readable(kind, name, who)
        self.require_writer(found.namespace, who)
        return found

    def require_writer(self, namespace: str, who: Person | None) -> None:
        """Refuse whoever may not write into `namespace`."""
        if who is None:
            raise RefusedError(401, "Invalid username or password.")
        if not who.is_of(namespace):
            raise RefusedError(403, f"You don't have the rights to create repos under {namespace}")
        if who.role != "write":
            raise RefusedError(403, "This token has the role read: a write token is needed")

    def path_of(self, oid: str) -> Path:
        """Where an LFS file lies, or would."""
        return self.folder / "lfs" / oid

    def mode_of(self, path: str, size: int) -> str:
        """How a file is uploaded: `lfs` or `regular`."""
        name = path.rpartition("/")[2]
        big = size >= self.lfs_from_bytes
        matches = any(fnmatch.fnmatch(name, pattern) for pattern in LFS_PATTERNS)
        return "lfs" if big or (matches and size > 0) else "regular"

    def content(self, repository: Repository, file: File) -> bytes:
        """The bytes of a file, wherever they lie."""
        return self.path_of(file.lfs).read_bytes() if file.lfs else repository.contents[file.oid]

    def signature(self, method: str, path: str) -> str:
        """What makes a URL of the storage good for `method`."""
        return hmac.new(self.secret, f"{method} {path}".encode(), "sha256").hexdigest()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer(oid: str, size: int) -> bytes:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"
    return text.encode()


def lfs_file(oid: str, size: int) -> File:
    return File(size, git_oid(pointer(oid, size)), oid)
