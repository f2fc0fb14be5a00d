"""Names that look like another's, or reach the same registry under another spelling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import Person
from memcube.consuming.policies import explain_name
from memcube.consuming.proofs import judge
from memcube.context import Context
from memcube.settings import Settings
from memcube.trust import Attestation
from memcube.trust.policy import Pattern
from memcube.trust.policy_file import parse
from memcube.trust.proof import Proof
from memcube_protocol import oci
from memcube_protocol.config import CubeConfig
from memcube_protocol.cube import Cube
from memcube_protocol.errors import EXIT_INVALID, MemcubeError
from memcube_protocol.reference import Reference
from memcube_registry.accounts.names import require_account_name
from memcube_signing import referrer
from memcube_signing.authority.document import Delegation, require_authority
from memcube_signing.release import PREDICATE_TYPE, require_origin, sign_release
from support import authority
from support.machine import Machine
from support.signing import CREATED, MALLORY, release

LOOK_ALIKES = {
    "cyrillic": "\u0430lice",
    "full width": "\uff41lice",
    "zero width": "ali\u200bce",
    "soft hyphen": "ali\u00adce",
    "joiner": "ali\u200dce",
    "turned around": "\u202eecila",
    "dotless": "al\u0131ce",
    "combining": "alice\u0301",
    "mathematical": "\U0001d41alice",
    "upper case": "Alice",
    "newline": "alice\n",
    "nul": "alice\x00",
}
EACH = pytest.mark.parametrize("name", LOOK_ALIKES.values(), ids=LOOK_ALIKES)


@EACH
def test_a_look_alike_namespace_is_no_reference(name: str) -> None:
    for text in (f"{name}/notes", f"registry.example/{name}/notes", f"registry.example/{name}"):
        with pytest.raises(MemcubeError):
            Reference.parse(text)


@pytest.mark.parametrize(
    "host",
    ["registry.examp\u212ae", "regi\u017ftry.example", "registry\u2024example", "r\u0435g.example"],
)
def test_a_look_alike_host_is_no_reference(host: str) -> None:
    """The Kelvin sign and the long s become ASCII letters when their case is changed."""
    with pytest.raises(MemcubeError):
        Reference.parse(f"{host}/alice/notes")


@EACH
def test_a_look_alike_namespace_is_no_origin_of_a_release(name: str) -> None:
    with pytest.raises(MemcubeError):
        require_origin(f"registry.example/{name}/notes")


@EACH
def test_a_look_alike_namespace_has_no_key_documents_and_gets_no_delegation(name: str) -> None:
    with pytest.raises(MemcubeError):
        require_authority(f"registry.example/{name}")
    keys = authority.quorum(authority.EVE)
    with pytest.raises(MemcubeError):
        authority.first(delegations=(Delegation("team", (f"registry.example/{name}/*",), keys),))


@EACH
def test_a_look_alike_namespace_stands_in_no_policy(name: str) -> None:
    if name.isprintable():
        with pytest.raises(MemcubeError):
            parse(f'format = 1\n[scopes."registry.example/{name}/**"]\n'.encode())
    with pytest.raises(MemcubeError):
        Pattern(f"registry.example/{name}/**")


@EACH
def test_the_command_line_refuses_a_look_alike_before_it_asks_anybody(
    name: str, tmp_path: Path
) -> None:
    reader = Machine(tmp_path / "home", "http://127.0.0.1:9")
    reader.fails(EXIT_INVALID, "pull", f"{name}/notes")


@EACH
def test_a_registry_gives_nobody_a_look_alike_name(name: str, ada: Person) -> None:
    with pytest.raises(MemcubeError):
        require_account_name(name)
    reply = ada.wire.post(f"/v2/{quote(name)}/notes/blobs/uploads/")
    assert reply.status in (400, 404), reply


@pytest.mark.parametrize("twin", ["{0[0]}-{1}", "{0[0]}_{1}"])
def test_a_registry_gives_nobody_a_name_that_the_eye_confuses(twin: str, ada: Person) -> None:
    name = twin.format(ada.name, ada.name[1:])
    done = ada.server.admin("account", "create", name, check=False)
    assert done.returncode != 0
    assert f"looks like '{ada.name}'" in done.stderr


POLICY = 'format = 1\n[scopes."registry.example/**"]\npublishers = []\n'


@pytest.fixture
def careful(tmp_path: Path) -> Context:
    """Somebody whose policy forbids everything of one registry."""
    (tmp_path / "memcube-trust.toml").write_text(POLICY)
    settings = {"MEMCUBE_HOME": str(tmp_path), "MEMCUBE_ENDPOINT": "https://registry.example"}
    return Context(Settings.load(settings))


@pytest.mark.parametrize(
    "host", ["registry.example", "registry.example:443", "REGISTRY.example", "Registry.Example:443"]
)
def test_another_spelling_of_a_registry_is_not_outside_of_its_policy(
    careful: Context, host: str
) -> None:
    """`memcube pull registry.example:443/eve/evil`, as a page of the attacker's says."""
    explained = explain_name(careful, Reference.parse(f"{host}/eve/evil"))
    assert explained.terms.publishers == ()
    assert explained.location == "registry.example/eve/evil"


@pytest.mark.parametrize(
    "host",
    [
        "registry.example:0443",
        "127.1",
        "127.1:5000",
        "0x7f.0.0.1",
        "127.0.0.01:80",
        "[::0001]:5000",
    ],
)
def test_another_spelling_of_an_address_or_port_is_refused(host: str) -> None:
    with pytest.raises(MemcubeError):
        Reference.parse(f"{host}/eve/evil")


def test_a_policy_cannot_be_written_about_a_spelling_that_no_name_has() -> None:
    with pytest.raises(MemcubeError):
        Pattern("registry.example:443/alice/**")


def test_a_proof_under_another_spelling_is_not_outside_of_the_policy(careful: Context) -> None:
    """The file names its cube itself: its registry is the one that the policy forbids."""
    origin = "registry.example:443/eve/evil"
    config = CubeConfig("eve/evil", "1.0.0", CREATED)
    cube = Cube.write(config, [])
    said = release(MALLORY, origin=origin, subject=cube.digest)
    bundle = sign_release(said, MALLORY)
    about = referrer.write(bundle, PREDICATE_TYPE, cube.manifest.descriptor(), MALLORY.public_key)
    proof = Proof(
        Reference.parse(f"{origin}:1.0.0"),
        oci.parse_manifest(cube.manifest.raw),
        config.write(),
        (Attestation(about, bundle.raw),),
        CREATED,
    )
    verdict = judge(careful, proof)
    assert verdict.standing == "refused"
    elsewhere = replace(proof, reference=Reference.parse("other.example/eve/evil:1.0.0"))
    assert judge(careful, elsewhere).standing == "refused"
