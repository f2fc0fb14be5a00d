"""Opening cubes: found, verified, and only then their layers fetched and kept.

    reference → manifest → attestations → verdict → only the wanted layers → the store names them

What the store names was verified when it came and is judged again, against the pins of now, each
time it is used.
"""

from __future__ import annotations

import time
from dataclasses import replace

from memcube_protocol.cube import CubeFile
from memcube_protocol.reference import Reference
from memcube_protocol.selection import Selection

from memcube.consuming.finding import Found, find_ref, found_in_store, look_up, not_held
from memcube.consuming.verifying import Verified, verify
from memcube.context import EVERYTHING, NORMAL_TRUST, Context, Trust
from memcube.store import Store
from memcube.trust import Scope


def pull(
    context: Context,
    reference: Reference,
    *,
    selection: Selection = EVERYTHING,
    trust: Trust = NORMAL_TRUST,
) -> Verified:
    """Fetch the cube at `reference`, verify it, and keep the files that `selection` wants.

    Raises:
        NotFoundError: there is no such cube, or no memory of a name in `selection`.
        TrustError: its provenance cannot be established.
        IntegrityError: the registry sent other bytes than it named.
        NetworkError: no answer, or offline.
    """
    reference = context.at_registry(reference)
    with context.store.session():
        found = look_up(context, reference)
        verified = verify(context, found, trust)
        verified = _fetched(context, verified, selection.of(verified.cube))
        _keep(context.store, found)
    if verified.verdict.observation:
        context.pins.record(verified.verdict.observation)
    return verified


def resolve(context: Context, reference: Reference, *, trust: Trust = NORMAL_TRUST) -> Verified:
    """The cube at `reference` as its registry has it now, verified; no layer is fetched.

    Raises:
        NotFoundError, TrustError, IntegrityError, NetworkError: as `pull`.
    """
    reference = context.at_registry(reference)
    found = look_up(context, reference)
    verified = verify(context, found, trust)
    if verified.verdict.observation:
        context.pins.record(verified.verdict.observation)
    return verified


def open_held(
    context: Context,
    reference: Reference,
    *,
    selection: Selection = EVERYTHING,
    trust: Trust = NORMAL_TRUST,
) -> Verified | None:
    """The cube at `reference` if the store holds all that `selection` wants of it, verified.

    Raises:
        TrustError: its provenance cannot be established any more.
        IntegrityError: the store is damaged.
    """
    ref = find_ref(context, reference)
    if ref is None:
        return None
    found = found_in_store(context.store, ref)
    if found is None:
        return None
    verified = verify(context, found, trust)
    wanted = selection.of(verified.cube)
    if not all(context.store.has(file.digest, file.size) for file in wanted):
        return None
    context.store.touch_ref(ref)
    return replace(verified, files=wanted)


def open_cube(
    context: Context,
    reference: Reference,
    *,
    selection: Selection = EVERYTHING,
    trust: Trust = NORMAL_TRUST,
) -> Verified:
    """The cube at `reference` from the store, or pulled where the store lacks a part of it.

    Raises:
        NotFoundError: neither the store nor the registry has it, or memcube is offline.
        TrustError, IntegrityError, NetworkError: as `pull`.
    """
    held = open_held(context, reference, selection=selection, trust=trust)
    if held is not None:
        return held
    if context.settings.offline:
        raise not_held(context, reference)
    return pull(context, reference, selection=selection, trust=trust)


def open_layerless(
    context: Context, reference: Reference, *, trust: Trust = NORMAL_TRUST
) -> Verified:
    """The cube at `reference`, verified, no layer fetched: from the store, else from its registry.

    Its `files` are those that the store holds.

    Raises:
        NotFoundError, TrustError, IntegrityError, NetworkError: as `open_cube`.
    """
    ref = find_ref(context, reference)
    found = found_in_store(context.store, ref) if ref else None
    if ref is None or found is None:
        if context.settings.offline:
            raise not_held(context, reference)
        verified = resolve(context, reference, trust=trust)
    else:
        verified = verify(context, found, trust)
        context.store.touch_ref(ref)
    files = verified.cube.files
    here = tuple(file for file in files if context.store.has(file.digest, file.size))
    return replace(verified, files=here)


def fetch(context: Context, verified: Verified, files: tuple[CubeFile, ...]) -> Verified:
    """`verified` with those of its `files`, fetched where the store lacks them, and kept.

    Raises:
        NotFoundError: the store lacks one, and memcube is offline, or the cube was packed here.
        IntegrityError, NetworkError: as `pull`.
    """
    absent = [file for file in files if not context.store.has(file.digest, file.size)]
    if absent and (context.settings.offline or verified.is_local):
        raise not_held(context, verified.reference)
    with context.store.session():
        fetched = _fetched(context, verified, files)
        cube, reference = verified.cube, verified.reference
        ref = None if verified.is_local else context.store.ref(replace(reference, digest=None))
        if not verified.is_local and (ref is None or ref.digest != cube.digest):
            config = cube.config.write()
            attestations = verified.attestations
            found = Found(reference, cube.manifest, config, attestations, Scope.REMOTE)
            _keep(context.store, found)
    return fetched


def _fetched(context: Context, verified: Verified, files: tuple[CubeFile, ...]) -> Verified:
    """`verified` with `files` in the store. How fast the registry was is remembered."""
    from memcube.transfer import pull_blobs

    reference, began_s = verified.reference, time.monotonic()
    if all(context.store.has(file.digest, file.size) for file in files):
        return replace(verified, files=files)
    report = pull_blobs(
        context.remote(reference.host),
        reference.name,
        [file.descriptor() for file in files],
        context.store,
        progress=context.progress,
        parallel=context.settings.parallel,
    )
    took_s = time.monotonic() - began_s
    context.speeds.note_transfer(reference.host, report.moved_bytes, took_s, context.now())
    return replace(verified, files=files, fetched_bytes=report.moved_bytes)


def _keep(store: Store, found: Found) -> None:
    """Add what was found to the store, and name it there; the layers are there already."""
    assert found.manifest.config
    store.blobs.add(found.config, found.manifest.config.digest.algorithm)
    for attestation in found.attestations:
        store.blobs.add(attestation.bundle)
        store.blobs.add(attestation.referrer.raw)
    store.blobs.add(found.manifest.raw, (found.reference.digest or found.manifest.digest).algorithm)
    reference = found.reference
    store.put_ref(
        replace(reference, digest=None) if reference.tag else reference,
        reference.digest or found.manifest.digest,
        related=tuple(attestation.referrer.digest for attestation in found.attestations),
    )
