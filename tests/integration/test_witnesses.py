"""The log asks witnesses: one of ours, and sigsum-witness where it is installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from memcube_protocol.errors import InvalidSettingError, SignatureInvalidError
from memcube_registry.database import Database
from memcube_registry.jobs.worker import Task
from memcube_registry.log import witnesses
from memcube_registry.log.service import TransparencyLog
from memcube_registry.log.submission import Submission
from memcube_signing.bundle import sign
from memcube_signing.statement import Statement
from memcube_signing.transparency import bundled
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import LogPolicy, Witnesses
from support.logged import LOG, WITNESS
from support.servers import free_port, wait_for_port
from support.signing import ALICE, manifest
from support.witness import Witness, serving

SEED = b"\x07" * 32
RAW = LOG.public_key.der[-32:]
ORIGIN = "sigsum.org/v1/tree/" + hashlib.sha256(RAW).hexdigest()
LOG_KEY = NoteKey(ORIGIN, LOG.public_key)
WITNESS_NAME = "sigsum.org/v1/witness/" + hashlib.sha256(WITNESS.public_key.der[-32:]).hexdigest()
WITNESS_KEY = NoteKey(WITNESS_NAME, WITNESS.public_key, cosigns=True)


@contextmanager
def ours(_folder: Path) -> Iterator[str]:
    with serving(Witness(WITNESS_NAME, WITNESS, LOG_KEY)) as url:
        yield url


@contextmanager
def sigsum(folder: Path) -> Iterator[str]:
    if not shutil.which("sigsum-witness"):
        pytest.skip("sigsum-witness is not installed (.ci/peers installs it)")
    encoding, port = serialization.Encoding, free_port()
    secret = WITNESS._key.private_bytes(
        encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    (folder / "witness").touch(0o600)
    (folder / "witness").write_bytes(secret)
    public = LOG._key.public_key().public_bytes(
        encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    (folder / "log.pub").write_bytes(public)
    command = ["sigsum-witness", "-k", "witness", "--log-key", "log.pub", "--state-file", "state"]
    process = subprocess.Popen([*command, f"127.0.0.1:{port}"], cwd=folder)
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def log_with(database: Database, url: str) -> TransparencyLog:
    return TransparencyLog(database, SEED, ORIGIN, witnesses.parse(f"{url} {WITNESS_KEY}"))


def add(log: TransparencyLog, number: int, *, threshold: int = 1):
    said = Statement(
        "cube", manifest(str(number)).digest, "https://example.org/test", {"n": number}
    )
    bundle = sign(said, ALICE)
    entry = log.add(Submission("alice/notes", bundle.envelope, ALICE.public_key))
    policy = LogPolicy(log.key, (Witnesses(frozenset({WITNESS_KEY}), threshold),))
    return bundled.verify_logged(bundled.attach(bundle, [entry]), ALICE.public_key, policy)


@pytest.mark.parametrize("witness", [ours, sigsum])
def test_entries_carry_the_cosignature_of_the_witness(witness, database, tmp_path) -> None:
    with witness(tmp_path) as url:
        log = log_with(database, url)
        seen = [add(log, number).seen for number in range(3)]
        assert all(WITNESS_KEY in {one.key for one in who} for who in seen)
        assert WITNESS_NAME in log.checkpoint().text


@pytest.mark.parametrize("witness", [ours, sigsum])
def test_a_witness_that_knows_more_than_we_remember_is_asked_again(
    witness, database, tmp_path
) -> None:
    with witness(tmp_path) as url:
        log = log_with(database, url)
        add(log, 0)
        with database.write() as session:
            session.connection().exec_driver_sql("DELETE FROM log_witness")
        add(log, 1)


@pytest.mark.parametrize("witness", [ours, sigsum])
def test_a_witness_cosigns_no_second_history(witness, database, tmp_path) -> None:
    second = Database(f"sqlite:///{tmp_path / 'second.db'}")
    second.migrate()
    with witness(tmp_path) as url:
        add(log_with(database, url), 0)
        forked = log_with(second, url)
        for number in (5, 6):
            with pytest.raises(SignatureInvalidError) as caught:
                add(forked, number)
            assert caught.value.reason == "log-unwitnessed"
    second.close()


def test_an_entry_is_logged_when_no_witness_answers(database) -> None:
    log = log_with(database, f"http://127.0.0.1:{free_port()}")
    assert add(log, 0, threshold=0).index == 0


def test_a_witness_that_was_away_is_asked_again_later(database, tmp_path) -> None:
    port = free_port()
    log = log_with(database, f"http://127.0.0.1:{port}")
    add(log, 0, threshold=0)
    assert WITNESS_NAME not in log.checkpoint().text
    log.ask_again(Task("", {}))
    assert WITNESS_NAME not in log.checkpoint().text
    with serving(Witness(WITNESS_NAME, WITNESS, LOG_KEY), port):
        log.ask_again(Task("", {}))
        assert WITNESS_NAME in log.checkpoint().text
    log.ask_again(Task("", {}))  # nobody is there, and nobody is asked
    assert WITNESS_NAME in log.checkpoint().text


@pytest.mark.parametrize(
    "text", ["nothing", "ftp://a.example " + str(WITNESS_KEY), f"https://a.example {LOG_KEY}"]
)
def test_a_setting_that_names_no_witness_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettingError):
        witnesses.parse(text)
