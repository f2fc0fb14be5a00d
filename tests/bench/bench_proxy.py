"""What the memory proxy adds to a request: against the engine asked without it, over loopback."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.proxy.addition import Addition
from memcube.proxy.upstream import Upstream
from memcube.settings import Settings
from support.engine import running_engine
from support.kv import kv_folder
from support.measuring import report
from support.proxied import mounted_addition, running_proxy

ROUNDS = 200
RECORDS = (100, 10_000)
PREFIX_CHARS = 24_000
MESSAGES = [{"role": "user", "content": "Where does copy number seven of the archive lie?"}]


def asked(base_url: str, *, stream: bool) -> list[float]:
    """Seconds to the whole answer, or to the first byte of a stream, of each round."""
    host, _, path = base_url.removeprefix("http://").partition("/")
    line = http.client.HTTPConnection(host)
    body = json.dumps({"messages": MESSAGES, "stream": stream}).encode()
    took = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        headers = {"content-type": "application/json"}
        line.request("POST", f"/{path}/chat/completions", body, headers)
        answer = line.getresponse()
        if stream:
            answer.read(1)
            took.append(time.perf_counter() - begun)
        answer.read()
        if not stream:
            took.append(time.perf_counter() - begun)
    line.close()
    return took


def row(name: str, base_url: str) -> list[object]:
    asked(base_url, stream=False)
    whole, first = asked(base_url, stream=False), asked(base_url, stream=True)
    figures = (median(whole), quantiles(whole, n=100)[98], median(first))
    return [name, *(round(seconds * 1000, 2) for seconds in figures)]


def test_what_the_proxy_adds(tmp_path: Path) -> None:
    rows = []
    with ExitStack() as undo:
        engine = undo.enter_context(running_engine())
        upstream = Upstream(engine.url)
        rows.append(row("the engine alone", engine.url))
        nothing = undo.enter_context(running_proxy(upstream, Addition("", lambda _: "")))
        rows.append(row("proxy without memory", nothing.url))
        settings = Settings.load({"MEMCUBE_HOME": str(tmp_path / "home")})
        client = undo.enter_context(Client(settings))
        for count in RECORDS:
            dumper = MemDumper(tmp_path / f"cube-{count}", name=f"alice/c{count}", version="1.0.0")
            dumper.add_records(f"Copy number {one} of archive {one % 97}." for one in range(count))
            kv_folder(dumper.folder, "x" * PREFIX_CHARS)
            client.pack(dumper.folder)
            addition = undo.enter_context(mounted_addition(client, f"alice/c{count}"))
            proxied = undo.enter_context(running_proxy(upstream, addition))
            rows.append(
                row(f"proxy, {count} records, a text of {PREFIX_CHARS} characters", proxied.url)
            )
    columns = ["asked through", "request p50 ms", "request p99 ms", "first byte p50 ms"]
    report("proxy", f"Memory proxy, {ROUNDS} requests each over loopback", columns, rows)
