"""The registry as a process: how it starts, says where it is, shares work, and stops."""

import hashlib
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.postgres import postgres_url
from support.servers import clean_environment, command, first_line, stop_process
from support.wire import Wire

READY = re.compile(r"memcube registry at (http://127\.0\.0\.1:(\d+))(?: as (\S+))?, data in (.+)\n")


@contextmanager
def process(folder: Path, *options: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """`memcube-registry serve` on `folder`, its log in `folder/log`."""
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        started = subprocess.Popen(
            [command("memcube-registry"), "serve", "--data", str(folder / "data"), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=clean_environment(
                **{f"MEMCUBE_REGISTRY_{name}": value for name, value in settings.items()}
            ),
            start_new_session=True,
        )
    try:
        yield started
    finally:
        stop_process(started)


def ready(started: subprocess.Popen[str], folder: Path) -> re.Match[str]:
    line = first_line(started, 60)
    found = READY.fullmatch(line)
    assert found, (line, (folder / "log").read_text()[-3000:])
    return found


def test_port_0_is_a_free_one_and_the_line_says_where_the_data_lies(tmp_path: Path) -> None:
    with process(tmp_path, "--port", "0") as one, process(tmp_path / "b", "--port", "0") as two:
        first, second = ready(one, tmp_path), ready(two, tmp_path / "b")
        assert first[2] != second[2]
        assert first[4] == str(tmp_path / "data")
        for found in (first, second):
            assert Wire(found[1]).get("/readyz").json() == {"status": "ready"}
            described = Wire(found[1]).get("/.well-known/memcube.json").json()
            assert described["registry"] == found[1]


def test_the_data_is_for_its_owner_only(tmp_path: Path) -> None:
    with process(tmp_path, "--port", "0") as started:
        ready(started, tmp_path)
        assert (tmp_path / "data").stat().st_mode & 0o077 == 0
        assert (tmp_path / "data" / "token.key").stat().st_mode & 0o777 == 0o600


def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with process(tmp_path, "--port", str(port)) as started:
            assert started.wait(30) not in (0, 1)
    assert f"port {port}" in (tmp_path / "log").read_text()
    assert "hint: " in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "abc"), ("ANONIMOUS_PULL", "false"), ("LOG_LEVEL", "loud")]
)
def test_a_wrong_setting_stops_the_start_and_is_named(
    tmp_path: Path, name: str, value: str
) -> None:
    with process(tmp_path, **{name: value}) as started:
        assert started.wait(30) == 2
    assert f"MEMCUBE_REGISTRY_{name}" in (tmp_path / "log").read_text()


def test_several_workers_share_tokens_and_figures(tmp_path: Path) -> None:
    with process(tmp_path, "--port", "0", "--workers", "2", REQUESTS_PER_S="0") as started:
        wire = Wire(ready(started, tmp_path)[1])
        admin = [command("memcube-registry"), "--data", str(tmp_path / "data")]
        for words in (["account", "create", "ada"], ["token", "create", "ada", "--quiet"]):
            done = subprocess.run(
                [admin[0], *words, *admin[1:]],
                capture_output=True,
                text=True,
                check=True,
                env=clean_environment(),
            )
        secret = done.stdout.strip()
        token = wire.basic("ada", secret).get("/token").json()["token"]
        answers: list[int] = []

        def ask() -> None:
            answers.extend(wire.bearer(token).get("/v2/").status for _ in range(20))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 80
        figures = wire.get("/metrics").body.decode()
        counted = re.search(
            r'memcube_requests_total\{[^}]*route="v2",status="200"\} (\d+)', figures
        )
        assert counted
        assert int(counted[1]) == 80


def test_every_log_line_is_json_with_the_request_id(tmp_path: Path) -> None:
    with process(tmp_path, "--port", "0") as started:
        wire = Wire(ready(started, tmp_path)[1])
        wire.send("GET", "/v2/a/b/tags/list?token=secret", headers={"X-Request-ID": "trace-7"})
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    entry = next(line for line in lines if line.get("request_id") == "trace-7")
    assert (entry["status"], entry["path"]) == (401, "/v2/a/b/tags/list")
    assert "secret" not in (tmp_path / "log").read_text()


def test_the_same_registry_runs_on_postgresql(tmp_path: Path) -> None:
    settings = {"DATABASE_URL": postgres_url()}
    environ = clean_environment(**{f"MEMCUBE_REGISTRY_{k}": v for k, v in settings.items()})

    def admin(*words: str) -> str:
        command_line = [command("memcube-registry"), *words, "--data", str(tmp_path / "data")]
        done = subprocess.run(command_line, capture_output=True, text=True, check=True, env=environ)
        return done.stdout.strip()

    with process(tmp_path, "--port", "0", **settings) as started:
        wire = Wire(ready(started, tmp_path)[1])
        admin("account", "create", "ada")
        ada = wire.bearer(admin("token", "create", "ada", "--quiet"))
        assert wire.get("/readyz").status == 200
        for name in ("notes-1", "notes_2", "other"):
            body = b'{"visibility": "public"}'
            headers = {"Content-Type": "application/json"}
            answer = ada.put(f"/api/v1/cubes/ada/{name}", body=body, headers=headers)
            assert answer.status == 200, answer
        page = wire.get("/api/v1/cubes?prefix=ada/notes&limit=1").json()
        rest = wire.get(f"/api/v1/cubes?prefix=ada/notes&after={page['next']}").json()
        names = [cube["name"] for cube in page["cubes"] + rest["cubes"]]
        assert sorted(names) == ["ada/notes-1", "ada/notes_2"]
        content = b"some bytes"
        digest = hashlib.sha256(content).hexdigest()
        path = f"/v2/ada/notes-1/blobs/uploads/?digest=sha256:{digest}"
        assert ada.post(path, body=content).status == 201
        assert ada.get("/api/v1/me").json()["usedBytes"] == len(content)
        assert ada.delete("/api/v1/cubes/ada/notes-1").status == 204
        assert ada.get("/api/v1/me").json()["usedBytes"] == 0
        assert json.loads(admin("gc", "--json"))["uploadsExpired"] == 0


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_several_workers_count_wrong_logins_together(tmp_path: Path, database: str) -> None:
    settings = {"FAILED_LOGINS_PER_MINUTE": "60"}
    if database == "postgresql":
        settings["DATABASE_URL"] = postgres_url()
    with process(tmp_path, "--port", "0", "--workers", "4", **settings) as started:
        wire = Wire(ready(started, tmp_path)[1])
        begun = time.monotonic()
        answers = [wire.basic("ada", "wrong").get("/token").status for _ in range(60)]
        lasted_s = time.monotonic() - begun
    assert set(answers) == {401, 429}
    # A burst of ten seconds' worth, and one a second; each worker by itself would let four times as many pass.
    assert 10 <= answers.count(401) <= 10 + lasted_s + 1


def test_a_start_without_a_place_for_blobs_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "somebody")
    with socket.create_server(("127.0.0.1", 0)) as other:
        nobody = f"http://127.0.0.1:{other.getsockname()[1]}"
    bucket = {"STORAGE": "s3", "S3_BUCKET": "cubes", "S3_REGION": "us-east-1"}
    with process(tmp_path, "--port", "0", **bucket, S3_ENDPOINT_URL=nobody) as started:
        ready(started, tmp_path)
        deadline_s = time.monotonic() + 120
        while '"event": "not ready"' not in (log := (tmp_path / "log").read_text()):
            assert time.monotonic() < deadline_s, log
            time.sleep(0.2)
    (told,) = [json.loads(line) for line in log.splitlines() if '"not ready"' in line]
    assert told["reason"].startswith("the S3 server did not serve")
    assert "s3_endpoint_url" in told["hint"]
