"""Trust: the user's signing keys, pinned publishers, and the one decision about every cube.

Publishing (blobs and manifest are pushed by digest already, the tag comes last):

    keys = KeyStore.of(settings)
    made = keys.signer()                       # the default key; made at the first push
    if made.created: print(made.message)       # where it lies, how it is protected
    pins = PinStore(settings.home / "trust")
    before = releases_of(older_manifest, its_attestations)   # of every version not in the pins
    signed = sign_cube(reference, manifest, Publication("1.0.0", "CC-BY-4.0"),
                       signer=made.key, pins=pins.load(), now=datetime.now(UTC), published=before)
    ... push signed.blobs, then signed.manifest (a referrer), then the tags ...
    pins.record(signed.observation)

Consuming (every path: pull, verify, unpack, mount; the pins go last, after all bytes are verified):

    attestations = [Attestation(referrer_manifest, bundle_bytes), ...]   # artifactType SIGSTORE_BUNDLE
    verdict = verify_cube(Question(reference, manifest, attestations, pins.load(), datetime.now(UTC),
                                   mode=Mode.ENFORCE, scope=Scope.REMOTE, accept=Acceptance()))
    ... fetch and verify the layers ...
    if verdict.observation: pins.record(verdict.observation)

`judge_cube` is the same decision that explains a refusal in `Verdict.error` instead of raising it.
The flags that hints name: `--trust enforce|warn`, `--accept-publisher KEY_ID`, `--accept-origin NAME`,
`--accept-rollback`.
"""

from memcube.trust._passphrases import terminal
from memcube.trust.authorities import AuthorityStore
from memcube.trust.decision import RULES, judge_cube, verify_cube
from memcube.trust.keystore import KeyEntry, KeyStore, Protection, SigningKey
from memcube.trust.pins import Observation, Pin, Pins, PinStore, Place, Seen
from memcube.trust.publishing import (
    Publication,
    SignedCube,
    releases_of,
    sign_cube,
    tagged,
    with_entry,
)
from memcube.trust.question import Acceptance, Attestation, Question, Signed, location_of
from memcube.trust.verdict import Mode, Outcome, RuleResult, Scope, Standing, Verdict

__all__ = [
    "RULES",
    "Acceptance",
    "Attestation",
    "AuthorityStore",
    "KeyEntry",
    "KeyStore",
    "Mode",
    "Observation",
    "Outcome",
    "Pin",
    "PinStore",
    "Pins",
    "Place",
    "Protection",
    "Publication",
    "Question",
    "RuleResult",
    "Scope",
    "Seen",
    "Signed",
    "SignedCube",
    "SigningKey",
    "Standing",
    "Verdict",
    "judge_cube",
    "location_of",
    "releases_of",
    "sign_cube",
    "tagged",
    "terminal",
    "verify_cube",
    "with_entry",
]
