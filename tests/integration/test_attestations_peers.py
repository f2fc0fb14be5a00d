"""Programs that others wrote read our attestations, and our rules find what theirs find."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conformance.attestations.generate import VALUES
from memcube.scanning.text import scan_text
from memcube_signing.predicates import attest
from support.signing import ALICE, MALLORY, manifest

EACH = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
needs_cosign = pytest.mark.skipif(
    shutil.which("cosign") is None, reason="cosign is not installed (.ci/run installs it)"
)


@EACH
def test_the_library_of_in_toto_validates_every_statement(value):
    statement = pytest.importorskip("in_toto_attestation.v1.statement")
    from google.protobuf import json_format
    from in_toto_attestation.v1 import statement_pb2

    payload = attest(value, ALICE).envelope.payload
    parsed = json_format.Parse(payload, statement_pb2.Statement())
    read = statement.Statement.copy_from_pb(parsed)
    read.validate()
    assert read.pb.predicate_type == value.to_statement().predicate_type


@needs_cosign
@EACH
@pytest.mark.parametrize("key", [ALICE, MALLORY], ids=["right key", "wrong key"])
def test_cosign_verifies_every_statement(value, key, tmp_path: Path):
    said = attest(value, ALICE)
    (tmp_path / "bundle.json").write_bytes(said.raw)
    (tmp_path / "key.pem").write_text(key.public_key.to_pem())
    (tmp_path / "manifest.json").write_bytes(manifest().raw)
    command = [
        "cosign",
        "verify-blob-attestation",
        "--bundle=bundle.json",
        "--key=key.pem",
        f"--type={value.to_statement().predicate_type}",
        "--insecure-ignore-tlog",
        "manifest.json",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode == 0) == (key is ALICE), done.stderr


LETTERS = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA" * 4
SAMPLES = (
    "AKIA" + "QWERTYUIOPASDFGH",
    "AKC" + "p8xY0zAaB3dE5gH7",
    "-----BEGIN " + "EC PRIVATE KEY-----",
    "ghp" + "_" + LETTERS[:36],
    "glpat" + "-" + LETTERS[:20],
    "https://hooks.slack.com/services/" + "T0123ABCD/B0123ABCD/" + LETTERS[:24],
    "sk_live" + "_" + LETTERS[:24],
    "sq0csp" + "-" + LETTERS[:43],
    "SG." + LETTERS[:22] + "." + LETTERS[:43],
    "SK" + "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    "npm_registry //registry.example/:_authToken=npm" + "_" + LETTERS[:36],
    "postgres://ada:" + "kR9vTq27mm@db.internal/notes",
    "110201543" + ":AA" + LETTERS[:33],
    "0a1b2c3d4e5f60718293a4b5c6d7e8f9" + "-us12",
    "api_key = '" + "q8Zr4Tt0vLmX2wYk" + "'",
)


@pytest.mark.parametrize("line", SAMPLES, ids=range(len(SAMPLES)))
def test_what_detect_secrets_finds_our_rules_find(line):
    core = pytest.importorskip("detect_secrets.core.scan")
    from detect_secrets.settings import default_settings

    with default_settings():
        theirs = {found.type for found in core.scan_line(line)}
    ours = {match.rule.name for match in scan_text(line) if match.rule.check == "secrets"}
    assert ours, theirs


def test_statements_are_plain_json_that_anybody_reads():
    for value in VALUES.values():
        said = json.loads(attest(value, ALICE).envelope.payload)
        assert said["_type"] == "https://in-toto.io/Statement/v1"
