"""Dockerfile and compose.yaml, read as text: what would make them unsafe or wrong."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.servers import clean_environment
from support.swift import SwiftServer

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LASTING = sorted(SERVICES.keys() - {"bucket"})
"""Services that do not end by themselves."""


def instructions(name: str, stage: str = DOCKERFILE) -> list[str]:
    """The arguments of every instruction of that name, continued lines joined."""
    joined = stage.replace("\\\n", " ")
    return re.findall(rf"(?m)^{name} +(.+)$", joined)


FINAL = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


def test_the_image_is_built_in_two_stages_and_carries_no_compiler_or_installer() -> None:
    assert len(instructions("FROM")) == 2
    assert "pip install" not in FINAL
    assert "apt-get" not in FINAL
    assert "pip uninstall" in DOCKERFILE


def test_the_image_runs_as_nobody_in_particular() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert FINAL.index("\nUSER ") < FINAL.index("\nENTRYPOINT ")


def test_the_image_writes_no_bytecode() -> None:
    assert "PYTHONDONTWRITEBYTECODE=1" in FINAL
    assert "--no-compile" in DOCKERFILE
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "**/__pycache__" in ignored


def test_the_image_says_whether_it_is_healthy_and_stops_when_asked() -> None:
    (check,) = instructions("HEALTHCHECK")
    assert "/readyz" in check
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_build_sees_every_folder_that_the_wheel_is_made_of_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {package.split("/")[0] for package in wheel["packages"]} | set(wheel["force-include"])
    copied = {words.split()[0] for words in instructions("COPY") if len(words.split()) == 2}
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    files = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    assert needed == copied
    assert allowed == needed | files


def test_the_settings_in_the_image_and_in_compose_exist() -> None:
    from memcube_registry.settings import documented

    known = {variable for _, variable, _, _ in documented()}
    used = set(re.findall(r"MEMCUBE_REGISTRY_\w+", DOCKERFILE))
    used |= {
        name for name in SERVICES["registry"]["environment"] if name.startswith("MEMCUBE_REGISTRY_")
    }
    assert len(used) >= 6
    assert used <= known


def test_compose_starts_the_registry_with_postgresql_s3_and_qdrant() -> None:
    images = {name: service.get("image", "") for name, service in SERVICES.items()}
    assert set(images) == {"registry", "database", "objects", "bucket", "search"}
    assert images["database"].startswith("postgres:")
    assert images["search"].startswith("qdrant/qdrant:")
    url = SERVICES["registry"]["environment"]["MEMCUBE_REGISTRY_DATABASE_URL"]
    assert re.fullmatch(r"postgresql://memcube:\$\{\w+:\?.+\}@database:5432/memcube", url)


@pytest.mark.parametrize("name", LASTING)
def test_every_service_keeps_its_data_and_pins_its_image(name: str) -> None:
    service = SERVICES[name]
    assert service["volumes"]
    volume = service["volumes"][0].split(":")[0]
    assert volume in COMPOSE["volumes"]
    tag = service["image"].rpartition(":")[2]
    assert "build" in service or (re.search(r"\d", tag) and tag != "latest")


@pytest.mark.parametrize("name", [name for name in LASTING if name != "registry"])
def test_every_other_service_says_whether_it_is_healthy(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert check["retries"] >= 3


def test_the_registry_waits_for_what_it_needs() -> None:
    needed = SERVICES["registry"]["depends_on"]
    assert needed["database"]["condition"] == "service_healthy"
    assert needed["bucket"]["condition"] == "service_completed_successfully"
    assert SERVICES["bucket"]["depends_on"]["objects"]["condition"] == "service_healthy"


def test_the_bucket_is_made_once_and_the_registry_uses_it(s3_server: SwiftServer) -> None:
    told = {
        name: value
        for name, value in SERVICES["bucket"]["environment"].items()
        if name.startswith("MEMCUBE_REGISTRY_")
    }
    assert told.items() <= SERVICES["registry"]["environment"].items()
    here = {"MEMCUBE_REGISTRY_S3_ENDPOINT_URL": s3_server.endpoint_url}
    environ = clean_environment(**told | s3_server.environment | here)
    command = [sys.executable, "-c", "from memcube_registry.cli import main; main()"]
    for _ in range(2):
        words = [*command, *SERVICES["bucket"]["command"]]
        subprocess.run(words, check=True, env=environ, timeout=60)
    name = told["MEMCUBE_REGISTRY_S3_BUCKET"]
    assert name in [each["Name"] for each in s3_server.client().list_buckets()["Buckets"]]


def test_no_secret_has_a_default() -> None:
    secret = re.compile(r"PASSWORD|SECRET|KEY", re.IGNORECASE)
    found = 0
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name):
                found += 1
                assert re.fullmatch(r"\$\{MEMCUBE_\w+:\?.+\}", value), name
    assert found >= 4


def test_nothing_is_reachable_from_outside_this_machine() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_the_registry_has_no_privileges() -> None:
    registry = SERVICES["registry"]
    assert registry["read_only"] is True
    assert registry["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in registry["security_opt"]
