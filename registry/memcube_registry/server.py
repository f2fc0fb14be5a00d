"""Runs the application under granian: one parent process that watches the workers.

Settings reach the workers through the environment, so that they need nothing of the parent's.
"""

from __future__ import annotations

import codecs
import ctypes
import gc
import http.client
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol import limits
from memcube_protocol.errors import StorageError, UnavailableError

from memcube_registry.backups.restores import require_complete
from memcube_registry.rates import mapped
from memcube_registry.scratch import scratch_folder
from memcube_registry.settings import (
    BUCKETS_VARIABLE,
    CONFIG_VARIABLE,
    DRAIN_VARIABLE,
    Settings,
    load,
    to_environment,
)

if TYPE_CHECKING:
    from granian.server import MPServer
    from litestar import Litestar

TARGET: Final = "memcube_registry.server:application"
_START_TIMEOUT_S: Final = 120
_POLL_S: Final = 0.02


_MALLOC: Final = {-3: 32 * limits.MIB, -1: 256 * limits.MIB, -2: 16 * limits.MIB}
"""mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD."""
_PR_SET_PDEATHSIG: Final = 1
"""prctl(2)"""


def application() -> Litestar:
    """The application as a worker process makes it."""
    _end_with_parent()
    _keep_freed_memory()
    with _no_garbage():
        from memcube_registry.app import create_app

        made = create_app(load(os.environ))
        gc.collect()
    return made


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Make what lives as long as the process: it is never looked through for garbage, also not later.

    Looking takes a quarter of the time in which a process starts.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _end_with_parent() -> None:
    """Ask Linux to kill this worker when its parent dies, however it dies.

    A worker without a parent would hold the port for ever, and no new parent could begin.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return  # other systems have no such call
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        os._exit(1)  # it died before the call


def _keep_freed_memory() -> None:
    """Tell glibc to use freed memory again: each piece of an upload would else be mapped anew."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library has its own ways
    for parameter, size in _MALLOC.items():
        mallopt(parameter, size)


def prepare(settings: Settings) -> None:
    """Make the data folder, the keys and the database's tables where they are missing.

    Raises:
        StorageError: the data folder cannot be made.
        UnavailableError: the database does not answer.
        ConflictError: a restore into the data folder is not complete.
    """
    from memcube_registry.accounts.handshake import load_key
    from memcube_registry.database import Database

    require_complete(settings.data_dir)
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the data folder {settings.data_dir} cannot be made: {error}",
            hint="name another one with --data",
        ) from error
    load_key(settings.token_key_file)
    load_key(settings.log_key_file)
    load_key(settings.countersigning_key_file)
    with closing(Database.of(settings)) as database:
        database.migrate()


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests that are running then are finished first.

    Raises:
        UnavailableError: the address cannot be listened on.
    """
    settings = replace(settings, port=_free_port(settings))
    with scratch_folder() as scratch:
        _set_environment(settings, scratch)
        with _no_garbage():
            server = _prepared_server(settings)
        server.on_startup(lambda: drain_first(server, settings.drain_s))
        # A worker that is forked while the announcer imports this codec could never import it.
        codecs.lookup("idna")
        announcer = threading.Thread(target=_announce, args=(settings,), daemon=True)
        server.on_startup(announcer.start)
        server.serve()


def _prepared_server(settings: Settings) -> MPServer:
    """The server, its log set up and all there that it needs."""
    # After the environment is set: the metrics library looks there once, when it is imported.
    from memcube_registry.observability.requests import configure_logging

    configure_logging(settings.log_format, settings.log_level)
    prepare(settings)
    return _server(settings)


def _server(settings: Settings) -> MPServer:
    from granian.constants import Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels
    from granian.server import MPServer

    return MPServer(
        TARGET,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        factory=True,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.header_timeout_s * 1000)),
        respawn_failed_workers=True,
        workers_kill_timeout=settings.shutdown_grace_s,
        log_level=LogLevels.warning,
        log_dictconfig=_LOG_CONFIG,
    )


_LOG_CONFIG: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"_granian": {"handlers": [], "level": "WARNING", "propagate": True}},
}
"""Leaves granian's own messages to the handlers that `configure_logging` sets up."""


def _set_environment(settings: Settings, scratch: Path) -> None:
    os.environ.pop(CONFIG_VARIABLE, None)
    os.environ.update(to_environment(settings))
    os.environ[DRAIN_VARIABLE] = str(scratch / "draining")
    if settings.workers > 1:
        mapped.make(scratch / "rates")
        os.environ[BUCKETS_VARIABLE] = str(scratch / "rates")
        figures = scratch / "metrics"
        figures.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(figures)


def drain_first(server: MPServer, drain_s: float) -> None:
    """Let readiness fail for `drain_s` before a SIGTERM ends the server: balancers go elsewhere.

    A second SIGTERM ends it at once, as a crash would: what was acknowledged is on the disk.
    """
    mark, parent = Path(os.environ[DRAIN_VARIABLE]), os.getpid()
    stop: Callable[[], None] = server.signal_handler_interrupt

    def drain(_number: int, _frame: Any) -> None:
        if os.getpid() != parent:
            os._exit(0)  # a worker that is still starting: it answers nobody yet
        if mark.exists():
            stop()
            for worker in server.wrks:
                worker.kill()  # type: ignore[no-untyped-call]  # it has no annotations
            return
        mark.touch()
        timer = threading.Timer(drain_s, stop)
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, drain)


def _free_port(settings: Settings) -> int:
    """The port to listen on, known to be free a moment ago."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {settings.host} port {settings.port}: {error.strerror}",
                hint="stop what listens there, or use --port 0 for a free port",
            ) from error
        port: int = probe.getsockname()[1]
        return port


def _announce(settings: Settings) -> None:
    """Print where the registry is, once it answers; warn if its blobs or its database do not."""
    local = replace(settings, external_url="")
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if _answers(local):
            also = f" as {settings.url}" if settings.external_url else ""
            sys.stdout.write(
                f"memcube registry at {local.url}{also}, data in {settings.data_dir}\n"
            )
            sys.stdout.flush()
            _warn_if_not_ready(local)
            return
        time.sleep(_POLL_S)


def _warn_if_not_ready(settings: Settings) -> None:
    """Log why a registry that was just started cannot work: a wrong bucket shows now, not at the first push."""
    from memcube_registry.observability.requests import log

    with closing(http.client.HTTPConnection(settings.service, timeout=_START_TIMEOUT_S)) as asked:
        try:
            asked.request("GET", "/readyz")
            answer = asked.getresponse()
            told = {} if answer.status == 200 else json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            told = {"detail": f"/readyz gave no answer: {type(error).__name__}"}
    if told:
        log.warning("not ready", reason=told.get("detail"), hint=told.get("hint"))


def _answers(settings: Settings) -> bool:
    with closing(http.client.HTTPConnection(settings.service, timeout=5)) as connection:
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
