"""What must hold of any registry at any moment, whatever was pushed: nothing half-visible."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chaos.evidence import Objects, State
from chaos.merkle import Tree, leaf_hash, root_of_proof


@dataclass(frozen=True)
class Violation:
    """Something that is not as it must be."""

    kind: str
    what: str


@dataclass(frozen=True)
class Promise:
    """What the log said when it acknowledged an entry."""

    leaf: str
    index: int
    size: int
    root: str
    hashes: tuple[str, ...]


def half_visible(state: State) -> Iterator[Violation]:
    """Tags to nothing, and manifests whose bytes, blobs or children are not there."""
    for (repository, tag), digest in state.tags.items():
        if not digest:
            yield Violation("tag to nothing", f"{repository}:{tag}")
    for (repository, digest), one in state.manifests.items():
        algorithm, _, expected = digest.partition(":")
        if hashlib.new(algorithm, one.content).hexdigest() != expected:
            yield Violation("untrue manifest", f"{repository}@{digest}")
        for blob in one.blobs:
            if (repository, blob) not in state.links:
                yield Violation("manifest without its blob", f"{repository}@{digest}: {blob}")
        for child in one.children:
            if (repository, child) not in state.manifests:
                yield Violation("index without its child", f"{repository}@{digest}: {child}")


def unsigned(state: State) -> Iterator[Violation]:
    """Releases without the registry's countersignature: each client has signed with its own key."""
    for each in state.unsigned:
        yield Violation("release that is not countersigned", each)


def miscounted(state: State) -> Iterator[Violation]:
    """Accounts that are said to use another number of bytes than they do."""
    used: Counter[str] = Counter()
    for (repository, _), one in state.manifests.items():
        used[state.owners[repository]] += one.size
    for account, digest in {(state.owners[name], digest) for name, digest in state.links}:
        used[account] += state.blobs[digest][1]
    for account, said in state.used.items():
        if said != used[account]:
            yield Violation("quota", f"{account} is said to use {said} bytes, not {used[account]}")


def bytes_of_blobs(state: State, objects: Objects, digests: Iterable[str]) -> Iterator[Violation]:
    """Blobs without an object of their size; those of `digests` with other bytes."""
    held = objects.names()
    for digest, (location, size) in state.blobs.items():
        if held.get(location) != size:
            yield Violation("blob without its bytes", f"{digest} at {location}")
    for digest in digests:
        location = state.blobs[digest][0]
        if location in held and f"sha256:{objects.sha256(location)}" != digest:
            yield Violation("untrue blob", f"{digest} at {location}")


def leftovers(state: State, objects: Objects) -> Iterator[Violation]:
    """What a collection of all that nothing refers to should have taken."""
    alive = state.alive()
    named = {(one.repository, blob) for one in state.manifests.values() for blob in one.blobs}
    rows = {location for location, _ in state.blobs.values()}
    found = {
        "dead manifest": [f"{name}@{digest}" for name, digest in set(state.manifests) - alive],
        "unnamed blob": [f"{name} {digest}" for name, digest in state.links - named],
        "blob that no repository links": sorted(state.unlinked),
        "upload session": state.uploads,
        "object without a row": sorted(set(objects.names()) - rows),
        "unfinished bytes": objects.unfinished(),
        "work that is due": state.due,
    }
    for kind, items in found.items():
        for item in items:
            yield Violation(f"leftover: {kind}", item)
    if state.condemned:
        yield Violation("leftover: condemned", f"{state.condemned} rows")


def log_is_whole(state: State, known_size: int, promises: Iterable[Promise]) -> Iterator[Violation]:
    """The log did not shrink, holds what it promised, and every checkpoint is of one history."""
    size, note = state.log
    leaves = [leaf for _, leaf, _ in state.entries]
    if [number for number, _, _ in state.entries] != list(range(size)):
        yield Violation("log", f"{len(leaves)} entries, the checkpoint says {size}")
        return
    if size < known_size:
        yield Violation("log", f"it shrank from {known_size} to {size}")
    for number, leaf, body in state.entries:
        if leaf_hash(body) != leaf:
            yield Violation("log", f"entry {number} has another hash than its leaf")
    tree = Tree(leaves)
    if size and base64.b64decode(note.splitlines()[2]) != tree.root(size):
        yield Violation("log", "the checkpoint has another root than the entries")
    for (level, number), hashes in state.tiles.items():
        if hashes != tree.tile(level, number):
            yield Violation("log", f"tile {level}/{number} does not follow from the entries")
    for promise in promises:
        yield from _is_kept(promise, leaves, tree)


def _is_kept(promise: Promise, leaves: list[bytes], tree: Tree) -> Iterator[Violation]:
    leaf, root = bytes.fromhex(promise.leaf), bytes.fromhex(promise.root)
    if promise.index >= len(leaves) or leaves[promise.index] != leaf:
        yield Violation("log", f"entry {promise.index} was acknowledged and is not there")
        return
    if promise.size > len(leaves) or tree.root(promise.size) != root:
        yield Violation("log", f"the checkpoint of size {promise.size} is of another history")
    proof = [bytes.fromhex(each) for each in promise.hashes]
    if root_of_proof(leaf, promise.index, promise.size, proof) != root:
        yield Violation("log", f"the proof of entry {promise.index} proves nothing")


def checkpoint_is_signed(note: str, key: str, state: State) -> Iterator[Violation]:
    """The checkpoint that is served, `note`, is signed by the log's `key` and of its history."""
    text, _, lines = note.partition("\n\n")
    origin, size, root = text.splitlines()[:3]
    name, _, encoded = key.split("+", 2)
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
    if origin != name or not any(_signs(public, text + "\n", line) for line in lines.splitlines()):
        yield Violation("log", "the checkpoint is not signed by the log")
    leaves = [leaf for _, leaf, _ in state.entries]
    if int(size) > len(leaves) or Tree(leaves).root(int(size)) != base64.b64decode(root):
        yield Violation("log", "the checkpoint that is served is of another history")


def _signs(key: Ed25519PublicKey, text: str, line: str) -> bool:
    signature = base64.b64decode(line.rpartition(" ")[2])[4:]
    try:
        key.verify(signature, text.encode())
    except InvalidSignature:
        return False
    return True
