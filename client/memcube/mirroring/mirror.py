"""One round of a mirror: everything that the source has and the target lacks, cube by cube.

    list the cubes → for each: its tags → those that changed → `registries.copy`, which verifies → journal

What is as it was when it was copied costs no request of its own but the one that lists what refers to
it. A round that is killed is taken up by the next one.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from memcube_protocol import limits, media_types
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    EXIT_CONFLICT,
    InvalidManifestError,
    InvalidReferenceError,
    MemcubeError,
    RuleRefusedError,
    TrustError,
    YankedError,
    outcome_of,
)
from memcube_protocol.reference import Reference, is_immutable_tag, tag_order
from memcube_protocol.values import frozen

from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.copying import registries
from memcube.copying.passage import ATTACHED, descriptor_at
from memcube.mirroring.journal import Done, Journal
from memcube.mirroring.report import Fate, Report, Row
from memcube.publishing.exposure import AS_IT_IS, Exposure
from memcube.publishing.visibility import Visibility
from memcube.remote import Registry
from memcube.remote.listing import Listing, tag_names
from memcube.transfer import Repository
from memcube.transfer.workers import Stop, run

JOURNALS: Final = "mirrors"


@frozen
class Mirror:
    """What to follow: the namespace `source` into the namespace `target`, each `[host/]name`.

    `cubes` and `tags` are patterns as in a shell, of which one has to fit; none: all do. A cube's is
    matched against its name within the namespace. `prune` lets tags of the target go when they are
    gone at the source. `exposure` is who may read the copies.
    """

    source: Reference
    target: Reference
    cubes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    builds: bool = True
    prune: bool = False
    parallel: int = 4
    exposure: Exposure = AS_IT_IS

    def __post_init__(self) -> None:
        for place in (self.source, self.target):
            if place.tag or place.digest:
                raise InvalidReferenceError(
                    f"{place} is no namespace", hint=f"write {place.location}: all tags are copied"
                )

    def wants_cube(self, name: str) -> bool:
        """Whether the repository `name` of the source is to be followed."""
        return _fits(name.removeprefix(f"{self.source.name}/"), self.cubes)

    def wants_tag(self, tag: str) -> bool:
        """Whether `tag` is to be followed."""
        return _fits(tag, self.tags)

    def name_at_target(self, name: str) -> str:
        """Where the repository `name` of the source is copied to."""
        return f"{self.target.name}/{name.removeprefix(f'{self.source.name}/')}"


def run_round(context: Context, mirror: Mirror, *, trust: Trust = NORMAL_TRUST) -> Report:
    """Copy what is new, and say what became of each tag.

    Raises:
        ConflictError: another process mirrors just this now.
        UnsupportedError: the source's registry lists nothing.
        UnauthenticatedError, ForbiddenError, NetworkError: the source cannot be listed.
        InvalidReferenceError: the namespaces lie within each other.
    """
    source, target = _at(context, mirror.source), _at(context, mirror.target)
    if f"{source.location}/".startswith(f"{target.location}/") or (
        f"{target.location}/".startswith(f"{source.location}/")
    ):
        raise InvalidReferenceError(
            f"{source} and {target} lie within each other", hint="mirror into another namespace"
        )
    here, there = context.registry(source.host), context.registry(target.host)
    listing = Listing(here)
    listed = [name for name in listing.cubes(source.name) if mirror.wants_cube(name)]
    with Journal.open(
        context.settings.home / JOURNALS, str(source), _into(target, mirror.exposure)
    ) as journal:
        one = _Round(context, mirror, trust, here, listing, there, journal, bool(listed))
        gone = [name for name in journal.names() if name not in listed and mirror.wants_cube(name)]
        work = [_Cube(name, there=True) for name in listed] + [_Cube(name) for name in gone]
        rows = run(one.follow, work, mirror.parallel)
    ordered = sorted((row for some in rows for row in some), key=lambda row: (row.name, row.tag))
    return Report(str(source), str(target), tuple(ordered))


@frozen
class _Cube:
    """A repository of the source, which is `there`, or was once."""

    name: str
    there: bool = False
    size: int = 0


@frozen
class _Round:
    """One round, used by several threads. `prunes` is whether absence may be believed."""

    context: Context
    mirror: Mirror
    trust: Trust
    here: Registry
    listing: Listing
    there: Registry
    journal: Journal
    prunes: bool

    def follow(self, cube: _Cube, stop: Stop) -> list[Row]:
        """What became of each tag of one cube."""
        try:
            present = self.listing.tags(cube.name) if cube.there else {}
            held = tag_names(self.there, self.mirror.name_at_target(cube.name))
        except MemcubeError as error:
            return [_failed(cube.name, "", error)]
        rows = list(self._present(cube.name, present, held, stop))
        rows += self._absent(cube.name, set(present))
        return rows + self._exposed(cube.name, rows, held)

    def _exposed(self, name: str, rows: Sequence[Row], held: frozenset[str]) -> list[Row]:
        """Set who may read the copy; a row where that cannot be done.

        A cube is public with all its versions: one that may not be, and lies there, keeps it as it is.
        What others push there while it is mirrored is theirs to judge, as what they push afterwards is.
        """
        visibility, at_target = self.mirror.exposure.visibility, self.mirror.name_at_target(name)
        there = {row.tag for row in rows if row.fate in (Fate.COPIED, Fate.UNCHANGED, Fate.KEPT)}
        if visibility is None or not there:
            return []
        refused = [row for row in rows if row.fate is Fate.REFUSED and row.tag in held]
        if visibility is Visibility.PUBLIC and refused:
            why = f"not made public: {refused[0].tag} lies there, and {refused[0].detail}"
            return [Row(name, "", Fate.REFUSED, "", why, exit_code=refused[0].exit_code)]
        judged = {row.tag for row in rows if row.fate in (Fate.COPIED, Fate.UNCHANGED)}
        place = Reference(self.there.host, at_target)
        try:
            self.mirror.exposure.apply(self.context, place, judged, held | judged)
        except MemcubeError as error:
            return [_failed(name, "", error)]
        return []

    def _present(
        self, name: str, present: dict[str, Digest], held: frozenset[str], stop: Stop
    ) -> Iterator[Row]:
        marks: dict[Digest, str] = {}
        # Versions first: a moving tag then finds its cube copied.
        for tag in sorted(present, key=tag_order):
            stop.check()
            if not self.mirror.wants_tag(tag):
                continue
            digest = present[tag]
            try:
                if digest not in marks:
                    marks[digest] = _mark(self.here, name, digest, builds=self.mirror.builds)
                yield self._one(name, tag, Done(digest, marks[digest]), tag in held)
            except MemcubeError as error:
                yield _failed(name, tag, error, digest)

    def _one(self, name: str, tag: str, now: Done, held: bool) -> Row:
        """What became of `tag`, which leads to `now` at the source."""
        before = self.journal.find(name, tag)
        if before == now and held:
            return Row(name, tag, Fate.UNCHANGED, str(now.digest))
        if is_immutable_tag(tag) and (other := self._other_content(name, tag, now.digest, before)):
            return Row(name, tag, Fate.ALARM, str(now.digest), other, exit_code=EXIT_CONFLICT)
        copied = registries.copy(
            self.context,
            Reference(self.here.host, name, tag),  # by its tag: moved back, it is an alarm
            Reference(self.there.host, self.mirror.name_at_target(name), tag),
            trust=self.trust,
            builds=self.mirror.builds,
            exposure=self.mirror.exposure,
        )
        if (
            copied.digest == now.digest
        ):  # else the tag moved meanwhile, and the next round looks again
            self.journal.write(name, tag, now)
        fate = Fate.COPIED if copied.changed else Fate.UNCHANGED
        return Row(name, tag, fate, str(copied.digest), "", copied.moved.sent_bytes)

    def _other_content(self, name: str, tag: str, digest: Digest, before: Done | None) -> str:
        """What is wrong where version `tag` had another content before, or has it at the target."""
        if before and before.digest != digest:
            return f"the source changed this version: {before.digest} was copied before"
        found = descriptor_at(Repository(self.there, self.mirror.name_at_target(name)), tag)
        if found and found.digest != digest:
            return f"the target has {found.digest} as this version"
        return ""

    def _absent(self, name: str, present: set[str]) -> Iterator[Row]:
        """What becomes of tags that were copied and are gone at the source."""
        for tag in self.journal.tags_of(name):
            if tag in present or not self.mirror.wants_tag(tag):
                continue
            before = self.journal.find(name, tag)
            assert before
            try:
                yield self._gone(name, tag, before.digest)
            except MemcubeError as error:
                yield _failed(name, tag, error, before.digest)

    def _gone(self, name: str, tag: str, digest: Digest) -> Row:
        at_target = self.mirror.name_at_target(name)
        if not self.mirror.prune:
            return Row(name, tag, Fate.KEPT, str(digest), "gone at the source")
        if not self.prunes:
            return Row(name, tag, Fate.KEPT, str(digest), "the source lists nothing at all")
        found = descriptor_at(Repository(self.there, at_target), tag)
        if found and found.digest != digest:
            return Row(name, tag, Fate.KEPT, str(found.digest), "not what was copied")
        if found:
            self.there.delete_manifest(at_target, tag)
        self.journal.write(name, tag, None)
        return Row(name, tag, Fate.PRUNED, str(digest))


def _into(target: Reference, exposure: Exposure) -> str:
    """What the journal calls `target`: what was copied for others is looked at again before these read it."""
    words = [str(target), str(exposure.visibility or "")]
    return " ".join(filter(None, [*words, "confidential" if exposure.confidential else ""]))


def _at(context: Context, namespace: Reference) -> Reference:
    return Reference(context.at_registry(namespace).host, namespace.name)


def _fits(text: str, patterns: Iterable[str]) -> bool:
    wanted = list(patterns)
    return not wanted or any(fnmatch.fnmatchcase(text, pattern) for pattern in wanted)


def _mark(registry: Registry, name: str, cube: Digest, *, builds: bool) -> str:
    """A mark of all that refers to `cube`, and to its builds: another one when something is added."""
    listed = registry.referrers(name, cube)
    limits.require_at_most(name, len(listed), ATTACHED, unit="attached manifests")
    made = [one.digest for one in listed if one.artifact_type == media_types.BUILD]
    digests = {one.digest for one in listed if builds or one.digest not in made}
    for build in made if builds else ():
        digests |= {one.digest for one in registry.referrers(name, build)}
    return hashlib.sha256("\n".join(sorted(map(str, digests))).encode()).hexdigest()


def _failed(name: str, tag: str, error: MemcubeError, digest: Digest | None = None) -> Row:
    code, about = outcome_of(error).exit_code, str(digest or "")
    if isinstance(error, InvalidManifestError):
        return Row(name, tag, Fate.SKIPPED, about, "not a cube")
    if isinstance(error, YankedError):
        return Row(name, tag, Fate.SKIPPED, about, str(error))
    fate = Fate.REFUSED if isinstance(error, TrustError | RuleRefusedError) else Fate.FAILED
    return Row(name, tag, fate, about, str(error), exit_code=code)
