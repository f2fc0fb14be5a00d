"""The registry's countersignature: a SLSA verification summary (VSA v1) about a cube.

It says what the registry checked before it took the cube, against which policy, and when. It never
stands in for the publisher's release: a cube with only a countersignature is unsigned.

`memcube_publishers` and `memcube_log` are extension fields, named as SLSA wants those of a vendor.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from memcube_protocol import timestamps
from memcube_protocol.digest import Digest
from memcube_protocol.values import frozen

from memcube_signing.bundle import Bundle
from memcube_signing.keys import Signer
from memcube_signing.predicates.kind import Kind, attest
from memcube_signing.predicates.reading import Reader, digest_set, malformed
from memcube_signing.statement import Statement

PREDICATE_TYPE: Final = "https://slsa.dev/verification_summary/v1"
SLSA_VERSION: Final = "1.1"
LEVEL: Final = "MEMCUBE_PUBLISHER_VERIFIED"
"""The level of a cube whose release statement the registry verified."""
LEVEL_LOGGED: Final = "MEMCUBE_RELEASE_LOGGED"
"""The level of a cube whose release statement is in the registry's transparency log."""
_RESULTS: Final = ("PASSED", "FAILED")


@frozen
class LogPlace:
    """Where a release stands in a log: the log's origin and the number of the entry."""

    origin: str
    index: int


@frozen
class Countersignature:
    """What a verifier found about the manifest `subject`, which it holds as `resource`.

    `resource` is `host/namespace/name`; `verifier` is the URI of the registry; `policy` is the URI of
    the rules, `policy_digest` that of their text; `inputs` are the digests of the bundles that were
    checked; `levels` names what was established. `publishers` are the ids of the keys whose signatures
    counted, `log` is the place of the first input.
    """

    subject: Digest
    resource: str
    verifier: str
    verified_at: datetime
    policy: str
    policy_digest: Digest
    inputs: tuple[Digest, ...]
    levels: tuple[str, ...] = (LEVEL,)
    passed: bool = True
    publishers: tuple[str, ...] = ()
    log: LogPlace | None = None

    def __post_init__(self) -> None:
        if self.verified_at.tzinfo is None or self.verified_at.microsecond:
            raise malformed("its timeVerified is not in UTC and whole seconds")

    def to_statement(self) -> Statement:
        """The in-toto statement of this summary."""
        predicate: dict[str, Any] = {
            "verifier": {"id": self.verifier},
            "timeVerified": timestamps.write_seconds(self.verified_at),
            "resourceUri": self.resource,
            "policy": {"uri": self.policy, "digest": digest_set(self.policy_digest)},
            "inputAttestations": [{"digest": digest_set(digest)} for digest in self.inputs],
            "verificationResult": _RESULTS[0] if self.passed else _RESULTS[1],
            "verifiedLevels": list(self.levels),
            "slsaVersion": SLSA_VERSION,
        }
        if self.publishers:
            predicate["memcube_publishers"] = list(self.publishers)
        if self.log:
            predicate["memcube_log"] = {"origin": self.log.origin, "index": self.log.index}
        return Statement(self.resource, self.subject, PREDICATE_TYPE, predicate)


def countersign(summary: Countersignature, signer: Signer) -> Bundle:
    """`summary` signed by the registry's key.

    Raises:
        SigningKeyError: the signer cannot sign now.
    """
    return attest(summary, signer)


def read(said: Statement) -> Countersignature:
    """The summary in a statement of its predicate type; unknown fields are ignored, as SLSA demands.

    Raises:
        InvalidStatementError: a field that SLSA requires is missing or broken.
    """
    fields = Reader(said.predicate, "verification summary")
    policy = fields.table("policy")
    fields.optional_text("slsaVersion")
    return Countersignature(
        subject=said.subject,
        resource=fields.text("resourceUri"),
        verifier=fields.table("verifier").text("id"),
        verified_at=fields.moment("timeVerified"),
        policy=policy.text("uri"),
        policy_digest=policy.digest_set(),
        inputs=tuple(item.digest_set() for item in fields.tables("inputAttestations")),
        levels=fields.texts("verifiedLevels"),
        passed=fields.choice("verificationResult", _RESULTS) == _RESULTS[0],
        publishers=fields.texts("memcube_publishers"),
        log=_place(fields.table("memcube_log")) if fields.has("memcube_log") else None,
    )


def _place(fields: Reader) -> LogPlace:
    return LogPlace(fields.text("origin"), fields.integer("index"))


KIND: Final = Kind(PREDICATE_TYPE, read)
