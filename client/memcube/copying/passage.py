"""The way of a cube and all that refers to it from one repository to another, subjects first."""

from __future__ import annotations

from typing import Final

from memcube_protocol import limits, media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ForbiddenError, UnauthenticatedError
from memcube_protocol.values import frozen

from memcube.context import Context
from memcube.transfer import Outcome, Repository, relay_blobs

_DEPTH: Final = 4
ATTACHED: Final = 1000


@frozen
class Tally:
    """What passed: how many manifests, how many bytes were sent, how many the registry mounted."""

    manifests: int = 0
    sent_bytes: int = 0
    mounted_bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.manifests + other.manifests,
            self.sent_bytes + other.sent_bytes,
            self.mounted_bytes + other.mounted_bytes,
        )


@frozen
class Passage:
    """From `source` to `target`. What the target has is not sent again; `builds` go along, or stay."""

    context: Context
    source: Repository
    target: Repository
    builds: bool = True

    def carry(self, manifest: oci.Manifest) -> Tally:
        """Make the target hold `manifest`, under its digest, and its blobs.

        Raises:
            NotFoundError: the source does not hold a blob of it.
            SizeMismatchError, DigestMismatchError: the source sends something else.
        """
        settings, store = self.context.settings, self.context.store
        with store.session():
            report = relay_blobs(
                self.source,
                self.target,
                manifest.blobs,
                store,
                progress=self.context.progress,
                parallel=settings.parallel,
            )
        self.target.registry.put_manifest(self.target.name, manifest)
        mounted = sum(one.blob.size for one in report.blobs if one.outcome is Outcome.MOUNTED)
        return Tally(1, report.moved_bytes, mounted)

    def carry_cube(self, cube: oci.Manifest) -> tuple[Tally, int]:
        """`cube`, what refers to it, and what refers to that; also how many manifests are attached to it.

        Raises:
            LimitExceededError: more than 1000 are attached.
            NotFoundError, SizeMismatchError, DigestMismatchError: as `carry`.
        """
        there = descriptor_at(self.target, str(cube.digest))
        tally = Tally() if there and there.digest == cube.digest else self.carry(cube)
        seen, level = {cube.digest}, [cube.digest]
        for _ in range(_DEPTH):
            following: list[Digest] = []
            for subject in level:
                wanted = [one for one in self._referrers(subject) if one.digest not in seen]
                limits.require_at_most(
                    self.source.name, len(seen) + len(wanted), ATTACHED, unit="attached manifests"
                )
                more, there_now = self._carry_listed(subject, wanted)
                tally += more
                seen.update(there_now)
                following += there_now
            level = following
        return tally, len(seen) - 1

    def _referrers(self, subject: Digest) -> list[oci.Descriptor]:
        """Manifests that refer to `subject`, without builds where those stay."""
        listed = self.source.registry.referrers(self.source.name, subject)
        known = [one for one in listed if one.media_type in oci.MANIFEST_TYPES]
        return [one for one in known if self.builds or one.artifact_type != media_types.BUILD]

    def _carry_listed(
        self, subject: Digest, wanted: list[oci.Descriptor]
    ) -> tuple[Tally, list[Digest]]:
        """Those of `wanted` that the target lacks and that do refer to `subject`; also which it has now."""
        listed = self.target.registry.referrers(self.target.name, subject) if wanted else []
        held = {one.digest for one in listed}
        tally, there = Tally(), [one.digest for one in wanted if one.digest in held]
        for entry in wanted:
            if entry.digest in held:
                continue
            manifest = self.source.registry.manifest(self.source.name, str(entry.digest))
            refers = manifest.subject is not None and manifest.subject.digest == subject
            if isinstance(manifest, oci.Manifest) and refers:
                tally += self.carry(manifest)
                there.append(manifest.digest)
        return tally, there


def descriptor_at(place: Repository, target: str) -> oci.Descriptor | None:
    """What `target` names at `place`; nothing also where the registry lets nobody read what is not there."""
    try:
        return place.registry.manifest_descriptor(place.name, target)
    except (UnauthenticatedError, ForbiddenError):
        return None
