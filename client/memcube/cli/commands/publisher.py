"""`memcube publisher`: CI jobs that may push to a cube without a stored token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from memcube.cli.answer import Answer
from memcube.cli.command import MemcubeGroup, command
from memcube.cli.options import open_client
from memcube.figures import table_text

if TYPE_CHECKING:
    from memcube_protocol.reference import Reference

    from memcube.accounts.publishers import TrustedPublisher
    from memcube.client import Client

GITHUB: Final = "https://token.actions.githubusercontent.com"
GITLAB: Final = "https://gitlab.com"


@click.group("publisher", cls=MemcubeGroup)
def publisher() -> None:
    """Allow CI jobs to push to a cube, and see which may.

    Such a job needs no stored token: `memcube push` exchanges the identity token that its CI gives it
    for one of fifteen minutes. The release names the job.
    """


@command(
    "add",
    "memcube publisher add alice/notes --github alice/memories --workflow release.yml",
    "memcube publisher add alice/notes --gitlab alice/memories --workflow .gitlab-ci.yml",
    "memcube publisher add alice/notes --issuer https://ci.example --subject job:release",
)
@click.argument("reference")
@click.option("--github", metavar="OWNER/NAME", help="Jobs of this repository on GitHub.")
@click.option("--gitlab", metavar="GROUP/NAME", help="Jobs of this project on GitLab.")
@click.option("--workflow", metavar="FILE", help="Only jobs of this workflow or pipeline file.")
@click.option(
    "--ref", metavar="REF", help="Only for this branch or tag: refs/heads/main, refs/tags/*."
)
@click.option("--environment", metavar="NAME", help="Only jobs that deploy to this environment.")
@click.option("--issuer", metavar="URL", help="Who issues the identity tokens; needed for others.")
@click.option("--subject", metavar="TEXT", help="Only jobs whose claim `sub` is this.")
@click.option(
    "--claim",
    "claims",
    metavar="NAME=VALUE",
    multiple=True,
    help="Only jobs that have this claim; a final * after / : or @ stands for any rest.",
)
def add(
    reference: str,
    github: str | None,
    gitlab: str | None,
    workflow: str | None,
    ref: str | None,
    environment: str | None,
    issuer: str | None,
    subject: str | None,
    claims: tuple[str, ...],
) -> Answer:
    """Allow the jobs of one workflow to push to the cube REFERENCE in your name.

    This needs a token of scope admin. If you may no longer push to the cube, neither may the jobs.
    """
    from memcube.accounts import publishers

    named = _claims(claims) | _given(sub=subject, environment=environment)
    if github and gitlab:
        raise click.UsageError("name one of --github and --gitlab")
    if github:
        issuer, named = issuer or GITHUB, _of_github(github, workflow, ref) | named
    elif gitlab:
        issuer = issuer or GITLAB
        named = _of_gitlab(issuer, gitlab, workflow, ref) | named
    elif workflow or ref or not issuer:
        raise click.UsageError("name --github, --gitlab, or --issuer with --subject or --claim")
    with open_client() as client:
        added = publishers.add(client.context, _place(client, reference), issuer, named)
    text = f"{added.repository} trusts jobs of {added.issuer} with\n" + "\n".join(
        f"  {name} = {wanted}" for name, wanted in sorted(added.claims.items())
    )
    return Answer(_value(added), f"{text}\nPublisher: {added.id}", str(added.id))


@command("list", "memcube publisher list alice/notes")
@click.argument("reference")
def list_publishers(reference: str) -> Answer:
    """List the jobs that may push to the cube REFERENCE."""
    from memcube.accounts import publishers

    with open_client() as client:
        found = publishers.of_cube(client.context, _place(client, reference))
    rows = [("ID", "ISSUER", "CLAIMS"), *((str(one.id), one.issuer, _told(one)) for one in found)]
    text = table_text(rows) if found else "No CI job may push to it."
    ids = "\n".join(str(one.id) for one in found)
    return Answer({"publishers": [_value(one) for one in found]}, text, ids)


@command("remove", "memcube publisher remove alice/notes 3")
@click.argument("reference")
@click.argument("publisher_id", metavar="ID", type=int)
def remove(reference: str, publisher_id: int) -> Answer:
    """Stop trusting the publisher ID of the cube REFERENCE; tokens of its jobs end at once."""
    from memcube.accounts import publishers

    with open_client() as client:
        gone = publishers.remove(client.context, _place(client, reference), publisher_id)
    text = f"{gone.repository} trusts no more jobs of {gone.issuer} with {_told(gone)}"
    return Answer(_value(gone), text)


def _place(client: Client, reference: str) -> Reference:
    from memcube_protocol.reference import Reference

    return client.context.at_registry(Reference.parse(reference))


def _of_github(repository: str, workflow: str | None, ref: str | None) -> dict[str, str]:
    """Claims of a job of GitHub Actions; without a workflow any job there could push."""
    file = f".github/workflows/{_required(workflow)}"
    return _given(repository=repository, workflow_ref=f"{repository}/{file}@*", ref=ref)


def _of_gitlab(issuer: str, project: str, workflow: str | None, ref: str | None) -> dict[str, str]:
    """Claims of a job of GitLab: its pipeline file is named with host and project."""
    host = issuer.partition("://")[2]
    config = f"{host}/{project}//{_required(workflow)}@*"
    return _given(project_path=project, ci_config_ref_uri=config, ref_path=ref)


def _required(workflow: str | None) -> str:
    if not workflow:
        raise click.UsageError("name the file of the workflow that publishes: --workflow FILE")
    return workflow


def _given(**claims: str | None) -> dict[str, str]:
    return {name: wanted for name, wanted in claims.items() if wanted}


def _claims(texts: tuple[str, ...]) -> dict[str, str]:
    claims: dict[str, str] = {}
    for text in texts:
        name, equals, wanted = text.partition("=")
        if not (name and equals and wanted) or name in claims:
            raise click.UsageError(f"{text!r} is not NAME=VALUE, or names a claim again")
        claims[name] = wanted
    return claims


def _told(one: TrustedPublisher) -> str:
    return ", ".join(f"{name} = {wanted}" for name, wanted in sorted(one.claims.items()))


def _value(one: TrustedPublisher) -> Mapping[str, Any]:
    return {
        "id": one.id,
        "repository": one.repository,
        "issuer": one.issuer,
        "claims": dict(one.claims),
        "createdAt": one.created_at,
    }


for one in (add, list_publishers, remove):
    publisher.add_command(one)
