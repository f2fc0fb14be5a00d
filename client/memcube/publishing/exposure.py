"""Who shall be able to read a cube at its place, and whether its own governance bears that."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.cube import Cube, require_cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidManifestError,
    MemcubeError,
    NetworkError,
    RateLimitedError,
    RuleRefusedError,
    UnavailableError,
)
from memcube_protocol.governance import Governance
from memcube_protocol.oci import Manifest
from memcube_protocol.reference import HUB_HOST, Reference, tag_order
from memcube_protocol.values import frozen

from memcube import rules
from memcube.context import Context
from memcube.http import Request
from memcube.publishing.visibility import Visibility, set_visibility
from memcube.remote import is_fallback_tag
from memcube.remote.interface import Remote
from memcube.remote.listing import tag_names


@frozen
class Exposure:
    """Who shall be able to read a cube; None: who can already, and of a new one its owners only.

    `confidential` lets a cube become public that its governance calls confidential or personal.
    """

    visibility: Visibility | None = None
    confidential: bool = False

    @property
    def _opens(self) -> bool:
        """Whether it makes public what governance has a say about."""
        return self.visibility is Visibility.PUBLIC and not self.confidential

    def require(
        self, context: Context, governance: Governance, name: str, place: Reference
    ) -> None:
        """That the `governance` of the cube `name` bears who will read it at `place`; before anything is sent.

        What is added to a cube that everybody reads is public as well, without a word for it. Where the
        cube is to be private, it is made so first.

        Raises:
            RuleRefusedError: it does not.
            ForbiddenError: this user may not make it private.
        """
        if self.confidential:
            return
        try:
            rules.require_publishable(context, governance, name)
        except RuleRefusedError as error:
            if self._opens:
                raise
            at = context.at_registry(place)
            if not _is_public(context, at):
                return
            if self.visibility is None:
                why, hint = f"{at.location} is public, and {error}", _ADDED
                raise RuleRefusedError(why, hint=hint) from None
            set_visibility(context, at, self.visibility)

    def apply(
        self,
        context: Context,
        place: Reference,
        judged: Collection[str] = (),
        there: Collection[str] | None = None,
    ) -> None:
        """Make it so at `place`: a cube is public with all its versions, and each has to bear that.

        Tags that were `judged` are not looked at again, and none is where everybody reads it already.
        `there` are the tags of `place` where they are known; None: they are asked for.

        Raises:
            RuleRefusedError: the governance of a version that lies there speaks against it.
            UnsupportedError, UnauthenticatedError, ForbiddenError, NotFoundError: as `set_visibility`.
        """
        if self.visibility is None:
            return
        if self._opens:
            self._require_of_all(context, context.at_registry(place), judged, there)
        set_visibility(context, place, self.visibility)

    def _require_of_all(
        self,
        context: Context,
        place: Reference,
        judged: Collection[str],
        there: Collection[str] | None,
    ) -> None:
        registry = context.remote(place.host)
        tags = tag_names(registry, place.name) if there is None else frozenset(there)
        left = [tag for tag in tags.difference(judged) if not is_fallback_tag(tag)]
        if not left or _is_public(context, place):
            return
        seen: set[Digest] = set()
        for tag in sorted(left, key=tag_order):
            manifest = registry.manifest(place.name, tag)
            if isinstance(manifest, Manifest) and manifest.digest not in seen:
                seen.add(manifest.digest)
                self._require_at(context, registry, place.name, tag, manifest)

    def _require_at(
        self, context: Context, registry: Remote, name: str, tag: str, manifest: Manifest
    ) -> None:
        if manifest.config is None:
            return
        try:
            require_cube(manifest)
        except InvalidManifestError:
            return
        config = registry.read_blob(name, manifest.config, limits.CONFIG_BYTES)
        cube = Cube.read(manifest, config)
        try:
            rules.require_publishable(context, cube.config.governance, cube.config.name)
        except RuleRefusedError as error:
            why = f"not made public: {tag} lies there, and {error}"
            raise RuleRefusedError(why, hint=error.hint) from None


AS_IT_IS: Final = Exposure()
_ADDED: Final = "correct governance in memcube.toml, or repeat with --private or --yes"


def _is_public(context: Context, place: Reference) -> bool:
    """Whether everybody reads what is at `place`, as far as a registry of ours, or the Hub, says so.

    Raises:
        NetworkError, RateLimitedError, UnavailableError: no answer, which may not be taken for a no.
        MemcubeError: the Hub does not say it.
    """
    if place.host == HUB_HOST:
        return context.hub().is_public(place.name)
    registry = context.registry(place.host)
    request = Request("GET", f"{registry.endpoint.url}/api/v1/cubes/{place.name}")
    try:
        with registry.http.send(request) as response:
            content = response.content(limits.MANIFEST_BYTES)
        told: dict[str, Any] = canonical_json.parse_object(content, what="answer of the registry")
    except (NetworkError, RateLimitedError, UnavailableError):
        raise
    except MemcubeError:
        return False  # nothing that this user may see, or another kind of registry
    return told.get("visibility") == Visibility.PUBLIC.value
