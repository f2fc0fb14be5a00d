"""Countersigning releases: once, whole, and again later where something came between.

    due → judged and signed (kept) → logged → attached → done

Every arrow is a transaction of its own, and each can be repeated: what is signed is kept before it is
logged, the log knows an entry again, and attaching ends what was due in the transaction that shows it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final

from memcube_protocol import oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidError,
    LimitExceededError,
    MemcubeError,
    NotFoundError,
    TrustError,
)
from memcube_signing import bundle as bundles
from memcube_signing import referrer as referrers
from memcube_signing.dsse import Envelope
from memcube_signing.keys import PrivateKey, PublicKey
from memcube_signing.predicates import countersignature
from memcube_signing.predicates.countersignature import (
    LEVEL,
    LEVEL_LOGGED,
    Countersignature,
    LogPlace,
    countersign,
)
from memcube_signing.predicates.reading import whole_seconds
from memcube_signing.transparency import bundled
from memcube_signing.transparency.checkpoint import NoteKey
from sqlmodel import Session, col, select

from memcube_registry.catalog.models import Repository
from memcube_registry.countersigning import rules
from memcube_registry.countersigning.attaching import Key, attach, is_there
from memcube_registry.countersigning.evidence import gather
from memcube_registry.countersigning.judging import Accepted, judge
from memcube_registry.countersigning.models import Countersigning
from memcube_registry.database import Database, utc_now
from memcube_registry.exchange import serve
from memcube_registry.log.service import TransparencyLog
from memcube_registry.log.submission import Submission
from memcube_registry.manifests.models import Manifest
from memcube_registry.observability import log as logger
from memcube_registry.storage import BlobStore

AGAIN_S: Final = 60.0
"""Time between two looks for what a crash or a full disk left undone."""
_AT_ONCE: Final = 100


class Countersigner:
    """Signs in the name of the registry at `url`. Safe for threads and several processes."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        log: TransparencyLog,
        signer: PrivateKey,
        url: str,
    ) -> None:
        self._database, self._store = database, store
        self._log, self._signer = log, signer
        self._url = url
        # As clients write names: without the usual port.
        self._host = url.partition("://")[2].lower().removesuffix(":443")
        self._stopped = threading.Event()

    @property
    def key(self) -> PublicKey:
        """The registry's own key."""
        return self._signer.public_key

    def settle(self, repository_id: int, referrer: Digest | str) -> None:
        """Countersign, or refuse to, what is due there. A failure is logged, and tried again later."""
        key = (repository_id, str(referrer))
        try:
            self._settle(key)
        except MemcubeError as error:
            logger.warning("countersigning waits", referrer=key[1], error=str(error))

    def settle_all(self) -> int:
        """Settle everything that is due, until `stop`; how much it was."""
        count = 0
        for key in self._due():
            if self._stopped.is_set():
                break
            self.settle(*key)
            count += 1
        return count

    def stop(self) -> None:
        """Let `settle_all` end after the one that it is at."""
        self._stopped.set()

    def _settle(self, key: Key) -> None:
        with self._database.read() as session:
            row = session.get(Countersigning, key)
            done = row is not None and row.made and is_there(session, key[0], row.made)
        if row is None or not row.is_due:
            return
        if done:
            self._database.run(lambda session: _end(session, key))
            return
        log_key = self._log.key
        try:
            subject = self._subject(key)
            envelope = row.envelope or self._sign(key, log_key)
        except (TrustError, InvalidError, LimitExceededError, NotFoundError) as error:
            self._refuse(key, error)
            return
        self._attach(key, subject, Envelope.from_json(json.loads(envelope)))

    def _sign(self, key: Key, log_key: NoteKey) -> bytes:
        """The signed summary of what was verified now, kept; or the one that another process kept."""
        evidence = gather(self._database, self._store, self._host, *key)
        now = whole_seconds(utc_now())
        summary = self._summary(judge(evidence, log_key, now), now)
        envelope = json.dumps(countersign(summary, self._signer).envelope.to_json()).encode()
        return self._database.run(lambda session: _keep(session, key, envelope))

    def _summary(self, accepted: Accepted, now: datetime) -> Countersignature:
        release = accepted.release
        return Countersignature(
            subject=release.subject,
            resource=release.origin,
            verifier=self._url,
            verified_at=now,
            policy=f"{self._url}{rules.PATH}",
            policy_digest=rules.DIGEST,
            inputs=accepted.inputs,
            levels=(LEVEL, LEVEL_LOGGED),
            publishers=accepted.publishers,
            log=LogPlace(self._log.key.name, accepted.index),
        )

    def _subject(self, key: Key) -> oci.Descriptor:
        """The manifest that the release at `key` is about."""
        with self._database.read() as session:
            content = session.exec(
                select(Manifest.content).where(
                    Manifest.repository_id == key[0], Manifest.digest == key[1]
                )
            ).one_or_none()
        subject = oci.parse_manifest(content).subject if content else None
        if subject is None:
            raise NotFoundError(f"the manifest {key[1]} is gone", hint="push it again")
        return subject

    def _attach(self, key: Key, subject: oci.Descriptor, envelope: Envelope) -> None:
        """Log the summary, and attach it with its proof."""
        with self._database.read() as session:
            name = session.get_one(Repository, key[0]).name
        entry = self._log.add(Submission(name, envelope, self.key))
        bundle = bundled.attach(bundles.write(envelope, self.key.id), [entry])
        manifest = referrers.write(bundle, countersignature.PREDICATE_TYPE, subject, self.key)
        contents = {oci.EMPTY.digest: b"{}", bundle.digest: bundle.raw}
        if attach(self._database, self._store, key, manifest, contents, utc_now()):
            logger.info("countersigned", repository=name, referrer=key[1])

    def _refuse(self, key: Key, error: MemcubeError) -> None:
        reason = getattr(error, "reason", None) or error.code
        logger.warning("not countersigned", referrer=key[1], reason=reason, error=str(error))
        self._database.run(lambda session: _end(session, key, reason))

    def _due(self) -> Iterator[Key]:
        """Keys of what is due, each once, oldest first, however the table changes meanwhile."""
        query = (
            select(Countersigning.repository_id, Countersigning.referrer)
            .where(col(Countersigning.is_due))
            .order_by(col(Countersigning.repository_id), col(Countersigning.referrer))
            .limit(_AT_ONCE)
        )
        last: Key = (0, "")
        while True:
            with self._database.read() as session:
                after = (col(Countersigning.repository_id) > last[0]) | (
                    (col(Countersigning.repository_id) == last[0])
                    & (col(Countersigning.referrer) > last[1])
                )
                keys = [(row[0], row[1]) for row in session.exec(query.where(after))]
            if not keys:
                return
            yield from keys
            last = keys[-1]


async def settle_periodically(countersigner: Countersigner, stopped: asyncio.Event) -> None:
    """Settle what is due until `stopped`, in a thread; the first time at once, after a start."""
    while not stopped.is_set():
        try:
            await serve(countersigner.settle_all)
        except Exception as error:  # a loop that ends would be worse than one failure
            logger.error("countersigning failed", exc_info=error)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), AGAIN_S)


def _keep(session: Session, key: Key, envelope: bytes) -> bytes:
    row = session.get_one(Countersigning, key)
    if row.envelope is None:
        row.envelope = envelope
        session.add(row)
    return row.envelope


def _end(session: Session, key: Key, refused: str | None = None) -> None:
    row = session.get_one(Countersigning, key)
    row.is_due, row.refused = False, refused
    session.add(row)
