"""What decides on this machine whom to trust: nobody else may write it, and nothing else is obeyed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from memcube.settings import Settings
from memcube.trust import AuthorityStore, PinStore
from memcube.trust.log_state import LogStore, advanced
from memcube.trust.pins import Observation
from memcube.trust.policy import POLICY_FILE, Policy
from memcube.trust.policy_file import load_effective, parse
from memcube.trust.withdrawals import StatusStore
from memcube_protocol.errors import InvalidPolicyError, StorageError
from memcube_signing.predicates import attest
from memcube_signing.predicates.status import Reason, State, Status
from support import authority
from support.log import Log
from support.machine import Machine
from support.signing import ALICE, CREATED, NOW, ORIGIN, manifest, release

POLICY = b'format = 1\n[scopes."**"]\npublishers = []\n'
LENIENT = b'format = 1\n[default]\nmode = "warn"\n'


def pins(folder: Path) -> None:
    PinStore(folder).record(Observation(ORIGIN, "latest", release(), (ALICE.public_key,)))


def logs(folder: Path) -> None:
    log = Log(leaves=[b"x"])
    LogStore(folder).keep("registry.example", advanced(None, log.key, log.note(), (), NOW))


def key_documents(folder: Path) -> None:
    AuthorityStore(folder).add(
        authority.ALICE_AT, authority.signed(authority.first(), authority.OLD)
    )


def statuses(folder: Path) -> None:
    said = Status(manifest().digest, ORIGIN, "1.0.0", State.YANKED, Reason.WRONG, CREATED)
    StatusStore(folder).keep(manifest().digest, [attest(said, ALICE).raw])


WRITTEN: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "pins": (pins, lambda folder: PinStore(folder).load()),
    "logs": (logs, lambda folder: LogStore(folder).load()),
    "key documents": (
        key_documents,
        lambda folder: AuthorityStore(folder).load(authority.ALICE_AT),
    ),
    "statuses": (
        statuses,
        lambda folder: StatusStore(folder).of(manifest().digest),
    ),
}


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_everybody_may_write_is_not_believed(tmp_path: Path, kind: str, what: str) -> None:
    """Somebody else on the machine could have pinned an own key there, or have taken a pin away."""
    write, read = WRITTEN[kind]
    write(tmp_path / "trust")
    assert read(tmp_path / "trust")
    (file,) = (tmp_path / "trust").rglob("*.json")
    (file if what == "file" else file.parent).chmod(0o777)
    with pytest.raises(StorageError, match="everybody"):
        read(tmp_path / "trust")


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_another_user_owns_is_not_believed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, read = WRITTEN[kind]
    write(tmp_path / "trust")
    (file,) = (tmp_path / "trust").rglob("*.json")
    owner = file.stat().st_uid
    if owner == 0:
        os.chown(file, 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(StorageError, match="another user"):
        read(tmp_path / "trust")


def test_a_policy_that_everybody_may_write_is_not_obeyed(tmp_path: Path) -> None:
    (tmp_path / POLICY_FILE).write_bytes(LENIENT)
    (tmp_path / POLICY_FILE).chmod(0o666)
    with pytest.raises(StorageError, match="everybody"):
        load_effective(tmp_path, tmp_path / "none")


@pytest.mark.parametrize("kind", ["a link to nothing", "a folder", "a link to itself"])
def test_a_policy_that_cannot_be_read_is_never_passed_over(tmp_path: Path, kind: str) -> None:
    """Whoever makes a policy unreadable has not switched it off: neither the user's nor the company's."""
    home, company = tmp_path / "home", tmp_path / "company.toml"
    home.mkdir()
    for path in (home / POLICY_FILE, company):
        if kind == "a folder":
            path.mkdir()
        else:
            path.symlink_to(path if "itself" in kind else tmp_path / "nothing")
        with pytest.raises(StorageError):
            load_effective(home, company)
        path.rmdir() if kind == "a folder" else path.unlink()
    assert load_effective(home, company) == Policy()


def test_a_policy_in_the_folder_where_one_works_is_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cube, an archive or a repository brings a memcube-trust.toml along."""
    there = tmp_path / "downloads"
    there.mkdir()
    (there / POLICY_FILE).write_bytes(LENIENT)
    monkeypatch.chdir(there)
    reader = Machine(tmp_path / "home", "http://127.0.0.1:9")
    told = reader.json("policy", "explain", "--name", f"{ORIGIN}")
    assert POLICY_FILE not in str(told)


@pytest.mark.parametrize(
    "text",
    [
        '[scopes."a.example/b"]\nmode = "enforce"\nmode = "warn"\n',
        '[scopes."a.example/b"]\nmode = "enforce"\n[scopes."a.example/b"]\nmode = "warn"\n',
        'format = 1\n[default]\nmode = "warn"\n',
    ],
    ids=["a term", "a scope", "the format"],
)
def test_a_word_that_stands_twice_in_a_policy_is_refused(text: str) -> None:
    with pytest.raises(InvalidPolicyError):
        parse(f"format = 1\n{text}".encode())


def test_a_deep_policy_is_refused_like_any_other_that_is_wrong() -> None:
    with pytest.raises(InvalidPolicyError):
        parse(b"format = 1\nx = " + b"[" * 50_000 + b"]" * 50_000)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_settings_that_everybody_may_write_name_no_registry_that_gets_the_token(
    tmp_path: Path, kind: str
) -> None:
    """Somebody else on the machine could have named a registry of theirs there."""
    home, elsewhere = tmp_path / "home", tmp_path / "dotfiles.toml"
    home.mkdir()
    file = elsewhere if kind == "link" else home / "config.toml"
    file.write_text('endpoint = "https://evil.example"\n')
    if kind == "link":
        (home / "config.toml").symlink_to(elsewhere)
    environ = {"MEMCUBE_HOME": str(home), "MEMCUBE_TOKEN": "mct_" + "a" * 43}
    assert Settings.load(environ).endpoint.host == "evil.example", "while it is one's own"
    file.chmod(0o666)
    with pytest.raises(StorageError, match="can be written by everybody"):
        Settings.load(environ)
