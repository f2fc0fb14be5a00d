"""Writes the vectors of tensors, identities, KV and LoRA memories: `python -m conformance.memories.generate`."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from blake3 import blake3
from memcube_protocol import activation, parametric, tensors
from memcube_protocol.compatibility import INT8, ActiveAdapter
from memcube_protocol.errors import InvalidTensorsError, MemcubeError
from memcube_protocol.identity import AdapterIdentity, BaseIdentity, TensorIdentity
from memcube_protocol.parametric import Base
from support.kv import IDS, KEY, LAYERS, kv_file, kv_manifest
from support.lora import BIAS, INNER_BIAS, SPECS, A, B, config_bytes, lora_file

FOLDER = Path(__file__).parent
FILES = ("tensors.json", "identity.json", "activation.json", "parametric.json")
Case = dict[str, Any]


def header_file(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header text, which says that it has this length."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def one_tensor(**changes: Any) -> bytes:
    """A file of one tensor of two bytes, some fields of its entry changed or, if None, left out."""
    entry = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2], **changes}
    entry = {key: value for key, value in entry.items() if value is not None}
    return header_file(json.dumps({"a": entry}).encode(), b"xy")


def two_tensors(first: tuple[int, int], second: tuple[int, int], data: int = 4) -> bytes:
    """A file of two tensors with these offsets."""
    spans = zip("ab", (first, second), strict=True)
    value = {
        name: {"dtype": "U8", "shape": [stop - start], "data_offsets": [start, stop]}
        for name, (start, stop) in spans
    }
    return header_file(json.dumps(value).encode(), bytes(data))


def accepted_files() -> Iterator[tuple[str, bytes]]:
    """Files that every reader accepts."""
    yield "no tensor", header_file(b"{}")
    yield "one tensor", one_tensor()
    yield "padded with spaces", header_file(b"{}" + b" " * 54)
    yield "metadata", header_file(b'{"__metadata__":{"format":"pt"}}')
    yield "a scalar", one_tensor(shape=[], dtype="I16")
    yield "an empty tensor", two_tensors((0, 0), (0, 4))
    yield "in another order than the bytes", two_tensors((2, 4), (0, 2))
    yield (
        "a page before the tensors",
        tensors.write_header([("l0.k", "F32", (1, 1, 1))], alignment=4096) + bytes(4),
    )
    yield (
        "a header of 640 bytes, which begins as a pickle does",
        header_file(json.dumps({"__metadata__": {"x": "y" * 615}}).encode()),
    )
    for dtype, width in sorted(tensors.DTYPE_BYTES.items()):
        yield f"dtype {dtype}", tensors.write_header([("x", dtype, (1,))]) + bytes(width)


def rejected_files() -> Iterator[tuple[str, bytes]]:
    """Files that every reader refuses."""
    yield "nothing", b""
    yield "seven bytes", bytes(7)
    yield "a pickle, renamed", b"\x80\x04\x95\x10\x00\x00\x00\x00."
    yield "a zip of pickles, renamed", b"PK\x03\x04" + bytes(20)
    yield "a header of no bytes", header_file(b"")
    yield "a header beyond the file", header_file(b"{}", length=100)
    yield "a header above the limit", header_file(b"{}", length=100 * 2**20 + 1)
    yield "a header of 2^64 - 1 bytes", header_file(b"{}", length=2**64 - 1)
    yield "a header that starts with a space", header_file(b" {}")
    yield "a header that is a list", header_file(b"[]")
    yield "a header that is no JSON", header_file(b"{]")
    yield "a header padded with zeros", header_file(b"{}\x00\x00")
    yield "a header with a line feed behind it", header_file(b"{}\n")
    yield "a header that is no UTF-8", header_file(b'{"\xff":1}')
    yield (
        "a name twice",
        header_file(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
            bytes(2),
        ),
    )
    yield (
        "NaN as a dimension",
        header_file(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', bytes(1)),
    )
    yield "too many levels", header_file(b'{"a":' * 70 + b"1" + b"}" * 70)
    yield "metadata that is a number", header_file(b'{"__metadata__":{"a":1}}')
    yield "metadata that is text", header_file(b'{"__metadata__":"x"}')
    yield (
        "a tensor without a name",
        header_file(b'{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', bytes(1)),
    )
    yield "a tensor that is a number", header_file(b'{"a":1}')
    yield "no dtype", one_tensor(dtype=None)
    yield "no shape", one_tensor(shape=None)
    yield "no offsets", one_tensor(data_offsets=None)
    yield "a field too many", one_tensor(code="import os")
    yield "a dtype that is a number", one_tensor(dtype=1)
    yield "an unknown dtype", one_tensor(dtype="U9")
    yield "a dtype in lower case", one_tensor(dtype="u8")
    yield "a shape that is a number", one_tensor(shape=2)
    yield "a negative dimension", one_tensor(shape=[-2])
    yield "two negative dimensions", one_tensor(shape=[-1, -2])
    yield "a dimension that is a fraction", one_tensor(shape=[2.0])
    yield "a dimension that is true", one_tensor(shape=[2, True])
    yield "seventeen dimensions", one_tensor(shape=[1] * 16 + [2])
    yield "a product beyond 2^53", one_tensor(shape=[2**30, 2**30])
    yield "a product that overflows to the size", one_tensor(shape=[2**32, 2**31, 2])
    yield "a zero that hides a huge dimension", one_tensor(shape=[2**60, 0], data_offsets=[0, 0])
    yield "one offset", one_tensor(data_offsets=[2])
    yield "three offsets", one_tensor(data_offsets=[0, 1, 2])
    yield "offsets backwards", one_tensor(data_offsets=[2, 0])
    yield "a negative offset", one_tensor(data_offsets=[-2, 0])
    yield "an offset that is a fraction", one_tensor(data_offsets=[0, 2.0])
    yield "offsets beyond 2^53", one_tensor(data_offsets=[2**60, 2**60 + 2])
    yield "fewer bytes than the shape", one_tensor(shape=[3])
    yield "more bytes than the shape", one_tensor(shape=[1])
    yield "an overlap", two_tensors((0, 2), (1, 4))
    yield "the same bytes twice", two_tensors((0, 4), (0, 4))
    yield "a gap", two_tensors((0, 1), (2, 4))
    yield "a gap at the start", two_tensors((1, 2), (2, 4))
    yield "a tensor beyond the file", two_tensors((0, 2), (2, 5))
    yield "bytes behind the last tensor", two_tensors((0, 2), (2, 3))
    yield "bytes of no tensor", header_file(b"{}", b"x")


def tensors_json() -> Case:
    """Files of safetensors."""
    return {
        "about": "docs/spec/tensors.md. content is the base64 file. accept: offset of the data and, by "
        "name, dtype, shape and offsets. reject: the error code and the name of the rule.",
        "accept": [
            {"name": name, "content": _text(content), **_read(content)}
            for name, content in accepted_files()
        ],
        "reject": [
            {"name": name, "content": _text(content), **refusal(tensors.parse_header, content)}
            for name, content in rejected_files()
        ],
    }


def identity_json() -> Case:
    """Identities of models and adapters."""
    embedding = ("model.embed_tokens.weight", "BF16", (2, 1), b"abcd")
    head = ("lm_head.weight", "BF16", (2, 1), b"abcd")
    cases = {
        "one tensor": [("a", "F32", (1,), b"1234")],
        "three tensors, unsorted": [
            ("b", "F32", (1,), b"1234"),
            ("a", "I8", (4,), b"1234"),
            ("é", "U8", (2, 2), b"4321"),
        ],
        "a tied head counts once": [embedding, head],
        "an untied head counts": [embedding, ("lm_head.weight", "BF16", (2, 1), b"dcba")],
        "an empty tensor and a scalar": [("e", "F32", (0, 3), b""), ("s", "F64", (), bytes(8))],
    }
    return {
        "about": "docs/spec/identity.md. Tensors by name, dtype, shape and base64 content; base and "
        "adapter: the identity of a model and of an adapter that consist of them.",
        "accept": [_identity_case(name, parts) for name, parts in cases.items()],
        "reject": [
            {"name": name, "input": text, **refusal(BaseIdentity.parse, text)}
            for name, text in {
                "an adapter's": str(AdapterIdentity(bytes(32))),
                "capitals": "mip1-base:" + "A" * 64,
                "too short": "mip1-base:" + "0" * 62,
                "no scheme": "0" * 64,
            }.items()
        ],
    }


def activation_json() -> Case:
    """KV memories: token chains, keys, and whether three files agree."""
    manifest = kv_manifest()
    raw, ids, file = manifest.to_bytes(), activation.encode_tokens(IDS), kv_file()
    under = replace(KEY, adapters=(ActiveAdapter(AdapterIdentity(b"a" * 32), "0.5"),))
    small, small_file = kv_manifest(storage=INT8), kv_file(storage=INT8)
    other_text = replace(manifest, source=activation.Source(None, manifest.key.tokens))
    bad = {
        "other token ids": (raw, activation.encode_tokens(IDS[::-1]), file),
        "half a token": (raw, ids[:-2], file),
        "no tokens": (raw, b"", file),
        "another dtype": (raw, ids, kv_file(dtype="I32")),
        "a layer too many": (raw, ids, kv_file(layers=(*LAYERS, LAYERS[0]))),
        "a token less": (raw, ids, kv_file(tokens=len(IDS) - 1)),
        "a manifest of another version": (raw.replace(b'"1.0"', b'"2.0"'), ids, file),
        "a manifest without a key": (raw.replace(b'"key"', b'"kex"'), ids, file),
        "a field too many": (raw[:-1] + b',"x":1}', ids, file),
        "a post-RoPE flag that is a number": (
            raw.replace(b'"postRope":true', b'"postRope":1'),
            ids,
            file,
        ),
        "a position that is missing": (raw.replace(b'"positionOffset":0,', b""), ids, file),
        "a manifest that is not canonical": (b" " + raw, ids, file),
        "a pickle as tensors": (raw, ids, b"\x80\x04" + bytes(30)),
        "eight bits for exact numbers": (raw, ids, small_file),
        "exact numbers for eight bits": (small.to_bytes(), ids, file),
        "a storage that nobody knows": (
            raw.replace(b'"kvQuantisation":"none"', b'"kvQuantisation":"int3"'),
            ids,
            file,
        ),
    }
    return {
        "about": "docs/spec/activation.md. manifest, tokens and kv are base64 (kv: its header and "
        "length). accept: digest of the key, token chain, ranges of a prefix of 10 tokens. "
        "reject: the error code.",
        "chains": [
            {"tokens": _text(activation.encode_tokens(IDS[:n])), "chain": _chain(n)}
            for n in (1, 255, 256, 257)
        ],
        "keys": [{"key": key.to_json(), "digest": str(key.digest())} for key in (KEY, under)],
        "accept": [
            _kv_case("two layers", raw, ids, file) | _kv_reading(manifest, file),
            _kv_case("only the text's digest", other_text.to_bytes(), ids, file)
            | _kv_reading(other_text, file),
            _kv_case("eight bits", small.to_bytes(), ids, small_file)
            | _kv_reading(small, small_file),
        ],
        "reject": [
            _kv_case(name, *parts) | refusal(check_kv, *parts) for name, parts in bad.items()
        ],
    }


def parametric_json() -> Case:
    """LoRA memories: a config and the header of its tensors."""
    good = {
        "a plain adapter": (config_bytes(), lora_file()),
        "with a base identity": (
            config_bytes(),
            lora_file(
                metadata=parametric.metadata(Base("acme/base-1b", "r1", BaseIdentity(bytes(32))))
            ),
        ),
        "a rank by pattern": (config_bytes(r=9, rank_pattern={"q_proj": 2}), lora_file()),
        "rank-stabilised": (config_bytes(use_rslora=True), lora_file()),
        "the first pattern that fits": (
            config_bytes(
                r=9,
                rank_pattern={"proj": 7, "self_attn\\.q_proj$": 2, "q_proj": 3},
                alpha_pattern={"^model.layers.0.self_attn.q_proj": 1},
            ),
            lora_file(),
        ),
        "an initialisation that leaves the base alone": (
            config_bytes(init_lora_weights="eva", bias="none"),
            lora_file(),
        ),
        "PEFT's own rank and alpha": (
            b'{"peft_type":"LORA"}',
            lora_file([(A, "F32", (8, 8)), (B, "F32", (6, 8))]),
        ),
        "an embedding": (
            config_bytes(),
            lora_file(
                [
                    ("base_model.model.emb.lora_embedding_A", "BF16", (2, 10)),
                    ("base_model.model.emb.lora_embedding_B", "BF16", (4, 2)),
                ]
            ),
        ),
        "a module that is replaced": (
            config_bytes(modules_to_save=["head"]),
            lora_file([*SPECS, ("base_model.model.head.weight", "F32", (1,))]),
        ),
        "all biases": (config_bytes(bias="all"), lora_file([*SPECS, INNER_BIAS, BIAS])),
        "biases of modules with factors": (
            config_bytes(bias="lora_only"),
            lora_file([*SPECS, INNER_BIAS]),
        ),
        "biases of a model that has none": (config_bytes(bias="all"), lora_file()),
    }
    bad = {
        "another kind of adapter": (config_bytes(peft_type="IA3"), lora_file()),
        "a rank of zero": (config_bytes(r=0), lora_file()),
        "a rank that the tensors do not have": (config_bytes(r=4), lora_file()),
        "alpha that is text": (config_bytes(lora_alpha="8"), lora_file()),
        "an initialisation that rewrites the base": (
            config_bytes(init_lora_weights="pissa"),
            lora_file(),
        ),
        "an unknown word for biases": (config_bytes(bias="every"), lora_file()),
        "a bias that is not announced": (config_bytes(), lora_file([*SPECS, INNER_BIAS])),
        "a bias of a module without factors": (
            config_bytes(bias="lora_only"),
            lora_file([*SPECS, BIAS]),
        ),
        "an inner bias without factors": (
            config_bytes(bias="all"),
            lora_file([*SPECS, ("norm.base_layer.bias", "F32", (8,))]),
        ),
        "an outer bias beside factors": (
            config_bytes(bias="all"),
            lora_file([*SPECS, (INNER_BIAS[0].replace(".base_layer", ""), "F32", (6,))]),
        ),
        "a regular expression as a pattern": (config_bytes(rank_pattern={"(a+)+": 2}), lora_file()),
        "tensors of the base beside": (config_bytes(trainable_token_indices=[1]), lora_file()),
        "DoRA without magnitudes": (config_bytes(use_dora=True), lora_file()),
        "alpha of 65536": (config_bytes(lora_alpha=65536), lora_file()),
        "modules that are only replaced": (
            config_bytes(modules_to_save=["head"]),
            lora_file([("base_model.model.head.weight", "F32", (1,))]),
        ),
        "one half of a pair": (config_bytes(), lora_file(SPECS[:1])),
        "integers": (config_bytes(), lora_file([(A, "I32", (2, 8)), (B, "F32", (6, 2))])),
        "a tensor that is no LoRA": (
            config_bytes(),
            lora_file([*SPECS, ("x.weight", "F32", (1,))]),
        ),
        "no tensors": (config_bytes(), lora_file([])),
        "metadata that is no JSON": (config_bytes(), lora_file(metadata={"memcube": "{"})),
        "a config that is a list": (b"[]", lora_file()),
        "a config with a key twice": (b'{"r":1,"r":2}', lora_file()),
    }
    return {
        "about": "docs/spec/parametric.md. config and tensors are base64. accept: base, modules by "
        "path as [rank, out, in], the scale of each, and the shapes of biases by path. reject: the error code.",
        "accept": [
            _lora_case(name, *parts) | _lora_reading(*parts) for name, parts in good.items()
        ],
        "reject": [
            _lora_case(name, *parts) | refusal(check_lora, *parts) for name, parts in bad.items()
        ],
    }


def check_kv(manifest: bytes, tokens: bytes, kv: bytes, size: int | None = None) -> Any:
    """What the reader says of three files."""
    return activation.check_folder_files(manifest, tokens, kv, size or len(kv))


def check_lora(config: bytes, file: bytes) -> Any:
    """What the reader says of two files."""
    return parametric.check(config, tensors.parse_header(file))


def refusal(act: Any, *arguments: Any) -> Case:
    """The code with which `act` refuses, and the rule's name where it has one."""
    try:
        act(*arguments)
    except InvalidTensorsError as error:
        return {"code": error.code, "rejection": error.rejection}
    except MemcubeError as error:
        return {"code": error.code}
    raise AssertionError(f"{act.__name__} accepts what it should refuse: {arguments!r:.300}")


def text_of(name: str) -> str:
    """The text of the vector file called `name`."""
    makers = {
        "tensors.json": tensors_json,
        "identity.json": identity_json,
        "activation.json": activation_json,
        "parametric.json": parametric_json,
    }
    return json.dumps(makers[name](), indent=1, ensure_ascii=False) + "\n"


def _read(content: bytes) -> Case:
    header = tensors.parse_header(content)
    return {
        "dataStart": header.data_start,
        "tensors": {
            t.name: {"dtype": t.dtype, "shape": list(t.shape), "offsets": [t.start, t.stop]}
            for t in header.tensors
        },
    }


def _identity_case(name: str, parts: list[tuple[str, str, tuple[int, ...], bytes]]) -> Case:
    identities = [
        TensorIdentity(part, dtype, shape, blake3(content).digest())
        for part, dtype, shape, content in parts
    ]
    return {
        "name": name,
        "tensors": [
            {"name": part, "dtype": dtype, "shape": list(shape), "content": _text(content)}
            for part, dtype, shape, content in parts
        ],
        "base": str(BaseIdentity.of(identities)),
        "adapter": str(AdapterIdentity.of(identities)),
    }


def _kv_case(name: str, manifest: bytes, tokens: bytes, kv: bytes) -> Case:
    return {
        "name": name,
        "manifest": _text(manifest),
        "tokens": _text(tokens),
        "kv": _text(kv[:4096].rstrip(b"\x00") if kv.startswith(b"\x80") else kv[:4096]),
        "kvBytes": len(kv),
    }


def _kv_reading(manifest: activation.KvManifest, file: bytes) -> Case:
    ranges = activation.prefix_ranges(tensors.parse_header(file), 10)
    return {
        "key": str(manifest.key.digest()),
        "chain": [link.hex() for link in manifest.chain],
        "prefix": {name: list(span) for name, span in ranges.items()},
    }


def _lora_case(name: str, config: bytes, file: bytes) -> Case:
    return {"name": name, "config": _text(config), "tensors": _text(file)}


def _lora_reading(config: bytes, file: bytes) -> Case:
    adapter = check_lora(config, file)
    modules: Mapping[str, list[int]] = {
        m.path: [m.rank, m.outputs, m.inputs] for m in adapter.modules
    }
    return {
        "base": adapter.base.to_json(),
        "modules": modules,
        "scales": {path: adapter.config.scale_of(path) for path in modules},
        "biases": {path: list(tensor.shape) for path, tensor in adapter.biases.items()},
    }


def _chain(count: int) -> list[str]:
    return [link.hex() for link in activation.token_chain(IDS[:count])]


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


if __name__ == "__main__":
    for file_name in FILES:
        (FOLDER / file_name).write_text(text_of(file_name), encoding="utf-8")
