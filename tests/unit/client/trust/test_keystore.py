"""The user's signing keys on disk: how they are protected, and what is refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from memcube.trust import KeyStore, Protection
from memcube.trust._passphrases import MemorySecrets
from memcube_protocol.errors import (
    ConflictError,
    InvalidStatementError,
    NotFoundError,
    PassphraseMissingError,
    SigningKeyError,
    StorageError,
    WrongPassphraseError,
)
from memcube_signing.keys import Algorithm, PrivateKey
from support.signing import ALICE

SECRET = {"MEMCUBE_KEY_PASSPHRASE": "correct horse"}
PLAIN = {"MEMCUBE_KEY_UNENCRYPTED": "1"}


def keys(folder: Path, environ=SECRET, **more) -> KeyStore:
    return KeyStore(folder / "keys", environ=environ, **more)


def answers(*texts: str):
    left = list(texts)
    return lambda question: left.pop(0)


def test_the_default_key_is_made_at_first_use_and_found_after(tmp_path):
    made = keys(tmp_path).signer()
    found = keys(tmp_path).signer()
    assert (made.created, found.created) == (True, False)
    assert found.key.public_key == made.key.public_key
    assert made.entry.protection is Protection.PASSPHRASE
    assert "made a new signing key" in made.message
    assert made.key.public_key.algorithm is Algorithm.ECDSA_P256_SHA256


def test_a_key_is_at_hand_where_nobody_is_asked_and_none_is_made(tmp_path):
    assert not keys(tmp_path).is_at_hand()
    made = keys(tmp_path)
    made.signer()
    assert made.is_at_hand()
    assert keys(tmp_path).is_at_hand(), "the variable opens it"
    assert not keys(tmp_path, environ={}).is_at_hand()
    keys(tmp_path, environ=PLAIN).make("open")
    assert keys(tmp_path, environ={}).is_at_hand("open")


def test_a_key_that_is_made_because_it_is_needed_is_told_once(tmp_path):
    told = []
    keys(tmp_path, tell=told.append).make("asked-for")
    made = keys(tmp_path, tell=told.append).signer()
    keys(tmp_path, tell=told.append).signer()
    assert told == [made]


def test_key_files_are_private_and_encrypted(tmp_path):
    made = keys(tmp_path).signer()
    assert stat.S_IMODE(made.entry.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.entry.path.parent.stat().st_mode) == 0o700
    assert "BEGIN ENCRYPTED PRIVATE KEY" in made.entry.path.read_text()


def test_a_wrong_passphrase_is_told(tmp_path):
    keys(tmp_path).signer()
    with pytest.raises(WrongPassphraseError):
        keys(tmp_path, {"MEMCUBE_KEY_PASSPHRASE": "wrong"}).signer()


def test_without_terminal_variable_and_keyring_no_key_is_made(tmp_path):
    with pytest.raises(PassphraseMissingError) as caught:
        keys(tmp_path, {}).signer()
    assert "MEMCUBE_KEY_PASSPHRASE" in caught.value.hint
    assert not list((tmp_path / "keys").glob("*.p*"))


def test_without_terminal_variable_and_keyring_no_key_is_opened(tmp_path):
    keys(tmp_path).signer()
    with pytest.raises(PassphraseMissingError):
        keys(tmp_path, {}).signer()


def test_a_person_is_asked_twice_for_a_new_passphrase_and_once_after(tmp_path):
    made = keys(tmp_path, {}, ask=answers("a b", "a b")).signer()
    assert keys(tmp_path, {}, ask=answers("a b")).signer().key.public_key == made.key.public_key


@pytest.mark.parametrize("typed", [("a", "b"), ("", "")])
def test_passphrases_that_differ_or_are_empty_make_no_key(typed, tmp_path):
    with pytest.raises(SigningKeyError):
        keys(tmp_path, {}, ask=answers(*typed)).signer()
    assert not keys(tmp_path, {}).entries()


def test_the_keyring_keeps_a_random_passphrase(tmp_path):
    secrets = MemorySecrets()
    made = keys(tmp_path, {}, secrets=secrets).signer()
    assert made.entry.protection is Protection.KEYRING
    assert len(secrets.get(made.key.public_key.id)) >= 40
    found = keys(tmp_path, {}, secrets=secrets).signer()
    assert found.entry.protection is Protection.KEYRING
    with pytest.raises(PassphraseMissingError):
        keys(tmp_path, {}).signer()


def test_a_key_is_unencrypted_only_when_that_is_asked_for(tmp_path):
    made = keys(tmp_path, PLAIN).signer()
    assert made.entry.protection is Protection.NONE
    assert "NOT encrypted" in made.message
    assert keys(tmp_path, {}).signer().key.public_key == made.key.public_key
    with pytest.raises(PassphraseMissingError):
        keys(tmp_path / "other", {"MEMCUBE_KEY_UNENCRYPTED": "0"}).signer()


def test_several_keys_are_listed_without_opening_them(tmp_path):
    store = keys(tmp_path)
    store.make("work")
    store.make("edge", Algorithm.ED25519)
    listed = keys(tmp_path, {}).entries()
    assert [entry.name for entry in listed] == ["edge", "work"]
    assert listed[0].public_key.algorithm is Algorithm.ED25519
    assert store.signer("edge").key.public_key == listed[0].public_key


def test_a_key_of_an_own_file_can_be_kept(tmp_path):
    keys(tmp_path).keep(ALICE, "alice")
    assert keys(tmp_path).signer("alice").key.public_key == ALICE.public_key


def test_a_key_is_never_overwritten(tmp_path):
    store = keys(tmp_path)
    store.make("work")
    with pytest.raises(ConflictError):
        store.make("work")


def test_a_name_without_key_is_told(tmp_path):
    with pytest.raises(NotFoundError):
        keys(tmp_path).signer("work")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", ".hidden", "a.b", "x" * 65])
def test_a_name_of_another_form_is_refused(name, tmp_path):
    with pytest.raises(SigningKeyError):
        keys(tmp_path).make(name)


def test_a_key_that_others_may_read_is_refused(tmp_path):
    made = keys(tmp_path).signer()
    made.entry.path.chmod(0o644)
    with pytest.raises(SigningKeyError, match="others may read"):
        keys(tmp_path).signer()


def test_a_link_in_the_place_of_a_key_is_refused(tmp_path):
    made = keys(tmp_path).signer()
    real = tmp_path / "real.pem"
    made.entry.path.rename(real)
    made.entry.path.symlink_to(real)
    with pytest.raises(StorageError):
        keys(tmp_path).signer()


def test_halves_that_do_not_belong_together_are_refused(tmp_path):
    made = keys(tmp_path).signer()
    made.entry.path.with_suffix(".pub").write_text(ALICE.public_key.to_pem())
    with pytest.raises(SigningKeyError, match="do not belong together"):
        keys(tmp_path).signer()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_key_file_is_told(content, tmp_path):
    made = keys(tmp_path).signer()
    made.entry.path.write_bytes(content)
    with pytest.raises(InvalidStatementError):
        keys(tmp_path).signer()


def test_a_passphrase_never_stands_in_a_message(tmp_path):
    keys(tmp_path).signer()
    with pytest.raises(WrongPassphraseError) as caught:
        keys(tmp_path, {"MEMCUBE_KEY_PASSPHRASE": "hunter2-secret"}).signer()
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


OPEN_DEFAULT = """
import os, sys
from pathlib import Path
from memcube.trust import KeyStore
print(KeyStore(Path(sys.argv[1]), environ=os.environ).signer().key.public_key.id)
"""


def test_processes_that_start_at_once_share_one_default_key(tmp_path):
    command = [sys.executable, "-c", OPEN_DEFAULT, str(tmp_path / "keys")]
    environ = os.environ | SECRET
    started = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ids = {process.communicate(timeout=60)[0] for process in started}
    assert ids == {f"{keys(tmp_path).signer().key.public_key.id}\n"}


def test_a_kept_private_key_is_the_one_given(tmp_path):
    given = PrivateKey.generate()
    assert keys(tmp_path).keep(given, "given").key.public_key == given.public_key


def test_nobody_is_asked_again_by_the_same_store(tmp_path):
    keys(tmp_path, environ={}, ask=answers("typed", "typed")).signer()
    asked_once = keys(tmp_path, environ={}, ask=answers("typed"))
    assert asked_once.signer() is not None
    assert asked_once.signer().key.public_key == asked_once.signer().key.public_key


def test_a_key_made_in_the_middle_of_a_push_asks_only_when_it_is_made(tmp_path):
    store = keys(tmp_path, environ={}, ask=answers("typed", "typed"))
    assert store.signer().created
    assert not store.signer().created
