"""Sending again what a registry has lost of a cube that it still shows: `memcube push --again`.

A registry shows a manifest only when it holds every blob of it, so a push of what is there asks for none. A
registry whose disk lost some says so for each blob once its operator has found out; here each one is asked for.
"""

from __future__ import annotations

from memcube_protocol.cube import Cube
from memcube_protocol.errors import UnsupportedError
from memcube_protocol.oci import Descriptor, Manifest
from memcube_protocol.reference import Reference

from memcube.context import Context
from memcube.remote import Registry
from memcube.transfer import push_blobs


def send_again(context: Context, place: Reference, cube: Cube) -> int:
    """Ask for every blob of the cube at `place`, and of what is attached to it and held here; bytes sent.

    Raises:
        UnsupportedError: `place` is no registry.
        NotFoundError: the registry lacks a blob that is not held here either.
        NetworkError, UnauthenticatedError, ForbiddenError: as it answers.
    """
    registry = context.remote(place.host)
    if not isinstance(registry, Registry):
        raise UnsupportedError(
            f"{place.host} keeps the bytes of its files itself", hint="leave --again out"
        )
    blobs: list[Descriptor] = list(cube.manifest.blobs)
    for entry in registry.referrers(place.name, cube.digest):
        attached = registry.manifest(place.name, str(entry.digest))
        if isinstance(attached, Manifest):
            blobs += [blob for blob in attached.blobs if context.store.blobs.has(blob.digest)]
    report = push_blobs(
        registry,
        place.name,
        blobs,
        context.store,
        progress=context.progress,
        parallel=context.settings.parallel,
    )
    return report.moved_bytes
