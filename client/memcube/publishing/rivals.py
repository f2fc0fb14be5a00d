"""Two machines of one publisher that release at the same time: the second goes behind the first.

The log gives each place in a history to one manifest. Who comes second signs anew in
the next place, with the first one as the release before; only a version that the first one has taken is refused.
"""

from __future__ import annotations

import time
from typing import Final

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError, MemcubeError
from memcube_signing.release import Release
from memcube_signing.transparency.places import history_of

from memcube.consuming.finding import attestations_of
from memcube.remote.interface import Remote
from memcube.remote.log import RemoteLog
from memcube.trust import releases_of
from memcube.trust.publishing import RAISE_VERSION

ATTEMPTS: Final = 5
_PAUSES_S: Final = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)


def require_other_version(registry: Remote, name: str, log: RemoteLog, refused: Release) -> None:
    """Wait until it is known which version took the place of `refused`, which must be another one.

    A release is logged before it can be read. One that cannot be read for three seconds was given up: its
    version is free, and if it comes after all, one of the two version tags is refused.

    Raises:
        ConflictError: it is the same version, with other content.
    """
    rival = _rival(log, name, refused)
    if rival is None:
        return
    for pause_s in _PAUSES_S:
        time.sleep(pause_s)
        versions = _versions(registry, name, rival, refused)
        if refused.version in versions:
            raise ConflictError(
                f"another machine has released version {refused.version} just now, with other "
                f"content ({rival})",
                hint=RAISE_VERSION,
            )
        if versions:
            return


def _rival(log: RemoteLog, name: str, refused: Release) -> Digest | None:
    """The manifest that has the place of `refused`."""
    place = (refused.origin, history_of(refused.publishers), refused.seq)
    for taken in log.places(name):
        if (taken.origin, taken.history, taken.seq) == place and taken.manifest != refused.subject:
            return taken.manifest
    return None


def _versions(registry: Remote, name: str, rival: Digest, refused: Release) -> set[str]:
    """As which versions the origin released the manifest `rival`, as far as it can be read by now."""
    try:
        manifest = registry.manifest(name, str(rival))
        attached = tuple(attestations_of(registry, name, rival))
    except MemcubeError:
        return set()
    if not isinstance(manifest, oci.Manifest):
        return set()
    found = (signed.release for signed in releases_of(manifest, attached))
    return {one.version for one in found if (one.origin, one.seq) == (refused.origin, refused.seq)}
