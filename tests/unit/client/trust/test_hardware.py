"""Keys in tokens: a real PKCS#11 driver (SoftHSM), and URIs that are refused."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shutil import which

import pytest
from memcube.trust.hardware import TokenSigner, TokenUri
from memcube.trust.keystore import KeyStore, Protection
from memcube_protocol.errors import EXIT_RULE, NotFoundError, SigningKeyError, WrongPassphraseError
from memcube_signing.keys import Algorithm, is_canonical
from memcube_signing.release import sign_release, verify_release
from support.machine import Machine
from support.published import write_cube
from support.quirky import quirky
from support.signing import release

DRIVERS = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so")
DRIVER = next((path for path in DRIVERS if Path(path).is_file()), "")
PIN = "271828"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory):
    """SoftHSM with one token that holds a key on P-256 and one on P-384."""
    pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    if not (DRIVER and which("softhsm2-util")):
        pytest.skip("SoftHSM is not installed (Debian: softhsm2)")
    folder = tmp_path_factory.mktemp("hsm")
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(config))
        words = ["softhsm2-util", "--init-token", "--free", "--label", "release"]
        subprocess.run(
            [*words, "--pin", PIN, "--so-pin", "31415926"], check=True, capture_output=True
        )
        _fill(pkcs11)
        yield DRIVER


def _fill(pkcs11) -> None:
    from pkcs11.util.ec import encode_named_curve_parameters

    with pkcs11.lib(DRIVER).get_token(token_label="release").open(rw=True, user_pin=PIN) as session:
        for label, curve in (("alice", "secp256r1"), ("wide", "secp384r1")):
            named = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
            domain = session.create_domain_parameters(pkcs11.KeyType.EC, named, local=True)
            domain.generate_keypair(label=label, store=True)


def uri(driver: str, label: str = "alice", token: str = "release") -> str:
    return f"pkcs11:token={token};object={label}?module-path={driver}"


def store(folder: Path, pin: str = PIN) -> KeyStore:
    return KeyStore(folder, environ={"MEMCUBE_KEY_PASSPHRASE": pin})


def test_a_release_is_signed_by_a_key_that_never_leaves_its_token(driver, tmp_path) -> None:
    opened = store(tmp_path).signer(uri(driver))
    assert opened.entry.protection is Protection.TOKEN
    assert "in a token" in opened.message
    key = opened.key.public_key
    said = release(publishers=(key.id,))
    bundle = sign_release(said, opened.key)
    assert verify_release(bundle.raw, keys=[key], subject=said.subject) == said


def test_every_signature_is_canonical(driver) -> None:
    signer = TokenSigner.open(TokenUri.parse(uri(driver)), PIN)
    for number in range(8):
        assert is_canonical(signer.sign(b"%d" % number), Algorithm.ECDSA_P256_SHA256)


def test_a_wrong_pin_is_told_from_a_missing_key(driver, tmp_path) -> None:
    with pytest.raises(WrongPassphraseError):
        store(tmp_path, "000000").signer(uri(driver))
    with pytest.raises(NotFoundError):
        store(tmp_path).signer(uri(driver, label="bob"))
    with pytest.raises(NotFoundError):
        store(tmp_path).signer(uri(driver, token="other"))


def test_a_key_on_another_curve_is_refused(driver, tmp_path) -> None:
    with pytest.raises(SigningKeyError):
        store(tmp_path).signer(uri(driver, label="wide"))


def test_a_driver_that_is_not_there_is_named(driver, tmp_path) -> None:
    with pytest.raises(SigningKeyError):
        store(tmp_path).signer(uri("/nowhere/driver.so"))


def test_the_pin_is_never_shown(driver) -> None:
    assert PIN not in repr(TokenSigner.open(TokenUri.parse(uri(driver)), PIN))


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:",
        "pkcs11:token=a;object=b",
        "pkcs11:token=a?module-path=/x",
        "pkcs11:token=a;token=b;object=c?module-path=/x",
        "pkcs11:token=a;object=b?module-path=/x&pin-value=1234",
        "pkcs11:token=a;object=b;serial=1?module-path=/x",
    ],
)
def test_uris_of_another_form_are_refused(text) -> None:
    with pytest.raises(SigningKeyError) as refused:
        TokenUri.parse(text)
    assert "1234" not in str(refused.value)
    assert refused.value.hint


def test_parts_of_uris_are_unquoted() -> None:
    parsed = TokenUri.parse("pkcs11:object=my%20key;token=t%3B1?module-path=/opt/x.so")
    assert parsed == TokenUri("t;1", "my key", "/opt/x.so")


def test_who_releases_with_a_token_pushes_what_is_their_own_under_another_name(
    driver, tmp_path
) -> None:
    """What the first cube forbids to others is not forbidden to its publisher, once the token is open."""
    with quirky() as registry:
        publisher = Machine(tmp_path / "home", registry.url, more={"MEMCUBE_KEY_PASSPHRASE": PIN})
        for name, more in (
            ("acme/atlas", '[governance]\nredistribution = "forbidden"\n'),
            ("acme/map", ""),
        ):
            folder = write_cube(tmp_path / name, name, "1.0.0")
            (folder / "attachments" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
            with (folder / "memcube.toml").open("a") as toml:
                toml.write(more)
            publisher.ok("push", folder, "--key", uri(driver))
        other = write_cube(tmp_path / "other", "acme/other", "1.0.0")
        told = publisher.fails(EXIT_RULE, "push", other)
    assert "acme/atlas says redistribution = forbidden" in told
