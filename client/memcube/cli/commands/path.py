"""`memcube path`: the folder of one memory, for tools that load files."""

from __future__ import annotations

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import offline_option, open_client, trust_of, trust_options


@command(
    "path",
    "memcube path alice/coder --memory python-style",
    "vllm serve BASE --enable-lora --lora-modules style=$(memcube path alice/coder --memory style)",
)
@click.argument("reference")
@click.option("--memory", required=True, metavar="ID", help="Which memory of the cube.")
@offline_option
@trust_options
def path(
    reference: str,
    memory: str,
    offline: bool,
    trust_mode: str,
    accept_publisher: str | None,
    accept_origin: str | None,
    accept_rollback: bool,
) -> Answer:
    """Print a folder with one verified memory of the cube REFERENCE.

    An adapter's folder is PEFT's own: transformers, vLLM, SGLang and others load it as it is.
    """
    trust = trust_of(trust_mode, accept_publisher, accept_origin, accept_rollback)
    with open_client(offline=offline) as client:
        folder = client.path(reference, memory, trust=trust)
    return Answer({"path": str(folder), "memory": memory}, str(folder), str(folder))
