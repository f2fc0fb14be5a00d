"""`memcube cp` between registries of every kind: what goes along, what is moved for it, what is not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import EXIT_CONFLICT, EXIT_INTEGRITY, EXIT_OK, EXIT_TRUST
from support.machine import Machine
from support.proxy import counting_proxy
from support.published import Published
from support.quirky import PASSWORD, USER, Quirks, QuirkyRegistry, quirky
from support.servers import command, run

OLD = Quirks(
    referrers=False,
    mount=False,
    patch_status=201,
    patch_range=False,
    location="relative",
    moving_location=True,
    manifest_head=405,
    digest_header=False,
    type_parameters="; charset=utf-8",
    busy=7,
)
"""A registry that has nothing that it need not have."""
CLOUD = Quirks(location="elsewhere", blob_redirect=True, login="token", token_uses=20, patches=1)
"""One whose blobs lie in an object store, and whose tokens end soon."""
CARELESS = Quirks(digest_check=False)


@dataclass
class Place:
    """A registry where somebody may write to `name`; `machine` has it as its default one."""

    machine: Machine
    host: str
    namespace: str
    foreign: QuirkyRegistry | None = None

    def name(self) -> str:
        return f"{self.namespace}/{fresh('cube')}"


@pytest.fixture
def places(
    request: pytest.FixtureRequest, ada: Person, tmp_path: Path
) -> Iterator[dict[str, Place]]:
    """Registries by kind, of which one machine knows the logins."""
    with ExitStack() as servers:
        found: dict[str, Place] = {}
        for kind, quirks in (("old", OLD), ("cloud", CLOUD), ("careless", CARELESS)):
            foreign = servers.enter_context(quirky(quirks))
            found[kind] = Place(Machine(tmp_path / kind, foreign.url), foreign.host, "ann", foreign)
        url = request.getfixturevalue("reference_registry")
        found["reference"] = Place(
            Machine(tmp_path / "reference", url), url.removeprefix("http://"), "peers"
        )
        found["ours"] = Place(
            Machine(tmp_path / "ours", ada.server.url, ada.token), ada.wire.netloc, ada.name
        )
        for place in found.values():
            login = ("login", found["cloud"].host, "--username", USER, "--token-stdin")
            place.machine.ok(*login, stdin=PASSWORD)
        yield found


@pytest.fixture
def copier(places: dict[str, Place], tmp_path: Path) -> Machine:
    """Somebody who may write everywhere."""
    ours, cloud = places["ours"].machine, places["cloud"]
    machine = Machine(tmp_path / "copier", ours.url, ours.token)
    machine.ok("login", cloud.host, "--username", USER, "--token-stdin", stdin=PASSWORD)
    return machine


def referrers(machine: Machine, host: str, name: str, subject: Digest) -> set[Digest]:
    with machine.client() as client:
        return {one.digest for one in client.context.registry(host).referrers(name, subject)}


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


PATHS = [
    ("ours", "reference"),
    ("reference", "ours"),
    ("ours", "ours"),
    ("reference", "reference"),
    ("old", "cloud"),
    ("cloud", "old"),
    ("ours", "cloud"),
    ("old", "ours"),
    ("cloud", "cloud"),
]


@pytest.mark.parametrize(("source", "target"), PATHS, ids=lambda kind: kind)
def test_a_cube_goes_with_its_builds_and_what_is_attested_to_them(
    source: str, target: str, places: dict[str, Place], copier: Machine, tmp_path: Path
) -> None:
    here, there = places[source], places[target]
    cube = Published(here.machine, here.name(), tmp_path / "cube")
    pushed = Digest.parse(cube.push(picture_bytes=600_000)["digest"])
    build, attested = cube.attach_build()
    name = there.name()
    words = ("cp", f"{here.host}/{cube.name}:1.0.0", f"{there.host}/{name}")
    at_source = referrers(copier, here.host, cube.name, pushed)
    assert build.digest in at_source
    copied = copier.json(*words)
    assert copied["digest"] == str(pushed)
    assert copied["attached"] >= len(at_source) + 1
    # Our registry attaches a countersignature when it comes to it.
    later = referrers(copier, here.host, cube.name, pushed)
    assert at_source <= referrers(copier, there.host, name, pushed) <= later
    assert referrers(copier, there.host, name, build.digest) == {attested.digest}
    assert bytes_below(copier.home / "store") < 50_000, "the store keeps nothing of what passes"
    if source == target:
        assert copied["sentBytes"] == 0, "blobs of the same registry are mounted"
        assert copied["mountedBytes"] > 600_000
    else:
        assert copied["sentBytes"] > 600_000
    pulled = copier.json("pull", f"{there.host}/{name}:1.0.0")
    assert pulled["verdict"]["origin"] == f"{here.host}/{cube.name}"


def test_a_second_copy_writes_nothing(
    places: dict[str, Place], copier: Machine, tmp_path: Path
) -> None:
    here, there = places["reference"], places["old"]
    cube = Published(here.machine, here.name(), tmp_path / "cube")
    cube.push()
    cube.attach_build()
    words = ("cp", f"{here.host}/{cube.name}:1.0.0", f"{there.host}/{there.name()}:stable")
    first = copier.json(*words)
    assert there.foreign
    there.foreign.main.received.clear()
    again = copier.json(*words)
    nothing = {"changed": False, "sentBytes": 0, "mountedBytes": 0}
    assert again == first | nothing
    assert "is there already" in copier.ok(*words)
    methods = {request.method for request in there.foreign.main.received}
    assert methods <= {"GET", "HEAD"}, there.foreign.main.lines()


def test_a_cube_is_copied_by_its_digest_too(
    places: dict[str, Place], copier: Machine, tmp_path: Path
) -> None:
    here, there = places["reference"], places["old"]
    cube = Published(here.machine, here.name(), tmp_path / "cube")
    digest, name = cube.push()["digest"], there.name()
    copied = copier.json("cp", f"{here.host}/{cube.name}@{digest}", f"{there.host}/{name}")
    assert copied["digest"] == digest
    assert copied["reference"] == f"{there.host}/{name}:1.0.0"


def test_builds_stay_where_they_are_not_wanted(
    places: dict[str, Place], copier: Machine, tmp_path: Path
) -> None:
    here, there = places["reference"], places["reference"]
    cube = Published(here.machine, here.name(), tmp_path / "cube")
    pushed = Digest.parse(cube.push()["digest"])
    build, attested = cube.attach_build()
    name, words = there.name(), ("cp", f"{here.host}/{cube.name}:1.0.0")
    copied = copier.json(*words, f"{there.host}/{name}", "--no-builds")
    release_scan_and_files = 3
    assert copied["attached"] == release_scan_and_files
    assert build.digest not in referrers(copier, there.host, name, pushed)
    with copier.client() as client:
        registry = client.context.registry(there.host)
        for absent in (build, attested):
            assert registry.manifest_descriptor(name, str(absent.digest)) is None
    later = copier.json(*words, f"{there.host}/{name}")
    assert later["attached"] == copied["attached"] + 2
    assert referrers(copier, there.host, name, build.digest) == {attested.digest}


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_every_tag_is_copied_as_skopeo_sees_it(
    places: dict[str, Place], copier: Machine, tmp_path: Path
) -> None:
    here, there = places["ours"], places["reference"]
    cube = Published(here.machine, here.name(), tmp_path / "cube")
    for version in ("1.0.0", "1.1.0", "2.0.0-rc.1"):
        cube.push(version)
    here.machine.ok("tag", f"{cube.name}:1.0.0", "stable")
    name = there.name()
    copies = copier.json("cp", "--all-tags", f"{here.host}/{cube.name}", f"{there.host}/{name}")
    credentials = f"{here.namespace}:{here.machine.token}"

    def skopeo(*words: str) -> str:
        done = run(["skopeo", *words])
        assert done.returncode == EXIT_OK, done.stderr
        return str(done.stdout)

    def tags(*words: str) -> set[str]:
        return set(json.loads(skopeo("list-tags", "--tls-verify=false", *words))["Tags"])

    ours = tags("--creds", credentials, f"docker://{here.host}/{cube.name}")
    theirs = {tag for tag in tags(f"docker://{there.host}/{name}") if "sha256-" not in tag}
    assert ours == theirs == {"1.0.0", "1.1.0", "2.0.0-rc.1", "1", "1.0", "1.1", "latest", "stable"}
    assert len(copies["copies"]) == len(ours)
    for tag in ours:
        raw = ("inspect", "--raw", "--tls-verify=false")
        at_source = skopeo(*raw, "--creds", credentials, f"docker://{here.host}/{cube.name}:{tag}")
        assert at_source == skopeo(*raw, f"docker://{there.host}/{name}:{tag}")


def test_a_version_at_the_target_is_not_overwritten_where_the_registry_would_allow_it(
    places: dict[str, Place], copier: Machine, tmp_path: Path
) -> None:
    there, name = places["reference"], places["reference"].name()
    first = Published(places["ours"].machine, places["ours"].name(), tmp_path / "first")
    second = Published(places["ours"].machine, places["ours"].name(), tmp_path / "second")
    for cube in (first, second):
        cube.push()
    host = places["ours"].host
    copier.ok("cp", f"{host}/{first.name}:1.0.0", f"{there.host}/{name}")
    told = copier.fails(EXIT_TRUST, "cp", f"{host}/{second.name}:1.0.0", f"{there.host}/{name}")
    assert f"holds releases of {host}/{first.name}" in told
    ours = places["ours"].machine
    another = Machine(tmp_path / "another", ours.url, ours.token)  # which knows no release of there
    told = another.fails(EXIT_CONFLICT, "cp", f"{host}/{second.name}:1.0.0", f"{there.host}/{name}")
    assert "a version never changes" in told
    with copier.client() as client:
        registry = client.context.registry(there.host)
        at_first = client.context.registry(host).manifest_descriptor(first.name, "1.0.0")
        assert registry.manifest_descriptor(name, "1.0.0") == at_first


@pytest.mark.parametrize("size_bytes", [30_000, 3_000_000])
@pytest.mark.parametrize("target", ["reference", "careless"])
def test_a_source_that_sends_other_bytes_completes_nothing(
    places: dict[str, Place], copier: Machine, tmp_path: Path, size_bytes: int, target: str
) -> None:
    """Also where the target's registry would not notice."""
    here, there = places["old"], places[target]
    cube = Published(here.machine, here.name(), tmp_path / "cube")
    cube.push(picture_bytes=size_bytes)
    assert here.foreign
    blobs = here.foreign.repository(cube.name).blobs
    bad = next(digest for digest, content in blobs.items() if len(content) == size_bytes + 8)
    blobs[bad] = os.urandom(len(blobs[bad]))
    name = there.name()
    copier.fails(EXIT_INTEGRITY, "cp", f"{here.host}/{cube.name}:1.0.0", f"{there.host}/{name}")
    with copier.client() as client:
        registry = client.context.registry(there.host)
        assert registry.blob_size(name, Digest.parse(bad)) is None
        assert registry.manifest_descriptor(name, "1.0.0") is None


def test_a_killed_copy_goes_on_where_it_stopped(
    places: dict[str, Place], copier: Machine, tmp_path: Path
) -> None:
    """The first attempt is killed on its way into our registry, which keeps what has arrived."""
    big_bytes = 24 * limits.MIB
    here, there = places["reference"], places["ours"]
    cube = Published(here.machine, here.name(), tmp_path / "cube")
    pushed = cube.push(picture_bytes=big_bytes)
    port, name = int(there.host.rpartition(":")[2]), there.name()
    with counting_proxy(port, bytes_per_s=10 * limits.MIB) as proxy:
        machine = Machine(copier.home, proxy.url, there.machine.token, own_process=True)
        words = [
            command("memcube"), "cp", f"{here.host}/{cube.name}:1.0.0", name, "--json",
        ]  # fmt: skip
        process = subprocess.Popen(
            words, env=machine.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 60
        while proxy.sent_bytes < big_bytes // 2 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert process.poll() is None, "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with machine.client() as client:
            assert client.context.registry("").manifest_descriptor(name, "1.0.0") is None
        copied = json.loads(machine.ok(*words[1:]))
    assert copied["sentBytes"] < big_bytes * 0.9
    assert copied["digest"] == pushed["digest"]
    reader = replace(machine, home=tmp_path / "reader", url=there.machine.url)
    reader.ok("pull", f"{name}:1.0.0", "--accept-origin", f"{here.host}/{cube.name}")


COPY = """
import re, sys
from pathlib import Path
from memcube.cli.run import run
code = run(["cp", *sys.argv[1:], "--quiet"])
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""
"""Copies, and says how much memory that took at most, in KiB."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the /proc of Linux")
def test_memory_stays_flat_while_a_large_cube_passes(
    places: dict[str, Place], copier: Machine, tmp_path: Path
) -> None:
    here, there = places["reference"], places["ours"]
    peaks = []
    for megabytes in (1, 96):
        cube = Published(here.machine, here.name(), tmp_path / str(megabytes))
        cube.push(picture_bytes=megabytes * limits.MIB)
        words = [sys.executable, "-c", COPY, f"{here.host}/{cube.name}:1.0.0", there.name()]
        done = run(words, env=copier.environment)
        assert done.returncode == EXIT_OK, done.stderr
        peaks.append(int(done.stdout.split()[-1]) * 1024)
    assert peaks[1] - peaks[0] < 24 * limits.MIB, peaks
