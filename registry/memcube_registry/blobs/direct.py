"""Direct uploads: a client announces a blob and puts it into the store itself, by signed requests.

Announced bytes count against the account's storage from the start. Order of a direct push, so that a
crash between any two steps leaves nothing half visible: rows → bytes in the store → parts joined → digest
proven → one transaction makes the blob visible and ends the upload (`uploading.complete`). Whoever announces
the same blob again goes on with the same upload, in parts where one request did not bring a large blob; one
that nobody goes on with is swept like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidRequestError,
    MemcubeError,
    UnsupportedError,
)
from sqlmodel import Session, col, select

from memcube_registry.accounts.principal import Principal
from memcube_registry.blobs import service, uploading
from memcube_registry.blobs.models import DirectPart, DirectUpload, Upload
from memcube_registry.blobs.uploading import OpenUpload
from memcube_registry.catalog.models import Repository
from memcube_registry.database import Database
from memcube_registry.delivery.service import Act, authorize, require_allowed
from memcube_registry.storage import BlobStore
from memcube_registry.storage.direct import Body, DirectWrites, Guarantees, SignedPut

PART_BYTES: Final = 32 * limits.MIB
RESUMED_BYTES: Final = 64 * limits.MIB
"""A larger blob that did not arrive whole comes in parts from then on: what arrived of them is kept."""
PARTS_MAX: Final = 1000
PART_BYTES_MAX: Final = 5 << 30
URL_LIFE_S: Final = 3600


class Found(StrEnum):
    """How a repository comes to hold an announced blob without its bytes being sent."""

    PRESENT = "present"
    MOUNTED = "mounted"


@dataclass(frozen=True, slots=True)
class Announcement:
    """A blob that a client wants to send to `repository`; `source` may hold it already.

    Raises:
        LimitExceededError: it has more bytes than parts can carry.
    """

    repository: str
    digest: Digest
    size_bytes: int
    source: str | None = None

    def __post_init__(self) -> None:
        limits.require_at_most("blob", self.size_bytes, PARTS_MAX * PART_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class OpenDirect:
    """A direct upload that the caller may go on with. `parts_id` is empty for one whole object."""

    upload: OpenUpload
    digest: Digest
    size_bytes: int
    part_bytes: int
    parts_id: str
    guarantees: Guarantees

    @property
    def location(self) -> str:
        """Where the bytes lie, and stay."""
        return self.upload.id

    @property
    def is_whole(self) -> bool:
        """Whether one request carries the blob, and its body is what the store checks."""
        return not self.parts_id

    @property
    def part_count(self) -> int:
        """How many requests carry it."""
        return -(-self.size_bytes // self.part_bytes)

    def part_size(self, number: int) -> int:
        """Bytes of part `number`, counted from 1."""
        return min(self.part_bytes, self.size_bytes - (number - 1) * self.part_bytes)


@dataclass(frozen=True, slots=True)
class DirectUploads:
    """The direct uploads of one registry.

    A blob of up to `whole_bytes` is one request whose body the store itself checks, where it does; a larger
    one comes in parts, in parallel and resumed, and is read back. So does one above `RESUMED_BYTES` that is
    announced again because that request broke off.
    """

    database: Database
    blobs: BlobStore
    store: DirectWrites
    whole_bytes: int

    def announce(
        self, principal: Principal, wanted: Announcement, now: datetime
    ) -> Found | OpenDirect:
        """How the repository holds the blob already, or the upload that shall bring it.

        Raises:
            UnsupportedError: the store's guarantees are too weak.
            QuotaExceededError: the announced bytes do not fit, or too many uploads are open.
            UnauthenticatedError, ForbiddenError, NotFoundError: see `authorize`.
        """
        guarantees = self.store.guarantees()
        if not guarantees.are_enough:
            raise UnsupportedError(
                "the registry's store checks too little for direct uploads",
                hint="send the blob to /v2/…/blobs/uploads/",
            )
        found = self.database.run(lambda s: _known(s, principal, wanted, guarantees, now))
        if isinstance(found, OpenDirect):
            return self._take_up(found)
        if found is not None:
            return found
        with self.database.glance() as connection:
            if not uploading.has_few_open(connection, principal):
                raise uploading.too_many_open()
        return self._begin(principal, wanted, guarantees, now)

    def resume(self, principal: Principal, upload_id: str) -> OpenDirect:
        """The upload, for the account that began it.

        Raises:
            NotFoundError: no such upload by this account, or none that it may still write to.
            UnauthenticatedError, ForbiddenError: see `authorize`.
        """
        guarantees = self.store.guarantees()
        with self.database.read() as session:
            return _resume(session, principal, upload_id, guarantees)

    def sign(
        self, direct: OpenDirect, checksums: Mapping[int, str | None], now: datetime
    ) -> list[tuple[int, SignedPut]]:
        """Requests that put the parts of these numbers; the upload lives on from now.

        A part has one content for good: the store may take a late one after the blob became visible.

        Raises:
            InvalidRequestError: there is no such part, or its SHA-256 is missing.
            NotFoundError: a part was to have other bytes before; the upload is over.
        """
        bodies = {number: _body(direct, number, sha256) for number, sha256 in checksums.items()}
        if not self.database.run(lambda session: _settle(session, direct, bodies, now)):
            self.discard(direct.upload.id)
            raise uploading.unknown_upload(direct.upload.id)
        return [(number, self._sign(direct, number, body)) for number, body in bodies.items()]

    def received(self, direct: OpenDirect) -> Sequence[int]:
        """Numbers of the parts that the store holds in their right length."""
        if direct.is_whole or (held := self.store.held(direct.location, direct.parts_id)) is None:
            whole = self.store.arrived(direct.location) == direct.size_bytes
            return range(1, direct.part_count + 1) if whole else ()
        return [part.number for part in held if part.size == direct.part_size(part.number)]

    def cancel(self, principal: Principal, upload_id: str) -> None:
        """Forget the upload and whatever came of it; requests that were signed for it are good no more.

        Raises:
            NotFoundError: see `resume`.
        """
        guarantees = self.store.guarantees()

        def end(session: Session) -> OpenDirect:
            direct = _resume(session, principal, upload_id, guarantees)
            uploading.end(session, upload_id)
            return direct

        direct = self.database.run(end)
        # Not before: the upload may have become a blob at the same moment, whose bytes these are.
        self.blobs.abort(upload_id)
        self.blobs.delete(upload_id)
        if self._may_come_whole(direct.size_bytes, direct.digest, guarantees):
            # Else the blob could be put after all, into nobody's quota, also where it comes in parts by
            # now. Swept with other orphans, later than the last signed request.
            self.store.occupy(upload_id)

    def discard(self, upload_id: str) -> None:
        """See `uploading.discard`."""
        uploading.discard(self.database, self.blobs, upload_id, upload_id)

    def _begin(
        self, principal: Principal, wanted: Announcement, guarantees: Guarantees, now: datetime
    ) -> OpenDirect:
        upload = self.database.run(lambda s: _reserve(s, principal, wanted, now))
        is_whole = self._may_come_whole(wanted.size_bytes, wanted.digest, guarantees)
        try:
            parts_id = (
                "" if is_whole else self.store.begin(upload.id, checked=guarantees.checks_bodies)
            )
            part_bytes = wanted.size_bytes if is_whole else part_bytes_of(wanted.size_bytes)
            direct = OpenDirect(
                upload, wanted.digest, wanted.size_bytes, part_bytes, parts_id, guarantees
            )
            self.database.run(lambda session: session.add(_row(direct)))
        except MemcubeError:
            self.discard(upload.id)
            raise
        return direct

    def _take_up(self, direct: OpenDirect) -> OpenDirect:
        """The upload for whoever announces it again: in parts, where a large blob did not arrive whole.

        Both ways may end at once: whatever comes to the location is bound to the blob's SHA-256, or is read back.
        """
        missed = direct.is_whole and self.store.arrived(direct.location) is None
        if not missed or direct.size_bytes <= RESUMED_BYTES:
            return direct
        parts_id = self.store.begin(direct.location, checked=True)

        def turn(session: Session) -> DirectUpload:
            row = session.get(DirectUpload, direct.upload.id)
            if row is None:
                raise uploading.unknown_upload(direct.upload.id)
            if not row.parts_id:  # else another request was quicker; what it does not use is swept
                row.parts_id, row.part_bytes = parts_id, part_bytes_of(row.size_bytes)
                session.add(row)
            return row

        row = self.database.run(turn)
        return replace(direct, parts_id=row.parts_id, part_bytes=row.part_bytes)

    def _may_come_whole(self, size_bytes: int, digest: Digest, guarantees: Guarantees) -> bool:
        """Whether one request may carry a blob, checked by the store."""
        return (
            guarantees.checks_bodies
            and size_bytes <= self.whole_bytes
            and digest.algorithm == "sha256"
        )

    def _sign(self, direct: OpenDirect, number: int, body: Body) -> SignedPut:
        if direct.is_whole:
            return self.store.sign_whole(direct.location, body, life_s=URL_LIFE_S)
        return self.store.sign_part(
            direct.location, direct.parts_id, number, body, life_s=URL_LIFE_S
        )


def part_bytes_of(size_bytes: int) -> int:
    """How many bytes each part of a blob has: whole MiB, and no more than `PARTS_MAX` parts."""
    least = -(-size_bytes // PARTS_MAX)
    return max(PART_BYTES, -(-least // limits.MIB) * limits.MIB)


def _known(
    session: Session,
    principal: Principal,
    wanted: Announcement,
    guarantees: Guarantees,
    now: datetime,
) -> Found | OpenDirect | None:
    """The blob as the repository holds it, as it could be mounted, or its upload that was begun."""
    name, digest = wanted.repository, wanted.digest
    if service.mount(session, principal, name, digest, name, now):
        return Found.PRESENT
    if service.mount(session, principal, name, digest, wanted.source, now):
        return Found.MOUNTED
    repository = require_allowed(session, principal, name, Act.WRITE, digest=digest)
    if repository is None:
        return None
    row = session.exec(
        select(DirectUpload)
        .join(Upload, col(Upload.id) == DirectUpload.upload_id)
        .where(
            DirectUpload.digest == str(digest),
            DirectUpload.size_bytes == wanted.size_bytes,
            Upload.repository_id == repository.id,
            Upload.account_id == principal.account_id,
        )
        .order_by(col(Upload.used_at).desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    uploading.record(session, row.upload_id, row.size_bytes, now)
    return _open(row, repository, guarantees)


def _reserve(
    session: Session, principal: Principal, wanted: Announcement, now: datetime
) -> OpenUpload:
    """A new upload with room for all that was announced."""
    upload = uploading.begin(session, principal, wanted.repository, now)
    uploading.announce(session, upload, wanted.size_bytes, now)
    row = session.get_one(Upload, upload.id)
    row.is_direct = True
    session.add(row)
    return replace(upload, size_bytes=wanted.size_bytes)


def _resume(
    session: Session, principal: Principal, upload_id: str, guarantees: Guarantees
) -> OpenDirect:
    row, direct = session.get(Upload, upload_id), session.get(DirectUpload, upload_id)
    if row is None or direct is None or row.account_id != principal.account_id:
        raise uploading.unknown_upload(upload_id)
    repository = session.get_one(Repository, row.repository_id)
    authorize(session, principal, repository.name, Act.WRITE)
    return _open(direct, repository, guarantees)


def _open(row: DirectUpload, repository: Repository, guarantees: Guarantees) -> OpenDirect:
    upload = OpenUpload(
        row.upload_id,
        repository.name,
        service.require_id(repository),
        repository.account_id,
        row.size_bytes,
    )
    return OpenDirect(
        upload,
        Digest.parse(row.digest),
        row.size_bytes,
        row.part_bytes,
        row.parts_id,
        guarantees,
    )


def _settle(
    session: Session, direct: OpenDirect, bodies: Mapping[int, Body], now: datetime
) -> bool:
    """Note what each part shall hold; False where one was to hold something else before."""
    uploading.record(session, direct.upload.id, direct.size_bytes, now)
    if direct.is_whole:
        return True
    told = select(DirectPart).where(
        DirectPart.upload_id == direct.upload.id, col(DirectPart.number).in_(bodies)
    )
    settled = {part.number: part.sha256 for part in session.exec(told)}
    wanted = {number: body.sha256 for number, body in bodies.items() if body.sha256}
    for number in wanted.keys() - settled.keys():
        session.add(DirectPart(upload_id=direct.upload.id, number=number, sha256=wanted[number]))
    return (wanted | settled).items() >= wanted.items()


def _row(direct: OpenDirect) -> DirectUpload:
    return DirectUpload(
        upload_id=direct.upload.id,
        digest=str(direct.digest),
        size_bytes=direct.size_bytes,
        part_bytes=direct.part_bytes,
        parts_id=direct.parts_id,
    )


def _body(direct: OpenDirect, number: int, sha256: str | None) -> Body:
    """The one body that part `number` may have."""
    if not 1 <= number <= direct.part_count:
        raise InvalidRequestError(
            f"there is no part {number}: the upload has {direct.part_count}",
            hint="parts are counted from 1",
        )
    if direct.is_whole:
        return Body(direct.size_bytes, direct.digest.hex)
    if not direct.guarantees.checks_bodies:
        return Body(direct.part_size(number), None)
    if sha256 is None:
        raise InvalidRequestError(
            f"the SHA-256 of part {number} is missing", hint="send it as 64 hex digits"
        )
    return Body(direct.part_size(number), Digest("sha256", sha256).hex)
