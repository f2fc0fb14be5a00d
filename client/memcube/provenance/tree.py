"""Following the lineage of a cube: each parent looked up, judged, and its statements verified."""

from __future__ import annotations

from dataclasses import replace

from memcube_protocol.config import CubeConfig, Parent
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_protocol.obligations import Inherited, Work, inherited
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen

from memcube.consuming.finding import Found, find_ref, look_at
from memcube.consuming.verifying import question
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.trust import Verdict, judge_cube
from memcube.trust.attested import Claim, statements_of

_DEPTH = 16
_NODES = 256


@frozen
class Node:
    """One cube of the tree. Where it could not be read, `why_unknown` says why and the rest is empty.

    `relation` is how the cube below was made from it; None at the root. `inherited` is what this cube
    owes to those above it.
    """

    name: str
    digest: Digest
    relation: str | None = None
    config: CubeConfig | None = None
    verdict: Verdict | None = None
    claims: tuple[Claim, ...] = ()
    parents: tuple[Node, ...] = ()
    inherited: Inherited | None = None
    why_unknown: str | None = None
    seen_before: bool = False

    @property
    def licence(self) -> str:
        """The licence that the release states, else the config's."""
        if self.verdict and self.verdict.release:
            return self.verdict.release.licence
        return self.config.governance.licence if self.config else "unknown"

    @property
    def version(self) -> str | None:
        """The version, as far as known."""
        return self.config.version if self.config else None

    @property
    def standing(self) -> str:
        """What the cube may be called: a standing of its verdict, or `unknown`."""
        return str(self.verdict.standing) if self.verdict else "unknown"

    @property
    def work(self) -> Work:
        """This cube with the rules on it."""
        governance = self.config.governance if self.config else None
        return Work(self.name, self.licence, governance)


def trace(context: Context, reference: Reference, *, trust: Trust = NORMAL_TRUST) -> Node:
    """The tree of `reference`. Nothing is pinned and no layer is fetched.

    Raises:
        NotFoundError, NetworkError: the cube itself cannot be read; a parent that cannot is shown so.
    """
    return _Tracer(context, trust).root(reference)


class _Tracer:
    def __init__(self, context: Context, trust: Trust) -> None:
        self._context = context
        self._trust = trust
        self._seen: set[Digest] = set()

    def root(self, reference: Reference) -> Node:
        found = look_at(self._context, reference)
        return self._node(found, None, 0)

    def _node(self, found: Found, relation: str | None, depth: int) -> Node:
        digest = found.manifest.digest
        self._seen.add(digest)
        config = Cube.read(found.manifest, found.config).config
        verdict = judge_cube(question(self._context, found, self._trust))
        claims = statements_of(found.manifest, found.attestations, verdict)
        parents = tuple(
            self._parent(found.reference, parent, depth + 1) for parent in config.lineage.parents
        )
        name = verdict.release.origin if verdict.release else found.reference.location
        node = Node(name, digest, relation, config, verdict, claims, parents)
        return replace(node, inherited=inherited(node.work, _ancestors(node)))

    def _parent(self, below: Reference, parent: Parent, depth: int) -> Node:
        """What the cube at `below` says that it was made from."""
        bare = Node(parent.origin, parent.digest, parent.relation)
        if parent.digest in self._seen:
            return replace(bare, seen_before=True, why_unknown="shown above")
        if depth > _DEPTH or len(self._seen) >= _NODES:
            return replace(bare, why_unknown="the tree is too large to follow")
        place = replace(Reference.parse(parent.origin), digest=parent.digest)
        try:
            return self._node(self._found(below, place), parent.relation, depth)
        except MemcubeError as error:
            return replace(bare, why_unknown=str(error))

    def _found(self, below: Reference, place: Reference) -> Found:
        """As `look_at`. Whoever published the cube at `below` chose `place`, not the user.

        Raises:
            UnsafeRedirectError: it lies further inside than the registry that led here.
        """
        settings = self._context.settings
        if find_ref(self._context, place) is None and not settings.offline:
            # Here and not above: an offline look need not load an HTTP client.
            from memcube.http.origins import Origin, Reach, require_no_deeper

            leader, led = (
                Origin.of(settings.endpoint_of(one.host).url)
                for one in (self._context.at_registry(below), place)
            )
            if not leader.is_loopback:
                # Where its name leads today is its owner's choice: never into this machine.
                require_no_deeper(leader, led, deepest=Reach.PRIVATE)
        return look_at(self._context, place)


def _ancestors(node: Node) -> tuple[Work, ...]:
    """Every work above `node` once, the nearest first; an unknown one with an unknown licence."""
    works: dict[str, Work] = {}
    level = list(node.parents)
    while level:
        for parent in level:
            if not parent.seen_before:
                works.setdefault(parent.name, parent.work)
        level = [parent for above in level for parent in above.parents]
    return tuple(works.values())
