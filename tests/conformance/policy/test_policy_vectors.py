"""The vectors of trust policies, as any implementation has to pass them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from memcube.trust.policy_file import parse
from memcube_protocol.errors import MemcubeError

VECTORS = json.loads(Path(__file__).with_name("policies.json").read_text("utf-8"))


@pytest.mark.parametrize("vector", VECTORS["accept"], ids=lambda vector: vector["name"])
def test_the_right_scope_decides(vector):
    policy = parse(vector["policy"].encode())
    decided = {name: policy.terms_of(name).scope for name in vector["decides"]}
    assert decided == vector["decides"]


@pytest.mark.parametrize("vector", VECTORS["reject"], ids=lambda vector: vector["name"])
def test_a_wrong_policy_is_refused(vector):
    with pytest.raises(MemcubeError) as caught:
        parse(vector["policy"].encode())
    assert caught.value.code == vector["code"]


@pytest.mark.parametrize(
    "page", ["spec/policy.md", "guide/trust-a-publisher.md", "guide/trusted-publishing.md"]
)
def test_the_examples_in_the_documentation_are_policies(page):
    text = (Path(__file__).parents[3] / "docs" / page).read_text("utf-8")
    examples = [part.partition("```")[0] for part in text.split("```toml\n")[1:]]
    for example in examples:
        policy = parse((example if "format" in example else f"format = 1\n{example}").encode())
        for test in policy.tests:
            assert policy.terms_of(test.name).scope == test.scope
    assert examples
