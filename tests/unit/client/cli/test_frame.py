"""The frame of the command line: light, explained, quiet where asked, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from memcube.cli import run as frame
from memcube.cli.answer import Answer, Mode, print_answer, print_problem, sanitised
from memcube.cli.command import MemcubeCommand
from memcube.cli.table import LazyGroup
from memcube_protocol.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_INVALID,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_STORAGE,
    EXIT_USAGE,
    OUTCOMES,
    MemcubeError,
    NotFoundError,
)

HEAVY = frozenset(
    [
        "boto3",
        "cryptography",
        "httpx",
        "httpx2",
        "huggingface_hub",
        "keyring",
        "jsonschema",
        "langchain_core",
        "langgraph",
        "litestar",
        "mcp",
        "mcp_types",
        "peft",
        "platformdirs",
        "qdrant_client",
        "pydantic",
        "qdrant_edge",
        "rich",
        "starlette",
        "torch",
        "transformers",
        "urllib3",
        "uvicorn",
        "zstandard",
    ]
)
GUIDE = Path(__file__).parents[4] / "docs" / "guide" / "cli.md"


def commands() -> list[tuple[str, click.Command]]:
    """Every command of ours with its whole name."""
    group = frame.group()
    context = click.Context(group)
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", one) for sub, one in command.commands.items()]
    return found


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEMCUBE_KEYRING", "0")


def loaded_by(code: str) -> set[str]:
    return set(
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"{code}\nimport sys\nprint(*sys.modules, sep='\\n', file=sys.stderr)",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stderr.splitlines()
    )


@pytest.mark.parametrize(
    "code",
    [
        "import memcube",
        "from memcube.cli.run import run\nrun(['--help'])",
        "from memcube.cli.run import run\nrun(['version', '--help'])",
        "from memcube.cli.run import run\nrun(['push', '--help'])",
        "from memcube.cli.run import run\nrun(['psh'])",
    ],
)
def test_help_imports_nothing_heavy(code: str) -> None:
    assert {name.partition(".")[0] for name in loaded_by(code)} & HEAVY == set()


def test_a_push_loads_no_format_of_a_memory_before_a_folder_holds_one() -> None:
    formats = {
        "activation",
        "build",
        "compatibility",
        "identity",
        "parametric",
        "tensors",
        "vectors",
    }
    unused = {f"memcube_protocol.{name}" for name in formats}
    unused |= {"difflib", "memcube.importers", "memcube.store.checks", "pickletools", "sqlite3"}
    loaded = loaded_by("import memcube.client, memcube.hub, memcube.publishing.pushing")
    assert "memcube.packing.contents" in loaded
    assert loaded & unused == set()


def test_the_help_names_every_command_with_what_it_is_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert frame.run(["--help"]) == 0
    text = capsys.readouterr().out
    for name in LazyGroup().list_commands(click.Context(LazyGroup())):
        assert f"  {name} " in text


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: str(value)[:20])
def test_every_command_has_help_with_an_example(name: str, command: click.Command) -> None:
    assert command.help
    assert len(command.help.split()) > 5
    if isinstance(command, MemcubeCommand):
        assert any(f"memcube {name}" in example for example in command.examples), name
    elif not isinstance(command, click.Group):
        assert f"memcube {name}" in command.help + (command.epilog or ""), f"{name}: no example"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]}"


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: str(value)[:20])
def test_every_command_and_option_stands_in_the_guide(name: str, command: click.Command) -> None:
    guide = GUIDE.read_text()
    assert f"## memcube {name}\n" in guide
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in guide


def test_the_guide_is_generated_from_the_commands() -> None:
    from memcube.cli.reference import reference

    assert GUIDE.read_text() == reference(), "make docs"


def test_every_exit_code_stands_in_the_guide() -> None:
    guide = GUIDE.read_text()
    for code in sorted({outcome.exit_code for outcome in OUTCOMES.values()}):
        assert f"| {code} |" in guide


def test_an_error_is_printed_with_its_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.run(["unpack", "alice/absent", "x", "--offline"]) == EXIT_NOT_FOUND
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: the local store does not hold")
    assert "\n\nhint: pull it" in err


def test_an_error_in_json_is_a_problem_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.run(["rm", "alice/absent", "--json"]) == EXIT_NOT_FOUND
    out, err = capsys.readouterr()
    problem = json.loads(out)
    assert err == ""
    assert problem["type"] == "urn:memcube:error:not-found"
    assert (problem["status"], problem["exitCode"]) == (404, EXIT_NOT_FOUND)
    assert problem["hint"]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["psh"], "did you mean 'push'"),
        (["push"], "SOURCE"),
        (["ls", "--lang"], "--lang"),
        (["mount"], "name a cube"),
        (["mirror", "alice", "oci:/media/stick"], "copy cube by cube"),
        (["mirror", "oci:stick", "alice"], "copy cube by cube"),
        (["prune", "--older-than", "-1", "--yes"], "not in the range"),
        (["prune", "--older-than", "1e99", "--yes"], "not in the range"),
        (["prune", "--older-than", "nan", "--yes"], "nan is no number"),
        (["log", "monitor", "alice", "--since", "-1"], "not in the range"),
        (["mount", "a/b", "--max-new-tokens", "0"], "0 is not in the range"),
    ],
)
def test_a_usage_error_says_what_was_meant(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.run(arguments) == EXIT_USAGE
    err = capsys.readouterr().err
    assert meant in err
    assert "hint: memcube" in err


def test_a_usage_error_is_the_same_for_a_program_and_names_the_commands_own_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert frame.run(["mount", "a/b", "--json", "--ask"]) == EXIT_USAGE
    problem = json.loads(capsys.readouterr().out)
    assert (problem["code"], problem["exitCode"]) == ("wrong-usage", EXIT_USAGE)
    assert problem["hint"] == "memcube mount --help shows how it is used"


@pytest.mark.parametrize("group", ["mcp", "keys", "policy"])
def test_a_group_without_a_command_shows_its_help_and_no_error(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.run([group]) == EXIT_USAGE
    assert capsys.readouterr().err.startswith(f"Usage: memcube {group}")


@pytest.mark.parametrize("group", ["mcp", "keys", "policy", "log", "proof", "publisher"])
def test_a_group_shows_the_whole_first_sentence_of_each_command(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert frame.run([group, "--help"]) == EXIT_OK
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_a_malformed_reference_has_its_own_exit_code() -> None:
    assert frame.run(["rm", "NOT A NAME"]) == EXIT_INVALID


def test_a_wrong_setting_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMCUBE_PARALLEL", "many")
    assert frame.run(["ls"]) == EXIT_USAGE


def test_a_defect_is_reported_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from memcube.client import Client

    def broken(_: Client) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Client, "ls", broken)
    assert frame.run(["ls"]) == EXIT_ERROR
    assert capsys.readouterr().err.startswith("error: unexpected RuntimeError: boom")


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    from memcube.client import Client

    def interrupted(_: Client) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "ls", interrupted)
    assert frame.run(["ls"]) == EXIT_INTERRUPTED


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "from memcube.cli.run import run\nimport sys\nsys.exit(run(['--help']))"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert done.stderr == b""


MAIN = "from memcube.cli.run import main; main()"


def shell(redirected: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The whole command under a shell that redirects its streams as `redirected` says."""
    words = [sys.executable, "-c", MAIN, *arguments]
    line = f'exec "$@" {redirected}'
    return subprocess.run(
        ["sh", "-c", line, "sh", *words], capture_output=True, text=True, check=False
    )


def test_a_problem_that_stdout_does_not_take_is_told_on_stderr_without_a_traceback() -> None:
    done = shell("> /dev/full", "rm", "NOT A NAME", "--json")
    assert done.returncode == EXIT_INVALID
    assert done.stderr.startswith("error: 'NOT A NAME'")
    assert "Traceback" not in done.stderr


def test_an_answer_that_a_full_disk_does_not_take_is_an_error() -> None:
    done = shell("> /dev/full", "completion", "bash", "--json")
    assert done.returncode == EXIT_STORAGE
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stream", ["0", "1", "2"])
def test_a_stream_that_the_caller_closed_changes_nothing_else(stream: str) -> None:
    done = shell(f"{stream}>&-", "version")
    assert done.returncode == EXIT_OK
    assert ("memcube" in done.stdout) == (stream != "1")
    assert done.stderr == ""


def test_examples_stand_on_one_line_each_to_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    frame.run(["mount", "--help"])
    example = 'memcube mount alice/coder --model ./Qwen3-0.6B --ask "Which style do we use?"'
    assert f"  {example}\n" in capsys.readouterr().out


def test_a_prompt_without_a_terminal_is_a_usage_error() -> None:
    code = "from memcube.cli.run import run\nimport sys\nsys.exit(run(sys.argv[1:]))"
    for arguments in (["login"], ["prune", "--older-than", "1"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode == EXIT_USAGE
        assert b"no terminal" in done.stderr


def test_what_a_cube_says_cannot_steer_a_terminal() -> None:
    assert sanitised("a\x1b[31mb\u202ec\r\x07\n\tü 中 👍🏽") == "a�[31mb�c��\n\tü 中 👍🏽"


def test_the_three_ways_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer({"b": 1, "a": "ü"}, "two\nlines", "digest")
    print_answer(answer, Mode())
    print_answer(answer, Mode(quiet=True))
    print_answer(answer, Mode(as_json=True))
    out = capsys.readouterr().out
    assert out.startswith("two\nlines\ndigest\n")
    assert json.loads(out.removeprefix("two\nlines\ndigest\n")) == {"a": "ü", "b": 1}


def test_every_error_has_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_problem(NotFoundError("x", hint="y"), Mode()) == EXIT_NOT_FOUND
    assert print_problem(MemcubeError("x"), Mode()) == EXIT_ERROR
    assert capsys.readouterr().err == "error: x\n\nhint: y\nerror: x\n"


def test_options_behind_a_double_dash_are_arguments() -> None:
    assert Mode.of_arguments(["rm", "--", "--json"]) == Mode()
    assert Mode.of_arguments(["rm", "--json", "-q"]) == Mode(as_json=True, quiet=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.run(["completion", shell]) == 0
    assert "_MEMCUBE_COMPLETE" in capsys.readouterr().out


def test_completion_of_a_command_loads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    group = frame.group()
    items = group.shell_complete(click.Context(group), "pu")
    assert [item.value for item in items] == ["push", "pull", "publisher"]


def test_the_names_of_the_package_are_pinned_and_sorted() -> None:
    import memcube

    assert memcube.__all__ == sorted(memcube.__all__)
    assert " ".join(memcube.__all__) == (
        "Acceptance Client MemDumper MemLoader MemcubeError Mode MountedCube MountedMemory Settings "
        "Trust cp dump_kv dump_lora inspect login logout ls mount pack path plan prune pull push rm tag unpack verify whoami"
    )
    for name in memcube.__all__:
        assert getattr(memcube, name) is not None
    assert set(memcube.__all__) <= set(dir(memcube))
    with pytest.raises(AttributeError):
        memcube.nothing  # noqa: B018


@pytest.mark.parametrize("module", ["memcube.cli.run", "click", "memcube_protocol.errors"])
def test_an_interrupt_while_the_code_is_loaded_shows_no_traceback(module: str) -> None:
    program = f"""
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
from memcube.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=False
    )
    assert (done.returncode, done.stderr) == (EXIT_INTERRUPTED, "interrupted\n")
