"""Signing keys and pins under a hostile or broken disk: nothing half-written, nothing leaked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from memcube.trust import KeyStore, PinStore
from memcube.trust.pins import PINS_FILE
from memcube_protocol.errors import (
    MemcubeError,
    PassphraseMissingError,
    SigningKeyError,
    StorageError,
)
from support.signing import ALICE

SECRET = {"MEMCUBE_KEY_PASSPHRASE": "correct horse battery"}


def secret_of(pem_folder: Path) -> bytes:
    """The private number of the stored key, as an attacker would look for it."""
    key = KeyStore(pem_folder, environ=SECRET).signer().key
    return key.to_unencrypted_pem().splitlines()[1].encode()[20:60]


def test_no_file_holds_the_private_key_or_its_passphrase_in_the_clear(tmp_path):
    folder = tmp_path / "keys"
    KeyStore(folder, environ=SECRET).signer()
    secret = secret_of(folder)
    for path in folder.iterdir():
        assert secret not in path.read_bytes().replace(b"\n", b"")
        assert b"correct horse" not in path.read_bytes()


def test_a_loose_umask_does_not_open_the_key(tmp_path):
    script = (
        "import os, sys; os.umask(0); from pathlib import Path; from memcube.trust import KeyStore;"
        "KeyStore(Path(sys.argv[1]), environ=os.environ).signer()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "keys")]
    subprocess.run(command, env=os.environ | SECRET, check=True)
    for path in [tmp_path / "keys", *(tmp_path / "keys").iterdir()]:
        assert not path.stat().st_mode & 0o077


def test_a_process_without_terminal_ends_with_an_error_and_does_not_wait(tmp_path):
    script = (
        "import sys; from memcube.trust import KeyStore; from memcube.settings import Settings;"
        "from memcube_protocol.errors import MemcubeError\n"
        "try: KeyStore.of(Settings.load()).signer()\n"
        "except MemcubeError as error: print(error.code); sys.exit(3)"
    )
    environ = {name: v for name, v in os.environ.items() if not name.startswith("MEMCUBE_")}
    environ |= {"MEMCUBE_HOME": str(tmp_path), "MEMCUBE_KEYRING": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (3, PassphraseMissingError.code)


def test_every_damaged_byte_of_a_key_file_is_an_error_of_ours(tmp_path):
    pem = ALICE.to_encrypted_pem("x", bytes(32))
    (tmp_path / "keys").mkdir(mode=0o700)
    path = tmp_path / "keys" / "default.pem"
    path.with_suffix(".pub").write_text(ALICE.public_key.to_pem())
    for position in range(0, len(pem), 23):
        damaged = bytearray(pem.encode())
        damaged[position] ^= 0x15
        path.write_bytes(damaged)
        path.chmod(0o600)
        with pytest.raises(MemcubeError):
            KeyStore(tmp_path / "keys", environ={"MEMCUBE_KEY_PASSPHRASE": "x"}).signer()


def test_a_linked_pins_file_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("{}")
    (tmp_path / PINS_FILE).symlink_to(elsewhere)
    with pytest.raises(StorageError):
        PinStore(tmp_path).load()


def test_a_pins_file_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path):
    (tmp_path / PINS_FILE).mkdir()
    with pytest.raises(StorageError):
        PinStore(tmp_path).load()


@pytest.mark.parametrize("name", ["../default", "default/../x", "con.pem", "\x00"])
def test_a_key_name_does_not_leave_the_folder(name, tmp_path):
    with pytest.raises(SigningKeyError):
        KeyStore(tmp_path / "keys", environ=SECRET).make(name)
    assert not list(tmp_path.rglob("*.pem"))
