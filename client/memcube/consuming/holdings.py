"""What the local store holds: listing, forgetting, and folders of single memories for other tools."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from memcube_protocol.config import PARAMETRIC, CubeConfig
from memcube_protocol.content import Expected, stream_verified
from memcube_protocol.cube import Cube, CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError, NotFoundError
from memcube_protocol.media_types import BUNDLE_PREDICATE
from memcube_protocol.reference import Reference, is_immutable_tag
from memcube_protocol.selection import Selection
from memcube_protocol.values import frozen
from memcube_signing.predicates import status
from memcube_signing.predicates.status import State

from memcube.consuming.finding import Found, find_packed, find_ref, found_in_store
from memcube.consuming.verifying import Verified, question
from memcube.context import NORMAL_TRUST, Context
from memcube.packing.unpack import unpack_files
from memcube.store import Pruned, Ref
from memcube.store.files import PIECE_BYTES, disk_bytes_below, open_file
from memcube.trust import Scope, judge_cube

if TYPE_CHECKING:
    from memcube.store.checks import FileChecks

FOLDERS = "folders"
INDEXES = "indexes"
BUILDS = "builds"
"""Below the user's home: what is made of cubes, each named by the digest of its cube, and made anew."""
_STATES: Final = {"release-deprecated": State.DEPRECATED, "release-yanked": State.YANKED}


@frozen
class Held:
    """A cube in the local store; `config` is None where it is damaged or no cube.

    `held_bytes` of `total_bytes` are here; `packed` says that this user made it. `state` is what its
    publisher says of it since, as far as this machine knows.
    """

    reference: Reference
    digest: Digest
    used_at: datetime
    packed: bool
    config: CubeConfig | None = None
    held_bytes: int = 0
    total_bytes: int = 0
    state: State = State.ACTIVE


def held(context: Context) -> tuple[Held, ...]:
    """Every cube that the store names, sorted by reference."""
    return tuple(_held(context, ref) for ref in context.store.refs())


@frozen
class Forgotten:
    """What was forgotten of a cube: `reference`, the one asked for, and `also` others.

    `left` are tags that still keep the cube.
    """

    reference: Reference
    also: tuple[Reference, ...] = ()
    left: tuple[Reference, ...] = ()


def forget(context: Context, reference: Reference) -> Forgotten:
    """Forget `reference`; what only it needed goes with the next pruning.

    A full version or a digest stands for the cube: the moving tags that lead to it are forgotten
    too. With the last name of a published cube goes the pack that it was made from.

    Raises:
        NotFoundError: the store does not hold it.
    """
    store = context.store
    ref = find_ref(context, reference) or find_packed(store, reference)
    if ref is None:
        raise NotFoundError(
            f"the local store does not hold {reference}", hint="memcube ls shows what it holds"
        )
    others = [one for one in store.refs() if one.digest == ref.digest]
    others = [one for one in others if one.reference != ref.reference]
    same = [one for one in others if one.reference.location == ref.reference.location]
    packs = [one for one in others if not one.reference.host]
    whole = ref.reference.tag is None or is_immutable_tag(ref.reference.tag)
    left = [] if whole else same
    also = [] if left else [*same, *packs]
    for one in dict.fromkeys((ref, *also)):
        store.remove_ref(one.reference)
        store.release(one)
    names = dict.fromkeys(one.reference for one in also)
    return Forgotten(ref.reference, tuple(names), tuple(one.reference for one in left))


def restore_pack(context: Context, packed: Reference, before: Ref | None) -> None:
    """Make `packed` name again what it named `before`, or nothing.

    Raises:
        StorageError: the store cannot be written.
    """
    if before is None:
        context.store.remove_ref(packed)
    else:
        context.store.put_ref(packed, before.digest, kept=before.kept, related=before.related)


def prune(context: Context, *, older_than_days: float | None, max_bytes: int | None) -> Pruned:
    """Free space: see `store.Store.prune`; what was made of cubes goes with them, counted apart.

    Raises:
        ConflictError: another process uses the store.
        StorageError: something could not be removed.
    """
    from datetime import timedelta

    older = None if older_than_days is None else timedelta(days=older_than_days)
    pruned = context.store.prune(older_than=older, max_bytes=max_bytes)
    refs = context.store.refs()
    left = {ref.digest.hex for ref in refs}
    left |= {one.related[0].hex for ref in refs for one in context.store.builds(ref.digest)}
    freed: Counter[str] = Counter()
    for made, folder in _made(context):
        if folder.name.rpartition("-")[2] not in left:
            freed[made] += disk_bytes_below(folder)
            shutil.rmtree(folder, ignore_errors=True)
    return replace(pruned, made_bytes=freed)


def made_bytes(context: Context) -> dict[str, int]:
    """What was made of cubes takes on the disk, by the folder of the user's home that it lies in."""
    taken: Counter[str] = Counter()
    for made, folder in _made(context):
        taken[made] += disk_bytes_below(folder)
    return dict(taken)


def _made(context: Context) -> Iterator[tuple[str, Path]]:
    """Each folder that was made of one cube, and what it lies in."""
    for made in (INDEXES, FOLDERS, BUILDS):
        folders = context.settings.home / made
        for folder in sorted(folders.iterdir()) if folders.is_dir() else ():
            if folder.is_dir() and not folder.name.startswith("."):
                yield made, folder


def memory_folder(context: Context, verified: Verified, memory_id: str) -> Path:
    """A plain folder with the files of one memory, checked now: PEFT and vLLM load an adapter from it.

    The same call gives the same folder again; one that was changed is written anew. Files that were
    checked before and have not changed since are not read again.

    Raises:
        NotFoundError: the cube has no such memory, or the store lacks a file of it.
        IntegrityError: the store is damaged.
        InvalidTensorsError, InvalidConfigError, UnsupportedError: an adapter that no mount would take.
        StorageError: it cannot be written.
    """
    files = Selection(memories=frozenset({memory_id})).of(verified.cube)
    files = tuple(file for file in files if file.memory == memory_id)
    memory = verified.cube.config.memory(memory_id)
    kind = memory.kind if memory else ""
    return files_folder(context, verified.cube.digest, memory_id, kind, files)


def files_folder(
    context: Context, owner: Digest, memory_id: str, kind: str, files: tuple[CubeFile, ...]
) -> Path:
    """The folder of `files`, those of a memory of the cube or build `owner`; see `memory_folder`."""
    parents = {file.path.rpartition("/")[0] for file in files}
    below = f"{parents.pop()}/" if len(parents) == 1 else ""
    folder = context.settings.home / FOLDERS / owner.hex / memory_id
    from memcube.store.checks import CHECKS_FILE, FileChecks

    checks = FileChecks(context.settings.home / CHECKS_FILE)
    checks.require_ours()
    if not _is_intact(folder, files, below, checks):
        shutil.rmtree(folder, ignore_errors=True)
        unpack_files(files, context.store, folder, below=below)
    if kind == PARAMETRIC:
        _require_adapter(folder)
    return folder


def _require_adapter(folder: Path) -> None:
    """Refuse, and take away, an adapter that a mount would refuse: other programs load what they find."""
    from memcube.memories.parametric.dump import read_adapter

    try:
        read_adapter(folder)
    except MemcubeError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _is_intact(folder: Path, files: tuple[CubeFile, ...], below: str, checks: FileChecks) -> bool:
    names = {file.path.removeprefix(below) for file in files}
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    }
    if folder.is_symlink() or names != present:
        return False
    return all(_holds(folder / file.path.removeprefix(below), file, checks) for file in files)


def _holds(path: Path, file: CubeFile, checks: FileChecks) -> bool:
    def verified_digest() -> str:
        pieces = iter(lambda: stream.read(PIECE_BYTES), b"")
        for _ in stream_verified(pieces, Expected(file.digest, file.size)):
            pass
        return str(file.digest)

    try:
        descriptor = open_file(path)
        with open(descriptor, "rb", buffering=0) as stream:  # noqa: PTH123 - a descriptor, not a path
            known = checks.remembered(file.digest.algorithm, descriptor, verified_digest)
    except (OSError, MemcubeError):
        return False
    return known == str(file.digest)


def _held(context: Context, ref: Ref) -> Held:
    packed = not ref.reference.host
    try:
        found = found_in_store(context.store, ref)
        cube = Cube.read(found.manifest, found.config) if found else None
    except MemcubeError:
        found = cube = None
    if found is None or cube is None:
        return Held(ref.reference, ref.digest, ref.used_at, packed)
    here = {
        blob.digest: blob.size for blob in cube.manifest.blobs if context.store.has(blob.digest)
    }
    return Held(
        ref.reference,
        ref.digest,
        ref.used_at,
        packed,
        cube.config,
        len(cube.manifest.raw) + sum(here.values()),
        cube.size,
        _state(context, found),
    )


def _state(context: Context, found: Found) -> State:
    """What the publisher says of `found`; it is judged only where somebody said something."""
    said = [one.referrer.annotations.get(BUNDLE_PREDICATE) for one in found.attestations]
    remembered = context.statuses.of(found.manifest.digest)
    if found.scope is Scope.LOCAL or not (remembered or status.PREDICATE_TYPE in said):
        return State.ACTIVE
    rules = judge_cube(question(context, found, NORMAL_TRUST)).rules
    return next((_STATES[rule.reason] for rule in rules if rule.reason in _STATES), State.ACTIVE)
