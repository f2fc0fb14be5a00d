"""`memcube mirror`: a namespace followed into another registry, round after round."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Person, fresh
from memcube.mirroring.journal import Journal
from memcube_protocol import limits, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    EXIT_CONFLICT,
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_TRUST,
)
from support.machine import Machine
from support.proxy import counting_proxy
from support.published import Published
from support.quirky import Quirks, QuirkyRegistry, quirky
from support.repository import Repository
from support.servers import command, first_line, run, stop_process
from support.wire import Wire


@pytest.fixture
def foreign() -> Iterator[QuirkyRegistry]:
    """A registry that has neither the referrers API nor a list of tags with digests."""
    with quirky(Quirks(referrers=False, tags_page=2)) as registry:
        yield registry


@pytest.fixture
def publisher(foreign: QuirkyRegistry, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "publisher", foreign.url)


@pytest.fixture
def copier(reference_registry: str, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "copier", reference_registry)


@pytest.fixture
def target(reference_registry: str) -> str:
    """A namespace at the reference registry that nobody has used."""
    return f"{reference_registry.removeprefix('http://')}/{fresh('mirror')}"


@pytest.fixture
def publish(publisher: Machine, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Publishes a version of a cube in the namespace `alice`."""

    def push(name: str, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
        return Published(publisher, f"alice/{name}", tmp_path / name).push(version, **more)

    return push


def mirrored(machine: Machine, *words: str, code: int = 0) -> dict[str, Any]:
    """What a round says, which has to end with `code`."""
    done = machine.run("mirror", *words, "--json")
    assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def fates(answer: dict[str, Any]) -> dict[str, str]:
    return {f"{row['name']}:{row['tag']}": row["fate"] for row in answer["versions"]}


def counts(answer: dict[str, Any]) -> dict[str, int]:
    return {fate: count for fate, count in answer["counts"].items() if count}


def repository_at(target: str, name: str) -> Repository:
    host, _, namespace = target.partition("/")
    return Repository(Wire(f"http://{host}"), f"{namespace}/{name}")


def test_every_cube_and_version_is_copied_once(
    foreign: QuirkyRegistry,
    publisher: Machine,
    publish: Callable[..., Any],
    copier: Machine,
    target: str,
    tmp_path: Path,
) -> None:
    digests = {
        (name, version): publish(name, version)["digest"]
        for name, version in (("notes", "1.0.0"), ("notes", "1.1.0"), ("diary", "0.1.0"))
    }
    build, attested = Published(publisher, "alice/notes", tmp_path / "notes").attach_build("1.0.0")
    words = (f"{foreign.host}/alice", target)
    first = mirrored(copier, *words)
    assert counts(first) == {"copied": len(first["versions"])}
    for (name, version), digest in digests.items():
        manifest = repository_at(target, name).get_manifest(version)
        assert str(Digest.of(manifest.body)) == digest
        assert fates(first)[f"alice/{name}:{version}"] == "copied"
    listed = repository_at(target, "notes").get_manifest(str(build.digest).replace(":", "-"))
    assert [one["digest"] for one in listed.json()["manifests"]] == [str(attested.digest)]
    reader = Machine(tmp_path / "reader", f"http://{target.partition('/')[0]}")
    pulled = reader.json(
        "pull", f"{target}/notes:1.0.0", "--accept-origin", f"{foreign.host}/alice/notes"
    )
    assert pulled["verdict"]["origin"] == f"{foreign.host}/alice/notes"
    again = mirrored(copier, *words)
    assert counts(again) == {"unchanged": len(first["versions"])}
    assert again["sentBytes"] == 0


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_sees_the_same_tags_and_manifests(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    for version in ("1.0.0", "1.1.0"):
        publish("notes", version)
    mirrored(copier, f"{foreign.host}/alice", target)

    def skopeo(*words: str) -> str:
        done = run(["skopeo", *words])
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def tags(place: str) -> set[str]:
        found = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{place}"))["Tags"]
        return {tag for tag in found if not tag.startswith("sha256-")}

    source, copy = f"{foreign.host}/alice/notes", f"{target}/notes"
    assert tags(source) == tags(copy) == {"1.0.0", "1.1.0", "1", "1.0", "1.1", "latest"}
    raw = ("inspect", "--raw", "--tls-verify=false")
    for tag in tags(source):
        assert skopeo(*raw, f"docker://{source}:{tag}") == skopeo(*raw, f"docker://{copy}:{tag}")


def test_a_second_round_asks_the_source_little_and_the_target_less(
    foreign: QuirkyRegistry, publish: Callable[..., Any], tmp_path: Path
) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        publish("notes", version)
    with quirky() as other:
        copier = Machine(tmp_path / "copier", other.url)
        words = (f"{foreign.host}/alice", f"{other.host}/copy")
        first = mirrored(copier, *words)
        for registry in (foreign, other):
            registry.main.received.clear()
        assert counts(mirrored(copier, *words)) == {"unchanged": len(first["versions"])}
        assert {one.method for one in foreign.main.received} <= {"GET", "HEAD"}
        # Two for the list, a page for two tags, one for each tag, two for what refers to each version.
        tags, versions = len(first["versions"]), 3
        listed_too = tags + versions
        assert len(foreign.main.received) <= 3 + listed_too / 2 + 1 + tags + 2 * versions
        assert other.main.lines() == ["GET /v2/copy/notes/tags/list"]


def test_our_registry_is_asked_once_a_cube_and_once_a_version(
    ada: Person, foreign: QuirkyRegistry, tmp_path: Path
) -> None:
    with counting_proxy(ada.server.port) as proxy:
        publisher = Machine(tmp_path / "publisher", proxy.url, ada.token)
        cube = Published(publisher, f"{ada.name}/{fresh('cube')}", tmp_path / "cube")
        cube.push("1.0.0")
        cube.push("1.1.0")
        only = ("--cube", cube.name.partition("/")[2])
        words = (f"127.0.0.1:{proxy.port}/{ada.name}", f"{foreign.host}/copy", *only)
        mirrored(publisher, *words)
        # Countersignatures come when the registry finds the time.
        wait_for(lambda: counts(mirrored(publisher, *words)) == {"unchanged": 6})
        proxy.reset()
        mirrored(publisher, *words)
        asked = proxy.without_tokens()
    assert len([line for line in asked if "/referrers/" in line]) == 2
    assert len([line for line in asked if "/api/v1/tags/" in line]) == 1
    assert len([line for line in asked if "/api/v1/cubes" in line]) == 1
    assert len(asked) == 4


def test_who_may_read_the_copies_is_said_after_one_list_of_the_targets_tags(
    ada: Person, foreign: QuirkyRegistry, publish: Callable[..., Any], tmp_path: Path
) -> None:
    name = fresh("notes")
    publish(name)
    with counting_proxy(ada.server.port) as proxy:
        copier = Machine(tmp_path / "copier", proxy.url, ada.token)
        words = (f"{foreign.host}/alice", f"127.0.0.1:{proxy.port}/{ada.name}", "--cube", name)
        for _round in (1, 2):
            proxy.reset()
            mirrored(copier, *words, "--public")
            listed = f"GET /v2/{ada.name}/{name}/tags/list"
            assert [line for line in proxy.without_tokens() if "tags/list" in line] == [listed]
    assert ada.wire.anonymous().get(f"/api/v1/tags/{ada.name}/{name}").status == 200


def test_within_one_registry_everything_is_mounted(
    foreign: QuirkyRegistry, publish: Callable[..., Any], tmp_path: Path
) -> None:
    publish("notes", picture_bytes=300_000)
    publish("diary", picture_bytes=300_000)
    copier = Machine(tmp_path / "copier", foreign.url)
    answer = mirrored(copier, f"{foreign.host}/alice", f"{foreign.host}/copy")
    assert counts(answer) == {"copied": len(answer["versions"])}
    assert answer["sentBytes"] == 0
    for name in ("notes", "diary"):
        source, copy = (foreign.repository(f"{place}/{name}") for place in ("alice", "copy"))
        assert copy.blobs == source.blobs
        assert {tag for tag in source.tags if "sha256-" not in tag} <= set(copy.tags)


def test_what_is_new_is_followed(
    foreign: QuirkyRegistry,
    publisher: Machine,
    publish: Callable[..., Any],
    copier: Machine,
    target: str,
    tmp_path: Path,
) -> None:
    publish("notes")
    words = (f"{foreign.host}/alice", target)
    mirrored(copier, *words)
    publish("notes", "1.1.0")
    publish("diary")
    build, _ = Published(publisher, "alice/notes", tmp_path / "notes").attach_build("1.0.0")
    found = fates(mirrored(copier, *words))
    assert found["alice/notes:1.1.0"] == found["alice/diary:1.0.0"] == "copied"
    assert found["alice/notes:1.0.0"] == "copied", "a build was added"
    assert repository_at(target, "notes").get_manifest(build.digest).status == 200
    latest = repository_at(target, "notes").get_manifest("latest").body
    assert latest == repository_at(target, "notes").get_manifest("1.1.0").body


def test_patterns_choose_cubes_and_tags(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    for name, version in (("notes-a", "1.0.0"), ("notes-a", "2.0.0"), ("diary", "1.0.0")):
        publish(name, version)
    chosen = ("--cube", "notes-*", "--tag", "1.*", "--tag", "latest")
    answer = mirrored(copier, f"{foreign.host}/alice", target, *chosen)
    wanted = ("1.0.0", "1.0", "latest")
    assert fates(answer) == {f"alice/notes-a:{tag}": "copied" for tag in wanted}
    # A tag that moves brings the version along that it leads to.
    assert repository_at(target, "notes-a").get_manifest("2.0.0").status == 200
    assert repository_at(target, "notes-a").get_manifest("2").status == 404
    assert repository_at(target, "diary").get_manifest("1.0.0").status == 404


def test_what_nobody_signed_is_reported_and_the_rest_copied(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    publish("notes")
    unsigned = Digest.parse(publish("bare")["digest"])
    repository = foreign.repository("alice/bare")
    del repository.tags[f"sha256-{unsigned.hex}"]
    answer = mirrored(copier, f"{foreign.host}/alice", target, code=EXIT_TRUST)
    found = fates(answer)
    assert found["alice/bare:1.0.0"] == "refused"
    assert found["alice/notes:1.0.0"] == "copied"
    assert repository_at(target, "bare").get_manifest("1.0.0").status == 404
    warned = mirrored(copier, f"{foreign.host}/alice", target, "--trust", "warn")
    assert fates(warned)["alice/bare:1.0.0"] == "copied"


def test_what_is_no_cube_is_skipped(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    publish("notes")
    image = oci.write_manifest(
        artifact_type="application/vnd.example.image",
        config=oci.EMPTY,
        layers=[],
    )
    repository = foreign.repository("alice/image")
    repository.blobs[str(oci.EMPTY.digest)] = b"{}"
    repository.manifests[str(image.digest)] = (image.media_type, image.raw)
    repository.tags["1.0.0"] = str(image.digest)
    answer = mirrored(copier, f"{foreign.host}/alice", target)
    assert fates(answer)["alice/image:1.0.0"] == "skipped"


def test_a_version_that_changes_at_the_source_is_an_alarm(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    publish("notes", "1.0.0")
    publish("notes", "1.1.0")
    mirrored(copier, f"{foreign.host}/alice", target)
    before = repository_at(target, "notes").get_manifest("1.0.0").body
    repository = foreign.repository("alice/notes")
    repository.tags["1.0.0"] = repository.tags["1.1.0"]
    answer = mirrored(copier, f"{foreign.host}/alice", target, code=EXIT_CONFLICT)
    assert fates(answer)["alice/notes:1.0.0"] == "alarm"
    assert repository_at(target, "notes").get_manifest("1.0.0").body == before
    told = copier.run("mirror", f"{foreign.host}/alice", target, "--quiet")
    assert told.stdout == "alarm alice/notes:1.0.0\n"


def test_a_version_that_the_target_has_otherwise_is_an_alarm(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    """Also for a mirror that has lost its journal."""
    publish("notes", "1.0.0")
    publish("notes", "1.1.0")
    mirrored(copier, f"{foreign.host}/alice", target)
    there = repository_at(target, "notes")
    other = there.get_manifest("1.1.0").body
    assert there.put_manifest("1.0.0", other).status == 201
    shutil.rmtree(copier.home / "mirrors")
    answer = mirrored(copier, f"{foreign.host}/alice", target, "--tag", "1.0.0", code=EXIT_CONFLICT)
    assert fates(answer)["alice/notes:1.0.0"] == "alarm"
    assert there.get_manifest("1.0.0").body == other


def test_what_is_gone_stays_unless_it_is_to_be_pruned(
    foreign: QuirkyRegistry, publish: Callable[..., Any], tmp_path: Path
) -> None:
    publish("notes", "1.0.0")
    publish("notes", "1.1.0")
    publish("diary")
    with quirky() as other:
        copier = Machine(tmp_path / "copier", other.url)
        words = (f"{foreign.host}/alice", f"{other.host}/copy")
        mirrored(copier, *words)
        del foreign.repository("alice/notes").tags["1.0.0"]
        del foreign.repositories["alice/diary"]
        copies, own = other.repository("copy/notes"), other.repository("copy/own")
        own.tags["1.0.0"] = copies.tags["1.0.0"]
        kept = fates(mirrored(copier, *words))
        assert kept["alice/notes:1.0.0"] == kept["alice/diary:1.0.0"] == "kept"
        assert "1.0.0" in copies.tags
        other.repository("copy/diary").tags["latest"] = "sha256:" + "0" * 64
        other.repository("copy/diary").manifests["sha256:" + "0" * 64] = ("text/plain", b"{}")
        pruned = fates(mirrored(copier, *words, "--prune"))
        assert pruned["alice/notes:1.0.0"] == pruned["alice/diary:1.0.0"] == "pruned"
        assert pruned["alice/diary:latest"] == "kept", "it is not what was copied"
        assert "1.0.0" not in copies.tags
        assert "1.1.0" in copies.tags
        assert own.tags, "what the mirror did not make is not its to remove"
        assert "alice/notes:1.0.0" not in fates(mirrored(copier, *words, "--prune"))


def test_a_registry_that_deletes_no_tags_makes_a_prune_fail(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    publish("notes", "1.0.0")
    publish("notes", "1.1.0")
    mirrored(copier, f"{foreign.host}/alice", target)
    del foreign.repository("alice/notes").tags["1.0.0"]
    done = copier.run("mirror", f"{foreign.host}/alice", target, "--prune", "--json")
    assert done.returncode != 0
    assert fates(json.loads(done.stdout))["alice/notes:1.0.0"] == "failed"
    assert repository_at(target, "notes").get_manifest("1.0.0").status == 200


def test_a_source_that_lists_nothing_prunes_nothing(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    publish("notes")
    mirrored(copier, f"{foreign.host}/alice", target)
    foreign.repositories.clear()
    answer = mirrored(copier, f"{foreign.host}/alice", target, "--prune")
    assert set(fates(answer).values()) == {"kept"}
    assert repository_at(target, "notes").get_manifest("1.0.0").status == 200


def test_a_private_namespace_is_followed_with_a_token(
    ada: Person, bob: Person, foreign: QuirkyRegistry, tmp_path: Path
) -> None:
    owner = Machine(tmp_path / "owner", ada.server.url, ada.token)
    cube = Published(owner, f"{ada.name}/{fresh('private')}", tmp_path / "cube")
    cube.push()
    short = cube.name.partition("/")[2]
    words = (f"{ada.wire.netloc}/{ada.name}", f"{foreign.host}/copy", "--cube", short)
    stranger = Machine(tmp_path / "stranger", bob.server.url, bob.token)
    assert mirrored(stranger, *words)["versions"] == []
    nobody = Machine(tmp_path / "nobody", ada.server.url)
    assert "memcube login" in nobody.ok("mirror", *words)
    assert fates(mirrored(owner, *words))[f"{cube.name}:1.0.0"] == "copied"


def test_a_killed_mirror_goes_on_where_it_stopped(
    foreign: QuirkyRegistry, publish: Callable[..., Any], ada: Person, tmp_path: Path
) -> None:
    big_bytes = 12 * limits.MIB
    for number in range(3):
        publish(f"cube-{number}", picture_bytes=big_bytes)
    with counting_proxy(ada.server.port, bytes_per_s=20 * limits.MIB) as proxy:
        copier = Machine(tmp_path / "copier", proxy.url, ada.token, own_process=True)
        words = [f"{foreign.host}/alice", f"127.0.0.1:{proxy.port}/{ada.name}", "--parallel", "1"]
        process = subprocess.Popen(
            [command("memcube"), "mirror", *words],
            env=copier.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 90
        while proxy.sent_bytes < 1.5 * big_bytes and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert process.poll() is None, "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        answer = mirrored(copier, *words)
    found = fates(answer)
    assert found["alice/cube-0:1.0.0"] == "unchanged"
    assert found["alice/cube-1:1.0.0"] == found["alice/cube-2:1.0.0"] == "copied"
    assert big_bytes < answer["sentBytes"] < 2 * big_bytes, "the second cube went on in the middle"


def test_two_mirrors_of_the_same_namespaces_do_not_run_at_once(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    publish("notes")
    with Journal.open(copier.home / "mirrors", f"{foreign.host}/alice", target):
        told = copier.fails(EXIT_CONFLICT, "mirror", f"{foreign.host}/alice", target)
    assert "this mirror has been in use by another process" in told


def test_an_interval_follows_until_it_is_interrupted(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    publish("notes")
    process = subprocess.Popen(
        [command("memcube"), "mirror", f"{foreign.host}/alice", target, "--interval", "1s"],
        env=copier.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert first_line(process, 90).split()[:3] == ["CUBE", "TAG", "FATE"]
        assert repository_at(target, "notes").get_manifest("1.0.0").status == 200
        publish("notes", "1.1.0")
        wait_for(lambda: repository_at(target, "notes").get_manifest("1.1.0").status == 200)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == EXIT_INTERRUPTED
    finally:
        stop_process(process)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    "words",
    [
        ("a.example/alice:1.0.0", "b.example/bob"),
        ("a.example/alice", "a.example/alice/copy"),
        ("a.example/alice/sub", "a.example/alice"),
        ("a.example/alice", "a.example/alice"),
    ],
)
def test_namespaces_that_cannot_be_mirrored_are_refused(
    words: tuple[str, str], copier: Machine
) -> None:
    copier.fails(8, "mirror", *words)


def test_failures_of_several_kinds_end_with_the_general_code(
    foreign: QuirkyRegistry, publish: Callable[..., Any], copier: Machine, target: str
) -> None:
    publish("notes", "1.0.0")
    publish("notes", "1.1.0")
    unsigned = Digest.parse(publish("bare")["digest"])
    mirrored(copier, f"{foreign.host}/alice", target, "--cube", "notes")
    foreign.repository("alice/notes").tags["1.0.0"] = foreign.repository("alice/notes").tags[
        "1.1.0"
    ]
    del foreign.repository("alice/bare").tags[f"sha256-{unsigned.hex}"]
    done = copier.run("mirror", f"{foreign.host}/alice", target)
    assert done.returncode == EXIT_ERROR
    assert "CUBE" in done.stdout
    assert "refused" in done.stdout
    assert "alarm" in done.stdout
