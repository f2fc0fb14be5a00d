"""`memcube proxy`: memory for every program that speaks the OpenAI API."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click
from memcube_protocol.errors import InvalidSettingError

from memcube.cli.answer import Answer, sanitised
from memcube.cli.command import command
from memcube.cli.mount_options import MountOptions, mount_options
from memcube.cli.options import Number, open_client
from memcube.cli.serving_options import ServingOptions, serving_options
from memcube.figures import table_text

if TYPE_CHECKING:
    from memcube.mounting.choosing import Asked


@command(
    "proxy",
    "memcube proxy --upstream http://127.0.0.1:8000/v1 --mount alice/notes",
    "memcube proxy --upstream https://api.example/v1 --mount alice/notes --mount acme/cardiology:1.4",
)
@click.option("--upstream", required=True, metavar="URL", help="The engine's API: https://…/v1.")
@click.option("--mount", "references", multiple=True, metavar="REF", help="A cube; repeatable.")
@mount_options()
@click.option(
    "--prefix-budget",
    "prefix_tokens",
    default=8192,
    show_default=True,
    type=click.IntRange(0),
    help="Tokens of source texts at the beginning of every prompt.",
)
@click.option(
    "--timeout",
    "timeout_s",
    default=600.0,
    show_default=True,
    type=Number(1),
    help="Seconds that the engine may be silent.",
)
@click.option(
    "--upstream-key-env",
    metavar="NAME",
    help="Show the engine the key in this variable instead of the caller's.",
)
@serving_options(
    "Demand the token in this file, which is made if absent, as API key of callers.", port=7071
)
def proxy(
    wanted: MountOptions,
    *,
    serving: ServingOptions,
    upstream: str,
    prefix_tokens: int,
    timeout_s: float,
    upstream_key_env: str | None,
) -> Answer:
    """Pass requests of the OpenAI API on to --upstream, with the memory of cubes added to each.

    Chat completions, responses and completions get the source texts of KV memories as a beginning
    that never changes, and the records that answer the question; models and embeddings pass
    through. Answers are streamed as they come. Stop it with Ctrl-C.
    """
    from memcube.proxy.mounting import RECORDS_TOKENS, addition_of, mount_budget
    from memcube.proxy.serving import ProxyServer, require_packages
    from memcube.proxy.upstream import Upstream

    require_packages()
    wanted.require_something()
    overlay = wanted.read_overlay
    key, entrance = _secret(upstream_key_env), serving.entrance()
    with open_client(offline=wanted.offline) as client:
        settings = client.context.settings
        engine = Upstream.parse(upstream, settings, key=key, timeout_s=timeout_s)
        role = settings.profile(wanted.profile) if wanted.profile else None
        asked: Asked = {
            **wanted.asked,
            "budget_tokens": mount_budget(prefix_tokens),
            "leaves_to": (engine.host,),
        }
        memory = client.mount(wanted.cubes, overlay=overlay, **asked)
    # The client's progress bars are gone by now.
    records_tokens = wanted.budget_tokens or (role and role.budget_tokens) or RECORDS_TOKENS
    addition = addition_of(memory, records_tokens)
    with (
        memory,
        ProxyServer(
            engine,
            addition,
            host=serving.host,
            port=serving.port,
            entrance=entrance,
            tell=_tell,
        ) as server,
    ):
        _tell(table_text([(str(s.step), s.kind, s.memory, s.cube, s.why) for s in memory.steps]))
        print(f"Listening on {server.url}, asking {engine.url}", flush=True)
        server.run()
    return Answer({}, "")


def _secret(variable: str | None) -> str | None:
    """The value of an environment variable that somebody names, where one is named.

    Raises:
        InvalidSettingError: it is not set, or holds what no header may.
    """
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value or not value.isascii() or not value.isprintable():
        raise InvalidSettingError(
            f"the variable {variable[:80]} holds no key: it is empty, or not visible ASCII",
            hint="put the key into it, and its name behind the option",
        )
    return value


def _tell(line: str) -> None:
    sys.stderr.write(sanitised(line) + "\n")
