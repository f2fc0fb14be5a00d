"""A published build is made again and judged: its recipe, and its very files, do what was claimed or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from memcube.building.builder import Built
from memcube.building.holding import forget_build, keep
from memcube.building.planning import Order
from memcube.building.repeating import Repeated
from memcube_protocol.build import Build, Made
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError, UselessBuildError
from memcube_protocol.reference import Reference
from support.building import TRAINING, Bench

pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    pytest.mark.timeout(300),
]
ELSEWHERE = {"machine": "another", "torch": "0.1"}


@pytest.fixture(scope="module")
def cache(bench: Bench) -> Built:
    return bench.build("activation", memory="repeated")


@pytest.fixture(scope="module")
def adapter(bench: Bench) -> Built:
    return bench.build("parametric", memory="repeated")


@pytest.fixture
def published(bench: Bench) -> Iterator[Any]:
    """Keeps a build with the files and the claims that are given; forgotten at the end."""
    kept: list[Build] = []

    def publish(files: Build, made: Made) -> Digest:
        build = Build.write(files.subject, files.memory, files.files, made)
        keep(bench.client.context, Reference("", "alice/notes"), build, is_own=True)
        kept.append(build)
        return build.digest

    yield publish
    for build in kept:
        forget_build(bench.client.context, build.subject.digest, build.digest)


def repeat(bench: Bench, digest: Digest, kind: str) -> Repeated:
    return bench.client.repeat(
        "alice/notes",
        digest,
        model=bench.model,
        tokenizer=bench.tokenizer,
        order=Order(bench.passages(kind), accept=True),
    )


def test_on_the_same_machine_the_same_bits_come_out(bench: Bench, cache: Built) -> None:
    repeated = repeat(bench, cache.build.digest, "activation")
    assert repeated.built.build.digest == cache.build.digest
    assert "to the bit" in repeated.words
    assert repeated.published is None


def test_no_model_is_loaded_for_a_build_that_is_not_there(bench: Bench) -> None:
    def load() -> tuple[Any, Any]:
        raise AssertionError("loading takes seconds")

    with pytest.raises(NotFoundError, match="has no build"):
        bench.client.repeat("alice/notes", Digest.of(b"no build"), load=load)


@pytest.mark.parametrize("kind", ["activation", "parametric"])
def test_where_other_bits_come_out_the_published_files_are_measured_too(
    bench: Bench, published: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    built = request.getfixturevalue("cache" if kind == "activation" else "adapter")
    digest = published(built.build, replace(built.made, environment=ELSEWHERE))
    repeated = repeat(bench, digest, kind)
    assert repeated.built.build.digest == built.build.digest != digest
    found, claimed = repeated.published, built.made.evaluation
    assert found
    assert (found.without, found.with_memory) == (claimed.without, claimed.with_memory)
    assert found.perplexity == claimed.perplexity
    assert "and the published files (" in repeated.words


def test_published_files_that_do_something_else_are_found(
    bench: Bench, cache: Built, published: Any
) -> None:
    """The recipe and its claims are good; signed beside them is a cache of one record."""
    poor = bench.make(
        bench.wanted("activation", memory="repeated", budget_tokens=16), accept=True
    ).build
    digest = published(poor, cache.made)
    with pytest.raises(UselessBuildError, match="the published files do something else") as caught:
        repeat(bench, digest, "activation")
    assert "do not use this build" in (caught.value.hint or "")


def test_an_adapter_that_was_signed_beside_another_recipe_is_found(
    bench: Bench, adapter: Built, published: Any
) -> None:
    untaught = replace(TRAINING, steps=1)
    poor = bench.make(
        bench.wanted("parametric", memory="repeated", training=untaught), accept=True
    ).build
    digest = published(poor, replace(adapter.made, environment=ELSEWHERE))
    with pytest.raises(UselessBuildError, match="the published files do something else"):
        repeat(bench, digest, "parametric")


def test_a_recipe_that_does_not_do_what_is_claimed_is_found(
    bench: Bench, cache: Built, published: Any
) -> None:
    assert cache.made.evaluation
    boast = replace(cache.made.evaluation, perplexity=(1.0, 1.0))
    digest = published(cache.build, replace(cache.made, evaluation=boast))
    with pytest.raises(UselessBuildError, match="made again from its recipe it does something"):
        repeat(bench, digest, "activation")


def test_a_build_that_is_none_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="has no build"):
        repeat(bench, Digest.of(b"none"), "activation")
