"""A memory proxy that runs in this process, on a loopback port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from memcube.client import Client
from memcube.proxy.addition import Addition
from memcube.proxy.mounting import addition_of, mount_budget
from memcube.proxy.serving import ProxyServer
from memcube.proxy.upstream import Upstream
from memcube.serving.guard import Entrance


@dataclass
class Proxied:
    """Where the proxy answers, and what it told."""

    url: str
    told: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])


@contextmanager
def mounted_addition(client: Client, *references: str, **asked: Any) -> Iterator[Addition]:
    """What the cubes at `references` add, mounted as the command does."""
    budget_tokens = mount_budget(prefix_tokens=8192)
    with client.mount(references, budget_tokens=budget_tokens, **asked) as memory:
        yield addition_of(memory)


@contextmanager
def running_proxy(
    upstream: Upstream,
    addition: Addition,
    *,
    token: str | None = None,
    origins: tuple[str, ...] = (),
) -> Iterator[Proxied]:
    entrance = partial(Entrance.of, "127.0.0.1", token=token, origins=origins)
    told: list[str] = []
    with ProxyServer(
        upstream, addition, host="127.0.0.1", port=0, entrance=entrance, tell=told.append
    ) as server:
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            yield Proxied(server.url, told)
        finally:
            server.stop()
            thread.join()
