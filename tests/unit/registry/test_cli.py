"""The commands of the registry."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import structlog
from click.testing import CliRunner, Result
from memcube_protocol.errors import (
    EXIT_OK,
    EXIT_STORAGE,
    EXIT_USAGE,
    ConflictError,
    IntegrityError,
    InvalidSettingError,
    NotFoundError,
)
from memcube_registry.accounts import tokens
from memcube_registry.cli import group, serve
from memcube_registry.cli import run as run_process
from memcube_registry.database import Database, utc_now
from memcube_registry.jobs.service import enqueue
from memcube_registry.settings import size_text
from support.servers import command as executable

HEAVY = ("litestar", "sqlalchemy", "sqlmodel", "granian", "structlog", "alembic", "jwt")


@pytest.fixture
def data(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a registry that was started before."""
    for name in ("MEMCUBE_REGISTRY_CONFIG", "MEMCUBE_REGISTRY_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEMCUBE_REGISTRY_DATABASE_URL", database_url)
    yield tmp_path
    structlog.reset_defaults()  # a command logs to a stream that ends with it


def run(data: Path, *words: str) -> Result:
    return CliRunner().invoke(group, [*words, "--data", str(data)], catch_exceptions=False)


def every_command(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for part, inner in command.commands.items():
            yield from every_command(inner, f"{name} {part}")
    else:
        yield name, command


def test_every_command_has_help_with_an_example() -> None:
    commands = dict(every_command(group, "memcube-registry"))
    assert len(commands) >= 10
    for name, command in commands.items():
        assert command.help, name
        assert "Example: memcube" in command.help, name
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, (name, option.name)


@pytest.mark.parametrize("words", [(), ("account",), ("account", "create"), ("serve",)])
def test_help_is_one_letter_away(words: tuple[str, ...]) -> None:
    # In a process of its own: click remembers the help option of a command that was shown before.
    words = (executable("memcube-registry"), *words, "-h")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "-h, --help" in done.stdout


def test_loading_the_commands_imports_nothing_heavy() -> None:
    script = "import sys, memcube_registry.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not set(HEAVY) & set(done.stdout.split())


def test_a_person_gets_an_account_and_a_token_that_works(data: Path, database: Database) -> None:
    assert "alice" in run(data, "account", "create", "alice").output
    done = run(data, "token", "create", "alice", "--scope", "push:alice/notes", "--quiet")
    secret = done.output.strip()
    with database.read() as session:
        found = tokens.principal_of_secret(session, secret, now=utc_now())
    assert (found.name, [str(scope) for scope in found.scopes]) == ("alice", ["push:alice/notes"])
    listed = run(data, "token", "list", "alice").output
    assert "push:alice/notes" in listed
    assert secret not in listed


def test_a_token_is_revoked_by_its_number(data: Path) -> None:
    run(data, "account", "create", "alice")
    run(data, "token", "create", "alice", "--days", "1")
    listed = run(data, "token", "list", "alice").output
    assert "revoked" not in listed
    assert re.search(r"\texpires \d{4}-\d\d-\d\d \d\d:\d\d UTC\n", listed)
    run(data, "token", "revoke", "alice", "1")
    assert "revoked" in run(data, "token", "list", "alice").output


def test_quotas_are_the_settings_unless_said_otherwise(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMCUBE_REGISTRY_DEFAULT_QUOTA_BYTES", "1GiB")
    run(data, "account", "create", "alice")
    run(data, "account", "create", "bob", "--quota", "5MiB")
    run(data, "account", "create", "carol", "--quota", "0")
    listed = json.loads(run(data, "account", "list", "--json").output)
    assert [(entry["name"], entry["quotaBytes"]) for entry in listed] == [
        ("alice", 1 << 30),
        ("bob", 5 << 20),
        ("carol", None),
    ]


def test_where_cubes_go_is_told_only_where_it_is_known(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(data, "account", "create", "alice").output == "created alice\n"
    monkeypatch.setenv("MEMCUBE_REGISTRY_EXTERNAL_URL", "https://cubes.example.org")
    told = run(data, "account", "create", "bob").output
    assert told == "created bob: cubes go to cubes.example.org/bob/…\n"


def test_an_organisation_has_an_owner(data: Path) -> None:
    run(data, "account", "create", "alice")
    run(data, "account", "create", "acme", "--organisation", "--owner", "alice")
    assert "acme\torganisation" in run(data, "account", "list").output
    assert run(data, "account", "create", "other", "--organisation").exit_code == 2


def test_a_disabled_account_is_enabled_again(data: Path, database: Database) -> None:
    run(data, "account", "create", "alice")
    secret = run(data, "token", "create", "alice", "--quiet").output.strip()
    run(data, "account", "disable", "alice")
    run(data, "account", "disable", "alice", "--enable")
    with database.read() as session:
        assert tokens.principal_of_secret(session, secret, now=utc_now()).name == "alice"


def test_garbage_is_collected_on_demand(data: Path) -> None:
    assert re.search(r"(?m)^ +0  blobs removed$", run(data, "gc").output)
    assert json.loads(run(data, "gc", "--json").output)["blobsRemoved"] == 0


def test_programs_read_the_field_names_of_the_api(data: Path, database: Database) -> None:
    run(data, "account", "create", "alice")
    with database.write() as session:
        enqueue(session, "countersign", "alice/notes", utc_now())
    for words in (("account", "list"), ("jobs", "list"), ("jobs", "show", "1"), ("gc",), ("fsck",)):
        told = run(data, *words, "--json").output
        assert re.findall(r'"(?:[a-z]+[A-Z][A-Za-z]*|checked)": ', told), words
        assert not re.findall(r'"\w*_\w*": ', told), words


def test_settings_are_explained_with_their_values(data: Path) -> None:
    shown = run(data, "settings").output
    assert f"data_dir = {data}" in shown
    assert "MEMCUBE_REGISTRY_PORT" in shown
    assert json.loads(run(data, "settings", "--json").output)["port"] == "7070"


def test_settings_are_explained_even_where_one_is_wrong(data: Path) -> None:
    done = CliRunner().invoke(
        group, ["settings", "--data", str(data)], env={"MEMCUBE_REGISTRY_PORT": "http"}
    )
    assert isinstance(done.exception, InvalidSettingError)
    assert "port = 7070" in done.output


def test_migrate_goes_to_a_revision(data: Path) -> None:
    assert "head" in run(data, "migrate").output


def test_errors_are_ours(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError):
        run(data, "token", "create", "nobody")
    run(data, "account", "create", "alice")
    with pytest.raises(ConflictError):
        run(data, "account", "create", "alice")
    monkeypatch.setenv("MEMCUBE_REGISTRY_PROT", "1")
    with pytest.raises(InvalidSettingError, match="MEMCUBE_REGISTRY_PROT"):
        run(data, "account", "list")


def test_an_error_is_a_line_a_hint_and_an_exit_code(data: Path) -> None:
    program = Path(sys.executable).parent / "memcube-registry"
    done = subprocess.run(
        [program, "token", "list", "nobody", "--data", str(data)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr == "error: there is no account 'nobody'\n\nhint: check the name\n"


def test_serve_is_a_command_that_the_client_can_take_up() -> None:
    assert serve.name == "serve"
    assert {"host", "port", "data_dir", "config", "workers", "database_url"} <= {
        option.name for option in serve.params
    }


def test_a_registry_is_checked_and_its_damage_is_an_exit_code(
    data: Path, database: Database
) -> None:
    told = run(data, "fsck", "--all").output
    assert "damaged: 0, leftovers: 0" in told
    assert "seed" not in told
    run(data, "account", "create", "alice")
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE account SET used_bytes = 7")
    with pytest.raises(IntegrityError, match=r"\(findings: 1\)"):
        run(data, "fsck")
    done = CliRunner().invoke(group, ["fsck", "--json", "--seed", "5", "--data", str(data)])
    report = json.loads(done.output)
    assert (report["damage"], report["seed"]) == (1, None)  # without a blob nothing is drawn
    assert report["findings"][0]["rule"] == "usage"


def test_a_seed_that_draws_nothing_is_refused_instead_of_ignored(data: Path) -> None:
    done = run(data, "fsck", "--all", "--seed", "7")
    assert done.exit_code == click.UsageError.exit_code
    assert "--all reads every blob: --seed has nothing to draw" in done.output


def test_a_check_of_nothing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        run(tmp_path / "absent", "fsck")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    "words",
    [("account", "list"), ("token", "list", "a"), ("jobs", "list"), ("gc",), ("backup", "copy")],
)
def test_a_mistyped_folder_is_refused_and_gets_no_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("MEMCUBE_REGISTRY_DATABASE_URL", raising=False)
    with pytest.raises(NotFoundError, match="no registry's database"):
        run(tmp_path / "absent", *words)
    assert list(tmp_path.iterdir()) == []


def test_a_registry_is_backed_up_and_restored_by_commands(
    data: Path, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMCUBE_REGISTRY_DATABASE_URL", sqlite_url)
    run(data, "account", "create", "alice")
    backup = str(tmp_path / "backup")
    told = json.loads(run(data, "backup", backup, "--json", "--keep", "1").output)
    assert (told["rows"]["account"], told["check"]["damage"]) == (1, 0)
    assert told["snapshotsRemoved"] == 0
    assert "is whole" in run(data, "restore", backup, "--dry-run", "--all").output
    with pytest.raises(ConflictError, match="not empty"):
        run(data, "restore", backup)
    monkeypatch.delenv("MEMCUBE_REGISTRY_DATABASE_URL")
    done = run(tmp_path / "new", "restore", backup)
    assert "is restored into" in done.output
    assert "the log ends at 0 entries" in done.output
    assert "alice" in run(tmp_path / "new", "account", "list").output
    left_out = run(tmp_path / "again", "restore", backup, "--new-log").output
    assert left_out.endswith("a log of 0 entries, left out: another begins at the next start\n")
    with pytest.raises(NotFoundError, match="no snapshot"):
        run(data, "restore", backup, "--snapshot", "20200101T000000Z")


@pytest.mark.parametrize(
    ("words", "told", "hint"),
    [
        (["tokne"], "No such command", "memcube-registry"),
        (["token", "create"], "NAME", "memcube-registry token create"),
        (["token", "create", "alice", "--days", "nan"], "--days", "memcube-registry token create"),
        (["token", "create", "alice", "--days", "0"], "--days", "memcube-registry token create"),
        (
            ["account", "create", "a", "--quota", "5XB"],
            "--quota",
            "memcube-registry account create",
        ),
        (["migrate", "--to", "nope"], "nope", "memcube-registry migrate"),
    ],
)
def test_wrong_usage_ends_as_other_errors_do(
    words: list[str], told: str, hint: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_process([*words, "--data", str(data)] if len(words) > 1 else words) == EXIT_USAGE
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert told in err
    assert f"hint: {hint} --help" in err


@pytest.mark.parametrize("words", [[], ["token"]])
def test_a_group_alone_shows_each_command_with_its_whole_sentence(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_process(words) == EXIT_USAGE
    assert "..." not in capsys.readouterr().err.partition("Commands:")[2]
    assert run_process([*words, "--help"]) == EXIT_OK
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_an_answer_that_a_full_disk_does_not_take_is_an_error_without_a_traceback() -> None:
    line = f"exec {executable('memcube-registry')} settings > /dev/full"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_STORAGE
    assert done.stderr.startswith("error: No space left on device")
    assert "Traceback" not in done.stderr


def test_sizes_are_told_with_their_unit() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 1536, 100 << 30, 3 << 50)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "100.0 GiB",
        "3072.0 TiB",
    ]
