"""What memcube states beside releases, each a predicate of an in-toto statement (docs/spec/attestations.md).

    model_signature   OpenSSF model signing v1.0 over the files of a cube
    countersignature  SLSA verification summary v1: what a registry checked before it took a cube
    provenance        SLSA provenance v1: how a build was made
    scan              what a scanner found
    status            a release deprecated, yanked, or reinstated

Every module holds a value, `to_statement` of it, and the `Kind` that reads it back:

    bundle = attest(value, signer)
    signed = verify(bundle_bytes, countersignature.KIND, keys=keys, subject=digest)
    signed.value, signed.key
"""

from memcube_signing.predicates.kind import Attested, Kind, Predicate, attest, verify

__all__ = ["Attested", "Kind", "Predicate", "attest", "verify"]
