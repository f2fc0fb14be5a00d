"""Countersigning releases: once, whole, and again later where something came between.

    job → judged and signed (kept) → logged → attached → done

Every arrow is a transaction of its own, and each can be repeated: what is signed is kept before it is
logged, the log knows an entry again, and attaching looks for what was made in the transaction that
shows it.
"""

from __future__ import annotations

import json
from datetime import datetime

from memcube_protocol import oci
from memcube_protocol.errors import (
    InvalidError,
    LimitExceededError,
    MemcubeError,
    NotFoundError,
    TrustError,
)
from memcube_protocol.timestamps import whole_seconds
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
from memcube_signing.transparency import bundled
from memcube_signing.transparency.checkpoint import NoteKey
from sqlmodel import Session, select

from memcube_registry.catalog.models import Repository
from memcube_registry.countersigning import rules
from memcube_registry.countersigning.attaching import attach, is_made
from memcube_registry.countersigning.evidence import gather
from memcube_registry.countersigning.judging import Accepted, judge
from memcube_registry.countersigning.models import Countersigning
from memcube_registry.countersigning.queue import Key, key_in
from memcube_registry.database import Database, utc_now
from memcube_registry.jobs.worker import Task
from memcube_registry.log.service import TransparencyLog
from memcube_registry.log.submission import Submission
from memcube_registry.manifests.models import Manifest
from memcube_registry.observability.requests import log as logger
from memcube_registry.storage import BlobStore


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

    @property
    def key(self) -> PublicKey:
        """The registry's own key."""
        return self._signer.public_key

    def handle(self, task: Task) -> None:
        """Countersign, or refuse to, the release that a job names.

        Raises:
            MemcubeError: not now.
        """
        key = key_in(task.subject)
        with self._database.read() as session:
            row = session.get(Countersigning, key)
            if row is None or is_made(session, row):
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


def _keep(session: Session, key: Key, envelope: bytes) -> bytes:
    row = session.get(Countersigning, key)
    if row is None:
        raise NotFoundError("the cube was deleted", hint="push it again")
    if row.envelope is None:
        row.envelope = envelope
        session.add(row)
    return row.envelope


def _end(session: Session, key: Key, refused: str) -> None:
    row = session.get(Countersigning, key)
    if row is not None:
        row.refused = refused
        session.add(row)
