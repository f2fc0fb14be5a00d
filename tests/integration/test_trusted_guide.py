"""The guide to trusted publishing does what it says: its commands, and its workflow file step by step."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import NO_LIMITS, Person, fresh
from support.issuer import identity_issuer
from support.machine import Machine
from support.servers import memcube_server

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

GUIDE = (Path(__file__).parents[2] / "docs/guide/trusted-publishing.md").read_text("utf-8")
TAG = "refs/tags/v1.0.0"
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def shell(script: str, environ: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{script}"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environ | {"PATH": f"{BIN}:{environ['PATH']}"},
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def filled(value: str, secrets: dict[str, str], temp: Path) -> str:
    """`value` with the expressions that GitHub Actions would fill in."""
    for name, secret in secrets.items():
        value = value.replace(f"${{{{ secrets.{name} }}}}", secret)
    return value.replace("${{ runner.temp }}", str(temp))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the job finds in its repository."""
    folder = tmp_path / "checkout"
    (folder / "memories" / "plaintext").mkdir(parents=True)
    line = '{"id": "a", "text": "The kettle is blue."}\n'
    (folder / "memories" / "plaintext" / "notes.jsonl").write_text(line)
    return folder


def test_the_guide_from_the_first_word_to_what_readers_see(tmp_path: Path, checkout: Path) -> None:
    trusting, reading = blocks("sh")
    workflow, gitlab = map(yaml.safe_load, blocks("yaml"))
    assert workflow["permissions"]["id-token"] == "write"
    with identity_issuer() as issuer:
        issuer.claims = {
            "ref": TAG,
            "sub": f"repo:alice/memories:ref:{TAG}",
            "workflow_ref": f"alice/memories/.github/workflows/release.yml@{TAG}",
        }
        settings = {**NO_LIMITS, "MEMCUBE_REGISTRY_OIDC_ISSUERS": issuer.url}
        with memcube_server(tmp_path / "server", settings) as server:
            name = fresh("alice")
            server.create_account(name)
            alice = Person(server, name, server.create_token(name, "admin"))

            def here(text: str) -> str:
                """The guide's names as they are on this machine."""
                text = text.replace("https://registry.example", server.url)
                text = text.replace("registry.example", server.wire.netloc)
                # The repository of the job keeps its name: it is another thing than the cube's.
                text = text.replace("alice/notes", f"{name}/notes")
                return text.replace("--github", f"--issuer {issuer.url} --github")

            owner = Machine(tmp_path / "owner", server.url, alice.token, own_process=True)
            said = shell(here(trusting), owner.environment, tmp_path)
            assert "alice/memories/.github/workflows/release.yml@*" in said
            keys = key_of_the_job(tmp_path, server.url, checkout)
            (publish,) = [step for step in workflow["jobs"]["release"]["steps"] if step.get("name") == "Publish"]  # fmt: skip
            runner = Machine(tmp_path / "runner", server.url, own_process=True).environment
            del runner["MEMCUBE_KEY_UNENCRYPTED"]
            environ = {
                **runner,
                **issuer.environment,
                "GITHUB_REF_NAME": "v1.0.0",
                **{name: filled(here(value), keys, tmp_path) for name, value in publish["env"].items()},
            }  # fmt: skip
            published = shell(here(publish["run"]), environ, checkout)
            assert f"repo:alice/memories:ref:{TAG}" in published
            seen = shell(here(reading), owner.environment, tmp_path)
            assert "(verified by its registry)" in seen
            assert '"checked": true' in seen

            job = the_job(gitlab)
            variables = {"MEMCUBE_ID_TOKEN": issuer.token(here(job["aud"]), **issuer.claims)}
            home = {key: environ[key] for key in ("MEMCUBE_HOME", "MEMCUBE_KEY_PASSPHRASE")}
            environ = {**runner, **home, **variables, "CI_COMMIT_TAG": "v1.1.0"}
            more = checkout / "memories" / "plaintext" / "more.jsonl"
            more.write_text('{"id": "b", "text": "The kettle was red."}\n')
            assert ":1.1.0" in shell(here(job["script"]), environ, checkout)


def key_of_the_job(folder: Path, url: str, checkout: Path) -> dict[str, str]:
    """A signing key as the guide keeps it: two secrets, and a public half in the repository."""
    maker = Machine(folder / "maker", url, more={"MEMCUBE_KEY_PASSPHRASE": "correct horse"})
    environ = maker.environment
    del environ["MEMCUBE_KEY_UNENCRYPTED"]
    shell("memcube keys generate ci", environ, folder)
    made = maker.home / "keys"
    (checkout / "release-key.pub").write_bytes((made / "ci.pub").read_bytes())
    pem = (made / "ci.pem").read_text().rstrip("\n")
    return {"RELEASE_KEY": pem, "MEMCUBE_KEY_PASSPHRASE": "correct horse"}


def the_job(gitlab: dict[str, Any]) -> dict[str, str]:
    job = gitlab["release"]
    return {"aud": job["id_tokens"]["MEMCUBE_ID_TOKEN"]["aud"], "script": "\n".join(job["script"])}


def test_every_word_of_the_guide_about_what_went_wrong_is_one_that_is_said() -> None:
    root = Path(__file__).parents[2]
    said = "".join(
        " ".join(path.read_text("utf-8").split())
        for folder in ("client/memcube", "registry/memcube_registry")
        for path in sorted((root / folder).rglob("*.py"))
    )
    for words in (
        "you are not logged in to",
        "no trusted publisher of",
        "this identity token was used before",
        "it was sent nowhere",
        "its issuer is not one that this registry trusts",
        "the release does not name the job that pushes it",
    ):
        assert words in said
        assert words.partition(" of")[0].removesuffix(" to") in " ".join(GUIDE.split())
