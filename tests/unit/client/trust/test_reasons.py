"""Every reason code that the code can give is documented with its remedy."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import memcube.log.monitoring
import memcube.log.watching
import memcube.trust
import memcube_signing
import memcube_signing.predicates.reading
import memcube_signing.transparency
from memcube_protocol.errors import TrustError

CODE = re.compile(r"[a-z]+(-[a-z0-9]+)+")
NO_REASONS = {"model-signature", "dsse-envelope", "first-use", "memcube-signing-key", "module-path"}
SPEC = Path(__file__).parents[4] / "docs" / "spec" / "statements.md"


def reasons_in_code() -> set[str]:
    found: set[str] = set()
    packages = (memcube.trust, memcube_signing, memcube_signing.transparency)
    paths = [path for package in packages for path in Path(package.__path__[0]).glob("*.py")]
    modules = (memcube.log.watching, memcube.log.monitoring, memcube_signing.predicates.reading)
    for path in (*paths, *(Path(str(module.__file__)) for module in modules)):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {node.value} if CODE.fullmatch(node.value) else set()
    return (found | {kind.code for kind in TrustError.__subclasses__()}) - NO_REASONS


def reasons_in_spec() -> set[str]:
    table = SPEC.read_text("utf-8").partition("## Reason codes")[2].partition("## Limits")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {code for cell in first_cells for code in re.findall(r"`([a-z0-9-]+)`", cell)}


def test_the_spec_lists_every_reason():
    undocumented = {"signature-invalid", "ecdsa-p256-sha256"}
    assert reasons_in_code() - undocumented - reasons_in_spec() == set()


def test_the_spec_lists_no_reason_that_does_not_exist():
    assert reasons_in_spec() - reasons_in_code() - {"copy", "local"} == set()
