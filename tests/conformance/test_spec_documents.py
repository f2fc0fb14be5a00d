"""The signed documents and the answers in the specification have the fields of those that the code makes."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from memcube.trust import Attestation
from memcube.trust.proof import Proof
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.reference import Reference
from memcube_registry.blobs.direct_routes import (
    CompletionView,
    NewUpload,
    SignedViews,
    UploadView,
    WantedParts,
)
from memcube_signing import referrer, release, statement
from memcube_signing.authority.document import KeyDocument, Quorum
from memcube_signing.authority.proposal import Proposal
from memcube_signing.predicates import countersignature
from memcube_signing.transparency.checkpoint import sign
from memcube_signing.transparency.fork import Fork
from support.log import Log
from support.signing import ALICE, NOW, ORIGIN
from support.signing import release as release_of

SPEC = Path(__file__).parents[2] / "docs/spec"
CUBE = oci.write_manifest(
    artifact_type=media_types.CUBE,
    config=oci.Descriptor.of(media_types.CONFIG, b"{}"),
    layers=[],
)
BUNDLE = release.sign_release(release_of(subject=CUBE.digest), ALICE)
REFERRER = referrer.write(BUNDLE, release.PREDICATE_TYPE, CUBE.descriptor(), ALICE.public_key)


def example(page: str, beginning: str) -> Any:
    """The JSON example of `page` that begins so; shortened digests have all of their digits."""
    blocks = re.findall(r"```json\n(.*?)```", (SPEC / page).read_text("utf-8"), re.DOTALL)
    (found,) = (block for block in blocks if re.sub(r"\s", "", block).startswith(beginning))
    return json.loads(found.replace('"sha256:…"', f'"{Digest.of(b"")}"').replace("[…]", "[{}]"))


def shape(value: Any) -> Any:
    """`value` without its texts and numbers: the names of its fields, and the first item of each list."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return [shape(item) for item in value[:1]] if isinstance(value, list) else None


def test_a_bundle() -> None:
    shown = example("statements.md", '{"mediaType":"application/vnd.dev.sigstore')
    assert shape(shown) == shape(json.loads(BUNDLE.raw))


def test_a_referrer() -> None:
    shown = example("statements.md", '{"schemaVersion"')
    assert shape(shown) == shape(json.loads(REFERRER.raw))
    assert oci.EMPTY.digest.hex.startswith(shown["config"]["digest"][7:11])


def test_a_log_entry_and_its_leaf() -> None:
    log = Log()
    log.leaves += [b"another"]
    logged = json.loads(log.logged(BUNDLE, ALICE.public_key).raw)
    (entry,) = logged["verificationMaterial"]["tlogEntries"]
    assert shape(example("log.md", '{"logIndex"')) == shape(entry)
    leaf = json.loads(base64.b64decode(entry["canonicalizedBody"]))
    shown = example("log.md", '{"apiVersion"')
    assert shape(shown) == shape(leaf)
    shown["spec"] = leaf["spec"]
    assert shown == leaf


def test_a_submission() -> None:
    shown = example("log.md", '{"repository"')
    assert shown.keys() == {"repository", "envelope", "publicKey"}
    assert shown["envelope"].keys() == json.loads(BUNDLE.raw)["dsseEnvelope"].keys()


def test_a_proof_of_a_fork() -> None:
    log = Log(leaves=[b"a"])
    smaller = log.note()
    forged = sign(replace(smaller.checkpoint, root=bytes(32)), log.signer)
    shown = json.loads(Fork(log.key, forged, smaller).to_bytes())
    assert example("log.md", '{"format"').keys() == shown.keys()


def test_a_countersignature() -> None:
    blocks = (SPEC / "attestations.md").read_text("utf-8").replace('"…"', f'"{"0" * 64}"')
    (text,) = re.findall(r'```json\n(\{\n  "verifier".*?)```', blocks, re.DOTALL)
    shown = json.loads(text)
    kind = countersignature.PREDICATE_TYPE
    said = statement.Statement(shown["resourceUri"], Digest.of(b""), kind, shown)
    assert countersignature.read(said).to_statement().predicate == shown


def test_a_proof_file() -> None:
    attached = (Attestation(REFERRER, BUNDLE.raw),)
    made = Proof(Reference.parse(f"{ORIGIN}:1.0.0"), CUBE, b"{}", attached, NOW)
    shown = example("proof.md", '{"format"')
    assert shape(shown) == shape(json.loads(made.to_bytes()))
    assert base64.b64decode(shown["config"]) == b"{}"


def test_a_proposal() -> None:
    quorum = Quorum.of([ALICE.public_key])
    made = Proposal(KeyDocument("registry.example/alice", 1, None, NOW, quorum)).signed([ALICE])
    shown = example("keys.md", '{"document"')
    assert shape(shown) == shape(json.loads(made.to_bytes()))
    assert shown["format"] == media_types.KEYS_PROPOSAL


def test_a_direct_upload() -> None:
    page = (SPEC / "direct-uploads.md").read_text("utf-8").partition("```\n")[2]
    bodies = re.findall(r"^(?:\d{3} )?(\{.*?\})$(?=\n\n|\n```)", page, re.DOTALL | re.MULTILINE)
    kinds = (NewUpload, UploadView, WantedParts, SignedViews, CompletionView)
    for body, kind in zip(bodies, kinds, strict=False):
        shown = json.loads(re.sub(r'"([0-9a-f]{4})…"', lambda found: f'"{found[1] * 16}"', body))
        sent = msgspec.json.decode(msgspec.json.encode(msgspec.convert(shown, kind)))
        assert {name: item for name, item in sent.items() if item is not None} == shown
    assert len(bodies) >= len(kinds)
