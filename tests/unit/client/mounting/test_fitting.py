"""What a config says of a memory decides what is fetched: every field that differs is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memcube.memories.activation.key import active_adapters
from memcube.memories.model_identity import live_identity
from memcube.mounting.fitting import Looks, adapter_misfit, cache_misfit
from memcube.mounting.offers import Wishes
from memcube_protocol.config import ACTIVATION, PARAMETRIC, Memory
from memcube_protocol.errors import InvalidSettingError
from memcube_protocol.parametric import Base
from support.models import model_of, tokenizer_of

torch = pytest.importorskip("torch")
ADAPTER = "mip1-adapter:" + "0" * 64


def looks_of(model: Any) -> Looks:
    return Looks.of(model, tokenizer_of(), live_identity(model))


@pytest.fixture(scope="module")
def looks() -> Looks:
    return looks_of(model_of(num_hidden_layers=1))


def cache(key: Any) -> Memory:
    return Memory("handbook", ACTIVATION, (), shape={"tokens": 1}, compatibility=key.to_json())


def adapter(base: Base) -> Memory:
    fits = {"base": base.to_json(), "adapter": ADAPTER}
    return Memory("style", PARAMETRIC, (), compatibility=fits)


def test_a_cache_of_the_same_model_fits_whatever_its_tokens_are(looks: Looks) -> None:
    other = replace(
        looks.key, token_count=99, special_tokens="added:1", kv_quantisation="int8-token"
    )
    assert cache_misfit(cache(other), looks, ()) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"compute_dtype": "BF16"}, "compute_dtype is BF16 in the memory, F32 here"),
        ({"kv_dtype": "F16"}, "kv_dtype"),
        ({"rope": "{}"}, "rope"),
        ({"position_offset": 7}, "position_offset"),
    ],
)
def test_each_field_that_differs_is_named_with_what_to_do(
    looks: Looks, changes: dict[str, Any], named: str
) -> None:
    misfit = cache_misfit(cache(replace(looks.key, **changes)), looks, ())
    assert misfit is not None
    assert named in misfit.why
    assert misfit.hint


def test_another_model_of_the_same_shape_is_told_by_its_base(looks: Looks) -> None:
    other = looks_of(model_of(seed=9, num_hidden_layers=1))
    misfit = cache_misfit(cache(other.key), looks, ())
    assert misfit is not None
    assert misfit.why.count(" in the memory") == 1
    assert "base is mip1-base:" in misfit.why


def test_a_cache_is_compared_with_the_adapters_that_will_be_active(looks: Looks) -> None:
    misfit = cache_misfit(cache(looks.key), looks, (ADAPTER,))
    assert misfit is not None
    assert f"active will be {ADAPTER}" in misfit.why
    assert "kind=activation" in misfit.hint
    assert "--rebuild" in misfit.hint
    assert active_adapters(model_of(num_hidden_layers=1)) == ()


def test_a_config_that_is_no_key_is_a_misfit_and_no_crash(looks: Looks) -> None:
    broken = Memory("handbook", ACTIVATION, (), shape={}, compatibility={"baseIdentity": 7})
    assert cache_misfit(broken, looks, ()) is not None
    nothing = Memory("style", PARAMETRIC, (), compatibility={"base": []})
    assert adapter_misfit(nothing, looks, allow_unverified_base=True) is not None


def test_an_adapter_of_an_unknown_base_is_a_misfit_unless_that_is_allowed(looks: Looks) -> None:
    own = adapter(Base(identity=looks.base.identity))
    assert adapter_misfit(own, looks, allow_unverified_base=False) is None
    strange = adapter(Base(model="somebody/else"))
    misfit = adapter_misfit(strange, looks, allow_unverified_base=False)
    assert misfit is not None
    assert "somebody/else" in misfit.why
    assert adapter_misfit(strange, looks, allow_unverified_base=True) is None


def test_every_host_that_gets_content_is_told_to_the_rules(tmp_path: Path) -> None:
    wishes = Wishes(
        leaves_to=("api.example",),
        embedder="https://embed.example:8443/v1#model",
        search_server="http://qdrant.local:6333",
    )
    assert wishes.hosts == ("api.example", "qdrant.local:6333")
    assert wishes.embedded_at == ("the embedder model at embed.example:8443",)
    assert Wishes(search_server="http://user:secret@qdrant.local").hosts == ("qdrant.local",)
    for near in (str(tmp_path), len, "lsa", None):
        assert (Wishes(embedder=near).hosts, Wishes(embedder=near).embedded_at) == ((), ())
    with pytest.raises(InvalidSettingError):
        _ = Wishes(embedder="https://user:secret@embed.example/v1#model").embedded_at
