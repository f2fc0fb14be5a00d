"""`memcube proxy` as users start it: a process with an engine behind it, ended by Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube.dumper import MemDumper
from memcube_protocol import media_types
from memcube_protocol.errors import EXIT_INTERRUPTED, EXIT_USAGE, RuleRefusedError
from support.engine import running_engine
from support.kv import kv_folder
from support.machine import Machine, client_on
from support.proxied import mounted_addition
from support.servers import START_TIMEOUT_S, command, first_line, stop_process

pytest.importorskip("qdrant_edge")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")


def test_a_program_is_given_the_base_url_and_has_memory(tmp_path: Path) -> None:
    dumper = MemDumper(tmp_path / "cube", name="alice/backups", version="1.0.0")
    dumper.add_records(["The third copy lies in Tartu."])
    machine = Machine(tmp_path / "home", "http://127.0.0.1:9", more={"ENGINE_KEY": "sk-engine"})
    machine.ok("pack", dumper.folder)
    with running_engine() as engine:
        words = ("proxy", "--upstream", engine.url, "--mount", "alice/backups", "--port", "0")
        process = subprocess.Popen(
            [command("memcube"), *words, "--upstream-key-env", "ENGINE_KEY"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=machine.environment,
            text=True,
            start_new_session=True,
        )
        try:
            line = first_line(process, START_TIMEOUT_S)
            assert line.startswith("Listening on http://127.0.0.1:")
            asked = {"messages": [{"role": "user", "content": "Where is the third copy?"}]}
            request = urllib.request.Request(
                f"{line.split()[2].rstrip(',')}/chat/completions",
                json.dumps(asked).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as answer:
                told = json.load(answer)["choices"][0]["message"]["content"]
            assert told == "The third copy."
            assert "Tartu" in engine.last.json["messages"][0]["content"]
            assert engine.last.headers["authorization"] == "Bearer sk-engine"
            process.send_signal(signal.SIGINT)
            assert process.wait(START_TIMEOUT_S) == EXIT_INTERRUPTED
            assert process.stderr is not None
            said = process.stderr.read()
            process.stderr.close()
        finally:
            stop_process(process)
    assert "POST /v1/chat/completions 200" in said
    assert "sk-engine" not in said + line
    assert "Traceback" not in said


def test_a_cube_that_must_stay_here_leaves_for_no_engine_elsewhere(
    ada: Person, bob: Person, tmp_path: Path
) -> None:
    name = f"{ada.name}/{fresh('handbook')}"
    dumper = MemDumper(tmp_path / "cube", name=name, version="1.0.0")
    dumper.add_records(["The third copy lies in Tartu."])
    kv_folder(dumper.folder, "The handbook.")
    draft = dumper.folder / "memcube.toml"
    draft.write_text(draft.read_text() + '\n[governance]\nprocessing = "local"\n')
    Machine(tmp_path / "ada", ada.server.url, ada.token).ok("push", dumper.folder, "--public")
    with client_on(tmp_path / "bob", bob) as client:
        with mounted_addition(client, name, leaves_to=("127.0.0.1:8000",)) as addition:
            assert "The handbook." in addition.prefix
            assert "Tartu" in addition.look_up("Where is the third copy?")
        verified = client.open(name, filters=["kind=plaintext"])
        tensors = next(file for file in verified.cube.files if file.media_type == media_types.KV)
        assert not client.context.store.has(tensors.digest), "a text needs no tensors"
        with (
            pytest.raises(RuleRefusedError, match=r"engine\.example"),
            mounted_addition(client, name, leaves_to=("engine.example",)),
        ):
            pass


def test_a_key_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "home", "http://127.0.0.1:9")
    words = ("proxy", "--upstream", "http://127.0.0.1:9/v1", "--mount", "alice/backups")
    assert "ENGINE_KEY" in machine.fails(EXIT_USAGE, *words, "--upstream-key-env", "ENGINE_KEY")
    assert "0.0.0.0" in machine.fails(EXIT_USAGE, *words, "--host", "0.0.0.0")
