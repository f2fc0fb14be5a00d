"""A real S3 server of the tests' own: OpenStack Swift with its S3 interface, on loopback, path-style.

Four processes hold one copy of everything in a temporary folder. `stop`, `kill` and `start` end and
begin them again on the same data and the same port, as an operator or a power cut would:

    with swift_server(folder) as s3:
        s3.client().put_object(Bucket=s3.bucket(), Key="key", Body=b"bytes")
"""

from __future__ import annotations

import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from support.servers import clean_environment, free_port, stop_process, wait_for_port

if TYPE_CHECKING:
    from memcube_registry.storage.s3 import Place
    from mypy_boto3_s3 import S3Client

PLACE: Final = Path("/usr/local/lib/swift")
"""Where `.ci/swift` puts it."""

ACCESS_KEY: Final = "test:tester"
SECRET_KEY: Final = "testing"
REGION: Final = "us-east-1"

_KINDS: Final = ("account", "container", "object")
_PROXY: Final = "proxy"

_SWIFT: Final = "[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n"

_COMMON: Final = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = root
swift_dir = {folder}
log_level = WARNING
"""

_DATA_SERVER: Final = """\
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
# A listing must not lag behind: no process here would mend it later.
container_update_timeout = 60
conn_timeout = 10
node_timeout = 60
"""

_PROXY_SERVER: Final = """\
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats s3api tempauth copy slo dlo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 10
node_timeout = 60
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:9
connect_timeout = 0.01
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = {region}
max_upload_part_num = 10000
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
[filter:symlink]
use = egg:swift#symlink
"""

_MAKE_RINGS: Final = """\
import sys
from swift.common.ring import RingBuilder
folder, *ports = sys.argv[1:]
for kind, port in zip(("account", "container", "object"), ports):
    builder = RingBuilder(2, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port),
                     "replication_ip": "127.0.0.1", "replication_port": int(port),
                     "device": "disk", "weight": 1.0})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""


@dataclass
class SwiftServer:
    """An S3 server whose data, settings and log lie in `folder`."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[_PROXY]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables from which boto3 and the AWS command line take the credentials."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Begin, on the data and the port of before if there are any."""
        if not self.ports:
            self._prepare()
        for kind in (*_KINDS, _PROXY):
            with (self.folder / "swift.log").open("ab") as log:
                self.processes.append(
                    subprocess.Popen(
                        [PLACE / "bin" / f"swift-{kind}-server", self._settings(kind), "-v"],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        text=True,
                        env=clean_environment(),
                        start_new_session=True,
                    )
                )
        for port in self.ports.values():
            wait_for_port(port)

    def stop(self) -> None:
        """End it gently."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def client(self) -> S3Client:
        """A client with the server's credentials."""
        return s3_client(self.endpoint_url)

    def place(self, prefix: str = "", **options: Any) -> Place:
        """A fresh bucket, as the registry's store is told of it."""
        from memcube_registry.storage.s3 import Place

        return Place(
            bucket=self.bucket(),
            prefix=prefix,
            endpoint_url=self.endpoint_url,
            region=REGION,
            path_style=True,
            **options,
        )

    def registry_settings(self, **more: str) -> dict[str, str]:
        """Variables for a registry that keeps its blobs in a fresh bucket here."""
        names = {
            "STORAGE": "s3",
            "S3_BUCKET": self.bucket(),
            "S3_ENDPOINT_URL": self.endpoint_url,
            "S3_REGION": REGION,
            "S3_PATH_STYLE": "true",
        } | more
        return self.environment | {
            f"MEMCUBE_REGISTRY_{name}": value for name, value in names.items()
        }

    def bucket(self) -> str:
        """The name of a fresh bucket."""
        name = f"bucket-{secrets.token_hex(6)}"
        self.client().create_bucket(Bucket=name)
        return name

    def log_text(self) -> str:
        return (self.folder / "swift.log").read_text(encoding="utf-8", errors="replace")

    def _end(self, how: signal.Signals) -> None:
        for process in reversed(self.processes):
            stop_process(process, how)
        self.processes.clear()

    def _settings(self, kind: str) -> Path:
        return self.folder / f"{kind}.conf"

    def _prepare(self) -> None:
        (self.folder / "devices" / "disk").mkdir(parents=True)
        (self.folder / "swift.conf").write_text(_SWIFT)
        self.ports = {kind: free_port() for kind in (*_KINDS, _PROXY)}
        for kind, port in self.ports.items():
            form = _COMMON + (_PROXY_SERVER if kind == _PROXY else _DATA_SERVER)
            known = {"folder": self.folder, "region": REGION, "secret": SECRET_KEY}
            self._settings(kind).write_text(form.format(kind=kind, port=port, **known))
        ports = [str(self.ports[kind]) for kind in _KINDS]
        subprocess.run(
            [PLACE / "bin" / "python", "-c", _MAKE_RINGS, self.folder, *ports],
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )


@contextmanager
def swift_server(folder: Path) -> Iterator[SwiftServer]:
    """A running S3 server with its data in `folder`; skips the test where Swift is not installed."""
    require_swift()
    folder.mkdir(exist_ok=True)
    server = SwiftServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def require_swift() -> None:
    """Skip the test where Swift is not installed."""
    if not (PLACE / "bin" / "swift-proxy-server").exists():
        pytest.skip("OpenStack Swift, an S3 server, is not installed (.ci/swift)")


@lru_cache
def s3_client(endpoint_url: str) -> S3Client:
    """A client with the test server's credentials that speaks to `endpoint_url`: the server or a proxy."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}),
    )
