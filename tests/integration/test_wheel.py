"""The built wheel, installed alone in a clean environment, migrates, serves, pushes and pulls."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers import clean_environment, first_line, stop_process

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(400)


def run(*words: str | Path, **settings: str) -> str:
    done = subprocess.run(
        list(words),
        capture_output=True,
        text=True,
        env=clean_environment(**settings),
        cwd=Path(words[0]).parent if Path(words[0]).is_absolute() else ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment that holds the wheel and its registry extra alone."""
    environment = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python")
    # Most modules are never imported here, and those that are get compiled then.
    install = ("install", "-q", "--no-compile", "-c", ROOT / "constraints.txt")
    run(*pip, *install, f"{wheel}[registry]")
    return environment / "bin"


@pytest.fixture(scope="module")
def served(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL of a registry served from the wheel, and a token of alice."""
    data = tmp_path_factory.mktemp("served") / "data"
    run(programs / "memcube-registry", "migrate", "--data", data)
    run(programs / "memcube-registry", "account", "create", "alice", "--data", data)
    token = run(
        programs / "memcube-registry", "token", "create", "alice", "--quiet", "--data", data
    )
    process = subprocess.Popen(
        [programs / "memcube", "serve", "--port", "0", "--data", data],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean_environment(),
        cwd=data,
        start_new_session=True,
    )
    try:
        line = first_line(process, 60)
        assert "http://" in line, line
        yield f"http://{line.partition('http://')[2].split(',')[0].strip()}", token.strip()
    finally:
        stop_process(process)


def test_the_wheel_holds_the_four_packages_and_the_migrations(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if "dist-info" not in name}
    assert tops == {"memcube_protocol", "memcube_signing", "memcube", "memcube_registry"}
    assert "memcube_registry/migrations/env.py" in names
    assert any(name.startswith("memcube_registry/migrations/versions/") for name in names)


def test_a_cube_travels_through_a_registry_served_from_the_wheel(
    programs: Path, served: tuple[str, str], tmp_path: Path
) -> None:
    url, token = served
    settings = {
        "MEMCUBE_ENDPOINT": url,
        "MEMCUBE_TOKEN": token,
        "MEMCUBE_KEYRING": "0",
        "MEMCUBE_KEY_PASSPHRASE": "of this test",
    }
    memcube = programs / "memcube"
    run(memcube, "init", tmp_path / "notes")
    publisher = settings | {"MEMCUBE_HOME": str(tmp_path / "publisher")}
    digest = run(memcube, "push", tmp_path / "notes", "alice/notes", "--quiet", **publisher)
    consumer = settings | {"MEMCUBE_HOME": str(tmp_path / "consumer")}
    assert run(memcube, "pull", "alice/notes:0.1.0", "--quiet", **consumer) == digest
    run(memcube, "unpack", "alice/notes:0.1.0", tmp_path / "unpacked", **consumer)
    original, copy = tmp_path / "notes" / "README.md", tmp_path / "unpacked" / "README.md"
    assert copy.read_bytes() == original.read_bytes()
