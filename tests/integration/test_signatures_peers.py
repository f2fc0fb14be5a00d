"""Programs that others wrote accept our signatures, and refuse what we refuse."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from memcube_signing.bundle import Bundle
from memcube_signing.dsse import pae
from memcube_signing.keys import PublicKey
from memcube_signing.release import PREDICATE_TYPE, verify_release
from support.signing import ALICE, EDDIE, MALLORY, attached, changed, manifest, release, signed

KEYS = pytest.mark.parametrize("key", [ALICE, EDDIE], ids=["p256", "ed25519"])
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed"
)
needs_cosign = pytest.mark.skipif(
    shutil.which("cosign") is None, reason="cosign is not installed (.ci/run installs it)"
)


def changed_payload(bundle: Bundle) -> bytes:
    payload = bundle.envelope.payload.replace(b"1.0.0", b"1.0.1")
    return changed(bundle.raw, "dsseEnvelope.payload", base64.b64encode(payload).decode())


def environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.environ["PATH"]}


class TestSecuresystemslib:
    """The DSSE implementation of in-toto and TUF."""

    def verify(self, raw: bytes, key: PublicKey) -> bool:
        from cryptography.hazmat.primitives.serialization import load_der_public_key
        from securesystemslib.dsse import Envelope
        from securesystemslib.signer import SSlibKey

        envelope = Envelope.from_dict(json.loads(raw)["dsseEnvelope"])
        theirs = SSlibKey.from_crypto(load_der_public_key(key.der))
        theirs.keyid = ""  # the envelope names no key: the bundle around it does
        return len(envelope.verify([theirs], 1)) == 1

    @KEYS
    def test_accepts_our_bundle(self, key):
        assert self.verify(signed(key).raw, key.public_key)

    @KEYS
    def test_refuses_what_was_changed(self, key):
        from securesystemslib.exceptions import VerificationError

        with pytest.raises(VerificationError):
            self.verify(changed_payload(signed(key)), key.public_key)

    def test_signs_what_we_accept(self):
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from memcube_protocol import media_types
        from memcube_signing import bundle as bundles
        from memcube_signing.dsse import Envelope, Signature
        from memcube_signing.keys import with_low_s
        from securesystemslib.dsse import Envelope as Theirs
        from securesystemslib.signer import CryptoSigner

        signer = CryptoSigner(load_pem_private_key(ALICE.to_unencrypted_pem().encode(), None))
        payload = release().to_statement().to_bytes()
        signature = Theirs(payload, media_types.IN_TOTO, {}).sign(signer)
        value = with_low_s(bytes.fromhex(signature.signature))
        key_id = ALICE.public_key.id
        envelope = Envelope(media_types.IN_TOTO, payload, (Signature(value, key_id),))
        raw = bundles.write(envelope, key_id).raw
        subject = manifest().digest
        assert verify_release(raw, keys=[ALICE.public_key], subject=subject) == release()


@needs_openssl
class TestOpenssl:
    def verify(self, folder: Path, bundle: Bundle, message: bytes, key: PublicKey) -> bool:
        (folder / "key.pem").write_text(key.to_pem())
        (folder / "signature").write_bytes(bundle.signature.value)
        (folder / "message").write_bytes(message)
        if key == EDDIE.public_key:
            command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin",
                       "-in", "message", "-sigfile", "signature"]  # fmt: skip
        else:
            command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature",
                       "signature", "message"]  # fmt: skip
        return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0

    @KEYS
    def test_accepts_our_signature_over_the_pae(self, key, tmp_path):
        bundle = signed(key)
        message = pae(bundle.envelope.payload_type, bundle.envelope.payload)
        assert self.verify(tmp_path, bundle, message, key.public_key)
        assert not self.verify(tmp_path, bundle, message + b" ", key.public_key)


@needs_cosign
class TestCosign:
    def verify(self, folder: Path, raw: bytes, key: PublicKey, **change: str):
        (folder / "bundle.json").write_bytes(raw)
        (folder / "key.pem").write_text(key.to_pem())
        (folder / "manifest.json").write_bytes(manifest(change.get("text", "one")).raw)
        command = [
            "cosign",
            "verify-blob-attestation",
            "--bundle=bundle.json",
            "--key=key.pem",
            f"--type={change.get('type', PREDICATE_TYPE)}",
            "--insecure-ignore-tlog",
            "manifest.json",
        ]
        return subprocess.run(
            command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=60
        )

    @KEYS
    def test_accepts_our_bundle_over_the_manifest(self, key, tmp_path):
        done = self.verify(tmp_path, signed(key).raw, key.public_key)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize(
        ("raw", "key", "change"),
        [
            (changed_payload(signed()), ALICE, {}),
            (signed().raw, MALLORY, {}),
            (signed().raw, ALICE, {"text": "two"}),
            (signed().raw, ALICE, {"type": "https://slsa.dev/provenance/v1"}),
        ],
        ids=["changed payload", "other key", "other manifest", "other type"],
    )
    def test_refuses_what_we_refuse(self, raw, key, change, tmp_path):
        done = self.verify(tmp_path, raw, key.public_key, **change)
        assert done.returncode != 0


@needs_cosign
def test_cosign_finds_and_accepts_our_release_on_our_registry(new_person, tmp_path):
    person = new_person()
    repository = person.repository()
    bundle = signed()
    attachment = attached(bundle, manifest())
    for content in (b"{}", bundle.raw):
        repository.add_blob(content)
    assert repository.put_manifest("1.0.0", manifest().raw).status == 201
    assert repository.put_manifest(attachment.digest, attachment.raw).status == 201
    (tmp_path / "key.pem").write_text(ALICE.public_key.to_pem())
    command = [
        "cosign",
        "verify-attestation",
        "--key=key.pem",
        f"--type={PREDICATE_TYPE}",
        "--insecure-ignore-tlog",
        "--allow-http-registry",
        f"{repository.wire.netloc}/{repository.name}:1.0.0",
    ]
    login = base64.b64encode(f"{person.name}:{person.token}".encode()).decode()
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {repository.wire.netloc: {"auth": login}}})
    )
    environ = {"DOCKER_CONFIG": str(tmp_path)} | environment(tmp_path)
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    payload = json.loads(done.stdout.splitlines()[-1])["payload"]
    assert json.loads(base64.b64decode(payload))["predicate"]["origin"] == release().origin
