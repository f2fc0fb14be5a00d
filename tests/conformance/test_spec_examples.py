"""The examples of the specification are what they claim to be."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from memcube.packing.draft import Draft
from memcube.trust.decision import RULES
from memcube_protocol import canonical_json, media_types, parametric, rules, text
from memcube_protocol.activation import KvManifest
from memcube_protocol.build import Made, read_config
from memcube_protocol.config import CubeConfig
from memcube_protocol.content import Blocks
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidJsonError
from memcube_protocol.fields import Fields
from memcube_protocol.governance import Governance
from memcube_protocol.records import parse_record, write_record
from memcube_protocol.reference import RESERVED_NAMESPACES, Reference
from memcube_protocol.tensors import Header, parse_header
from memcube_signing import release, statement
from memcube_signing.authority import document
from memcube_signing.keys import PrivateKey, PublicKey
from memcube_signing.predicates import status

SPEC = Path(__file__).parents[2] / "docs/spec"


def examples(page: str, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", (SPEC / page).read_text("utf-8"), re.DOTALL)
    assert found, page
    return [_filled(example) for example in found]


def _filled(example: str) -> str:
    """An example whose shortened hashes have all of their digits, and whose shortened keys are keys."""
    keys = iter(sorted(map(_key, range(1, 9)), key=lambda key: key.id))
    digits = re.sub(r"([0-9a-f]{4})[0-9a-f]*…", lambda found: found[1] * 16, example)
    digits = re.sub(r"(sha256|mip1-base):…", rf"\1:{Digest.of(b'').hex}", digits)
    return re.sub(r"MFkwEwYH…", lambda _: base64.b64encode(next(keys).der).decode(), digits)


def _key(number: int) -> PublicKey:
    return PrivateKey(ec.derive_private_key(number, ec.SECP256R1())).public_key


def test_the_release_is_one() -> None:
    said = statement.parse(examples("statements.md", "json")[0].encode())
    found = release.from_statement(said)
    assert found.to_statement().to_bytes() == said.to_bytes()


def test_the_rules_of_the_decision_are_those_of_the_code() -> None:
    page = (SPEC / "statements.md").read_text("utf-8")
    table = page.partition("| rule | passes when |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE)) == RULES


def test_the_status_is_one() -> None:
    said = statement.parse(examples("attestations.md", "json")[0].encode())
    assert status.read(said).to_statement().to_bytes() == said.to_bytes()


def test_the_key_document_is_one() -> None:
    example = json.loads(examples("keys.md", "json")[0])
    (subject,) = example["subject"]
    named = hashlib.sha256(subject["name"].encode()).hexdigest()
    assert named.startswith(subject["digest"]["sha256"][:4])
    subject["digest"]["sha256"] = named
    said = statement.parse(canonical_json.dump(example))
    assert document.from_statement(said).to_statement().to_bytes() == said.to_bytes()


def test_how_the_build_was_made_is_read() -> None:
    made = json.loads(examples("build.md", "json")[1])
    assert Made.from_fields(Fields(made, "made")).to_json() == made


def test_the_record_is_canonical() -> None:
    line = examples("records.md", "json")[0].strip().encode()
    assert write_record(parse_record(line, canonical=True)) == line


def test_the_config_is_read_and_holds_no_defaults() -> None:
    raw = canonical_json.dump(json.loads(examples("config.md", "json")[0]))
    assert CubeConfig.parse(raw).write() == raw


def test_the_folder_s_toml_is_read() -> None:
    draft = Draft.parse(examples("folder.md", "toml")[0].encode())
    assert draft.titles.keys() == {"plaintext"}


def test_the_manifest_has_the_media_types_of_a_cube() -> None:
    value = json.loads(examples("cube.md", "json")[0])
    assert value["artifactType"] == media_types.CUBE
    assert value["config"]["mediaType"] == media_types.CONFIG
    for layer in value["layers"]:
        assert layer["mediaType"] in media_types.LAYERS
        assert layer["annotations"].keys() == {
            media_types.TITLE,
            media_types.FILEPATH,
            media_types.MEMORY,
        }


def test_the_reference_is_read() -> None:
    line = (SPEC / "references.md").read_text("utf-8").splitlines()[2].strip()
    assert str(Reference.parse(line)) == line


def test_the_reserved_names_are_those_of_the_code() -> None:
    page = (SPEC / "references.md").read_text("utf-8")
    listed = page.partition("are not available:")[2].partition("\n\n")[0]
    assert set(re.findall("`([^`]+)`", listed)) == RESERVED_NAMESPACES


PROVOKED = {
    "expiresAt": {"expires_at": datetime(2026, 1, 1, tzinfo=UTC)},
    "retentionDays": {"retention_days": 1},
    "allowedUses": {"allowed_uses": ("research",)},
    "processing": {"processing": "local"},
    "redistribution` = `forbidden": {"redistribution": "forbidden"},
    "redistribution` = `same-licence": {"redistribution": "same-licence", "licence": "MIT"},
    "watermark": {"watermark": "required"},
    "sensitivity": {"sensitivity": "restricted"},
    "personalData": {"personal_data": "personal"},
}
"""Per row of the table of rules, a governance that each of its cells refuses in the worst case."""


def test_the_table_of_rules_is_that_of_the_code() -> None:
    lines = (SPEC / "rules.md").read_text("utf-8").partition("| field | mount |")[2].splitlines()
    rows = [line.strip("|").split("|") for line in lines[2:] if line.startswith("| `")]
    for row in rows:
        (governance,) = (value for name, value in PROVOKED.items() if f"`{name}" in row[0])
        for act, cell in zip(rules.Act, row[1:], strict=True):
            assert _refused(act, governance, owner=False) == bool(cell.strip()), (row[0], act)
            assert _refused(act, governance, owner=True) == ("**" in cell), (row[0], act)
    assert len(rows) == len(PROVOKED)


def _refused(act: rules.Act, governance: dict[str, Any], *, owner: bool) -> bool:
    asked = rules.Asked(
        act,
        datetime(2026, 11, 27, tzinfo=UTC),
        owner=owner,
        ceiling="public",
        held_since=datetime(2026, 1, 1, tzinfo=UTC),
        leaves_to=("elsewhere.example",),
        made=Governance(),
    )
    return not all(one.allows for one in rules.rulings(Governance(**governance), asked))


def test_the_terms_are_those_of_the_tokenizer() -> None:
    page = (SPEC / "records.md").read_text("utf-8")
    match = re.search(r'^    "(.+)"  →  (.+)$', page, re.MULTILINE)
    assert match
    assert text.terms(match[1]) == match[2].split()


def test_the_digest_is_that_of_abc() -> None:
    line = (SPEC / "content.md").read_text("utf-8").splitlines()[2].split()[0]
    assert Digest.parse(line) == Digest.of(b"abc")


def test_the_tensors_are_a_file() -> None:
    line = (SPEC / "tensors.md").read_text("utf-8").splitlines()[2].strip()
    said = re.fullmatch(r"([0-9a-f]{16}) (.+) ‖ (\d+) bytes", line)
    assert said
    length, header, zeros = said.groups()
    content = bytes.fromhex(length) + header.replace("␠", " ").encode() + bytes(int(zeros))
    (tensor,) = parse_header(content).tensors
    assert (tensor.dtype, tensor.shape) == ("F32", (2,))


def test_the_blocks_are_those_of_the_code() -> None:
    page = (SPEC / "content.md").read_text("utf-8")
    said = re.search(r"blockBytes (\d+), start 0, size (\d+)  →  (\d+) hashes.* (\d+) bytes", page)
    assert said
    block, size, count, last = map(int, said.groups())
    assert len(Blocks.of(bytes(size), block).hashes) == count
    assert size - block * (count - 1) == last


def parse_adapter_metadata(raw: bytes) -> object:
    return parametric.check(b'{"peft_type":"LORA"}', Header((), 0, {"memcube": raw.decode()}))


@pytest.mark.parametrize(
    "parse", [CubeConfig.parse, read_config, KvManifest.parse, parse_adapter_metadata]
)
def test_another_value_than_an_object_is_invalid_json(parse: Callable[[bytes], object]) -> None:
    with pytest.raises(InvalidJsonError):
        parse(b"[]")


@pytest.mark.parametrize("page", sorted(SPEC.glob("*.md")), ids=lambda page: page.name)
def test_every_page_starts_with_a_title_and_ends_with_security(page: Path) -> None:
    content = re.sub(r"^<!--.*-->\n", "", page.read_text("utf-8"))
    assert content.startswith("# ")
    assert re.search(r"^## Security", content, re.MULTILINE), page.name
