"""`push`: from a folder, or a cube packed before, to a published one, with what its owner should know.

Guards what cannot be taken back: a default version beside real ones, and the publicity of what its
own governance calls confidential or personal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from memcube_protocol.cube import Cube
from memcube_protocol.errors import (
    ConflictError,
    FindingsError,
    ForbiddenError,
    InvalidReferenceError,
    NotFoundError,
    RuleRefusedError,
    TrustError,
    UnauthenticatedError,
)
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import HUB_HOST, Reference, is_immutable_tag
from memcube_protocol.values import frozen

from memcube import rules
from memcube.accounts import identity_tokens, publishers, session
from memcube.accounts.credentials import CredentialStore
from memcube.consuming import finding, holdings
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.packing.kinds import Folder, open_folder
from memcube.packing.pack import local_reference, pack_opened, read_cube
from memcube.publishing import publish
from memcube.publishing.exposure import Exposure
from memcube.publishing.healing import send_again
from memcube.publishing.publish import Published
from memcube.publishing.tags import newest_release
from memcube.publishing.vetting import THOROUGH, Sieve, Vetting, publish_vetted
from memcube.publishing.visibility import visibility_of
from memcube.scanning.scanner import LayerScanner
from memcube.transfer import EarlySender
from memcube.trust.hardware import SCHEME
from memcube.trust.publishing import RAISE_VERSION

_REFUSALS: Final = (ConflictError, FindingsError, ForbiddenError, RuleRefusedError, TrustError)
_SHORT_VERSION: Final = re.compile(r"[vV]?(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?")


@frozen
class Terms:
    """How to publish: the key's name, who may read it, what is accepted and looked for.

    `expose` lets a cube become public that its governance calls confidential or personal. `again` asks
    the registry for every file, also of a cube that is there already.
    """

    key: str | None = None
    public: bool | None = None
    trust: Trust = NORMAL_TRUST
    vet: Vetting = THOROUGH
    expose: bool = False
    again: bool = False

    @property
    def exposure(self) -> Exposure:
        """Who shall be able to read it: what its owner called confidential is opened by two words, not by one."""
        return Exposure(visibility_of(self.public), confidential=self.expose)


def push(context: Context, source: Path | str, wanted: Reference | None, terms: Terms) -> Published:
    """Publish `source` at `wanted` (see `Client.push`).

    Raises:
        ConflictError: its default version would stand beside real ones.
        RuleRefusedError: its governance speaks against making it public, or the rules of a cube that
            it was made from against pushing it.
        UnauthenticatedError: nobody is logged in.
        …: as `vetting.publish_vetted`.
    """
    try:
        if Path(source).is_dir() or os.fspath(source).startswith(("/", ".")):  # no name does
            published = _push_folder(context, Path(source), wanted, terms)
        else:
            packed = Reference.parse(os.fspath(source))
            published = _push_packed(context, packed, wanted, terms)
        if terms.again:
            sent = send_again(context, published.reference, published.cube)
            published = replace(published, sent_bytes=published.sent_bytes + sent)
        exposure = terms.exposure
        exposure.apply(context, published.reference, judged=published.tags)
        return replace(published, visibility=exposure.visibility)
    except UnauthenticatedError:
        host = (wanted.host if wanted else "") or context.settings.endpoint.host
        if host == HUB_HOST:
            raise
        if CredentialStore(context.settings).find(host) or identity_tokens.is_at_hand(os.environ):
            raise
        advice = identity_tokens.advice(os.environ)
        raise UnauthenticatedError(
            f"you are not logged in to {host}",
            hint=f"memcube login {host}" + (f"; {advice}" if advice else ""),
        ) from None


def _push_folder(
    context: Context, folder: Path, wanted: Reference | None, terms: Terms
) -> Published:
    """Pack and publish; large files are sent while others are still being packed."""
    # What the Hub calls a repository need not be a cube's name; and so the digest is that of other places.
    name = wanted.name if wanted and wanted.host != HUB_HOST else None
    version = version_of(wanted)
    opened = open_folder(folder, name=name, version=version)
    named = wanted or local_reference(opened.draft)
    place = _in_namespace(context, Reference(named.host, named.name, named.tag))
    terms.exposure.require(context, opened.draft.governance, opened.draft.name, place)
    publishers.log_in_as_job(context, place)
    if not opened.is_written and version is None:
        _require_first(context, folder, place, opened)
    packed_as = local_reference(opened.draft)
    before = context.store.ref(packed_as)
    key, trust, vet = terms.key, terms.trust, terms.vet
    layers = LayerScanner(context.store)
    with _going_ahead(context, place) as early:
        kept = Sieve(layers, early or _nowhere, vet)
        packed = pack_opened(folder, opened, context.store, kept=kept)
        try:
            _require_own(context, packed.cube, place, key)
            published = publish_vetted(
                context,
                packed.cube,
                place,
                vet=vet,
                key=key,
                trust=trust,
                early=early,
                layers=layers,
            )
        except _REFUSALS as error:
            # What was refused is no release: it does not stay behind under the release's name.
            holdings.restore_pack(context, packed_as, before)
            if not opened.is_written and error.hint == RAISE_VERSION:
                error.hint = f"a version never changes: {_next(context, folder, place)}"
            raise
    return replace(published, notes=packed.notes)


@contextmanager
def _going_ahead(context: Context, place: Reference) -> Iterator[EarlySender | None]:
    """What sends large files to `place` while the cube is being packed, where that may be.

    With cubes of others in the store nothing goes ahead: what is packed may be theirs.
    """
    if next(rules.held_of_others(context, place), None):
        yield None
        return
    with publish.early_sender(context, place) as early:
        yield early


def _nowhere(_: Descriptor) -> None:
    """Nothing goes ahead."""


def _push_packed(
    context: Context, source: Reference, wanted: Reference | None, terms: Terms
) -> Published:
    ref = finding.find_packed(context.store, source)
    if ref is None:
        raise NotFoundError(
            f"{source} is neither a folder nor a cube packed here",
            hint="name a folder, or see memcube ls",
        )
    cube, named = read_cube(context.store, ref.digest), wanted or ref.reference
    place = _in_namespace(context, Reference(named.host, named.name, named.tag))
    terms.exposure.require(context, cube.config.governance, cube.config.name, place)
    _require_own(context, cube, place, terms.key)
    publishers.log_in_as_job(context, place)
    return publish_vetted(context, cube, place, vet=terms.vet, key=terms.key, trust=terms.trust)


def _require_own(context: Context, cube: Cube, place: Reference, key: str | None) -> None:
    """Stop what other publishers do not want to be pushed; see `rules.require_push`."""
    try:
        rules.require_push(context, cube, place)
    except RuleRefusedError:
        if not (key or "").startswith(SCHEME):
            raise
        context.signer(key)  # whose key lies in a token is known once that is open
        rules.require_push(context, cube, place)


def _require_first(context: Context, folder: Path, place: Reference, opened: Folder) -> None:
    """Refuse a default version where a newer one was released: nobody would get it as latest."""
    newest = newest_release(context.remote(place.host), context.at_registry(place))
    if newest and newest > tuple(map(int, opened.draft.version.split("."))):
        released = ".".join(map(str, newest))
        raise ConflictError(
            f"{place.location} is released up to {released}, and {folder} tells no version",
            hint=_next(context, folder, place),
        )


def _next(context: Context, folder: Path, place: Reference) -> str:
    """What to type for the version after the newest."""
    newest = newest_release(context.remote(place.host), context.at_registry(place))
    major, minor, patch = newest or (0, 1, -1)
    version = f"{major}.{minor}.{patch + 1}"
    return f"name the next version: memcube push {folder} {place.location}:{version}"


def _in_namespace(context: Context, place: Reference) -> Reference:
    """`place`, its name below the account's own where it has no namespace."""
    if "/" in place.name:
        return place
    identity = session.whoami(context, place.host)
    if identity.name is None:
        raise ConflictError(
            f"{place.name} has no namespace, and {identity.host} does not tell one",
            hint=f"name it in full: {identity.host}/NAMESPACE/{place.name}",
        )
    return Reference(place.host, f"{identity.name}/{place.name}", place.tag)


def version_of(wanted: Reference | None) -> str | None:
    """The version that the tag of `wanted` stands for; None where it has no tag.

    Raises:
        InvalidReferenceError: the tag is no whole version.
    """
    if wanted is None or wanted.tag is None:
        return None
    if not is_immutable_tag(wanted.tag):
        short = _SHORT_VERSION.fullmatch(wanted.tag)
        whole = ".".join(str(int(number or 0)) for number in short.groups()) if short else "1.2.0"
        raise InvalidReferenceError(
            f"{wanted.tag!r} is not a full SemVer version",
            hint=f"write {wanted.location}:{whole}",
        )
    return wanted.tag.replace("_", "+", 1)
