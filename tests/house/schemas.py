"""The JSON Schemas of MIP 1.0, made from the limits, names and choices of the code.

They describe what a writer may write. What only code can judge (canonical form, sums over several
fields, Unicode rules) is said in a `description`; a test compares their verdicts with the code's.
"""

from __future__ import annotations

from typing import Any, Final

from memcube_protocol import config, governance, limits, media_types, records
from memcube_protocol import recipe as recipes
from memcube_protocol.compatibility import INT8, NONE
from memcube_protocol.digest import HEX_CHARS

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
BASE: Final = "https://memcube.org/spec/1.0/schemas/"
HASHES: Final = "^(?:[0-9a-f]{64})*$"
SECOND: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"
TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{0,8}[1-9])?Z$"
SAFE: Final = 2**53 - 1
PRINTABLE: Final = (
    "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]*$"
)


def closed(required: list[str], description: str = "", **properties: Schema) -> Schema:
    """An object without other fields."""
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return {"description": description, **schema} if description else schema


def text(chars: int = 200, **more: Any) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": chars, **more}


def line(chars: int = 200, **more: Any) -> Schema:
    """Text that shows as it reads: no control characters, no text-direction tricks."""
    return text(chars, allOf=[{"pattern": PRINTABLE}], **more)


def several(items: Schema, count: int, **more: Any) -> Schema:
    return {"type": "array", "items": items, "maxItems": count, **more}


def choice(*values: str) -> Schema:
    return {"enum": list(values)}


def integer(least: int = 0, most: int = SAFE) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def digest() -> Schema:
    forms = "|".join(f"{name}:[0-9a-f]{{{chars}}}" for name, chars in HEX_CHARS.items())
    return {"type": "string", "pattern": f"^(?:{forms})$"}


def anything() -> Schema:
    return {"type": "object"}


def identity(scheme: str) -> Schema:
    return {"type": "string", "pattern": f"^{scheme}:[0-9a-f]{{64}}$"}


def record() -> Schema:
    short, time = text(records.NAME_CHARS), {"type": "string", "pattern": TIME}
    one = text(
        records.ID_CHARS,
        pattern=r'^[^\s\x00-\x20\x7f"<>\[\]\\^`{|}]+$',
        description="In Unicode normal form C, without hidden characters.",
    )
    many: Schema = {"minItems": 1, "uniqueItems": True}
    vendor = "[a-z0-9][a-z0-9-]{0,63}:[a-z0-9][a-z0-9._-]{0,63}"
    relation = closed(["type", "target"], type=short, target=one, valid_from=time, valid_to=time)
    source_parts = ("system", "conversation", "uri", "method", "author")
    source = closed([], **dict.fromkeys(source_parts, short)) | {"minProperties": 1}
    return closed(
        ["id", "text"],
        "One plaintext memory: a line of JSON Lines, in RFC 8785 form inside a shard.",
        id=one,
        text={"type": "string", "minLength": 1},
        type={"type": "string", "pattern": f"^(?:{'|'.join(sorted(records.TYPES))}|{vendor})$"},
        subject=short,
        created_at=time,
        updated_at=time,
        valid_from=time,
        valid_to=time,
        recorded_at=time,
        expires_at=time,
        source=source,
        tags=several(short, records.LIST_ITEMS, **many),
        entities=several(short, records.LIST_ITEMS, **many),
        relations=several(relation, records.LIST_ITEMS, **many),
        confidence={"type": "number", "minimum": 0, "maximum": 1},
        sensitivity=choice(*governance.SENSITIVITIES),
        status=choice(*sorted(records.STATUSES)),
        version=integer(1),
        supersedes=several(one, records.LIST_ITEMS, **many),
        attachments=several(
            text(limits.PATH_BYTES, description="A safe path (docs/spec/cube.md, Paths)."),
            records.LIST_ITEMS,
            **many,
        ),
        extensions={
            "type": "object",
            "propertyNames": {"pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"},
            "additionalProperties": anything(),
        },
    )


def memory() -> Schema:
    common: dict[str, Schema] = {
        "id": line(
            64, pattern="^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$", **{"not": {"const": "cube"}}
        ),
        "title": line(),
        "layers": {"type": "array", "items": digest()},
    }
    return {
        "oneOf": [
            closed(
                ["id", "kind", "layers", "records"],
                **common,
                kind=choice(config.PLAINTEXT),
                records=integer(),
            ),
            closed(
                ["id", "kind", "layers"],
                **common,
                kind=choice(config.ACTIVATION, config.PARAMETRIC),
                shape=anything(),
                compatibility=anything(),
            ),
        ]
    }


def governance_part() -> Schema:
    url = line(2000, pattern=r'^https?://[^\s<>"\\^`{|}]+$')
    return closed(
        [],
        licence=line(pattern=r"^(?:LicenseRef-[A-Za-z0-9.-]+|[A-Za-z0-9][A-Za-z0-9.-]*\+?)$"),
        licenceUrl=url,
        access=choice(*governance.ACCESS),
        sensitivity=choice(*governance.SENSITIVITIES),
        personalData=choice(*governance.PERSONAL_DATA),
        allowedUses=several(choice(*governance.USES), 64, uniqueItems=True),
        redistribution=choice(*governance.REDISTRIBUTIONS),
        processing=choice(*governance.PROCESSING),
        expiresAt={"type": "string", "pattern": SECOND},
        retentionDays=integer(1, 36_525),
        priority=choice(*governance.PRIORITIES),
        watermark=choice(*governance.WATERMARKS),
    ) | {
        "if": {"properties": {"licence": {"pattern": "^LicenseRef-"}}, "required": ["licence"]},
        "then": {"required": ["licenceUrl"]},
    }


def descriptive_part() -> Schema:
    word = line(100, pattern=r"^[^\s,]+(?: [^\s,]+)*$")
    url = line(2000, pattern=r'^https?://[^\s<>"\\^`{|}]+$')
    licence = line(pattern=r"^(?:LicenseRef-[A-Za-z0-9.-]+|[A-Za-z0-9][A-Za-z0-9.-]*\+?)$")
    language = line(100, pattern="^[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*$")
    return closed(
        [],
        languages=several(language, 64, uniqueItems=True),
        domains=several(word, 64, uniqueItems=True),
        tags=several(word, 64, uniqueItems=True),
        semanticTypes=several(word, 64, uniqueItems=True),
        sources=several(closed(["name"], name=line(), url=url, licence=licence), 256),
    )


def cube_config() -> Schema:
    origin = line(limits.NAME_CHARS, description="host/namespace/name, without tag and digest.")
    parent = closed(
        ["origin", "digest"], origin=origin, digest=digest(), relation=choice(*config.RELATIONS)
    )
    return closed(
        ["mipVersion", "name", "version", "createdAt"],
        "The config of a cube, in RFC 8785 form; fields at their default are left out.",
        mipVersion={"const": config.MIP_VERSION},
        name=line(limits.NAME_CHARS, description="An OCI repository name."),
        version=line(limits.TAG_CHARS, description="A full SemVer 2.0 version."),
        createdAt={"type": "string", "pattern": SECOND},
        title=line(),
        summary=line(2000),
        descriptive=descriptive_part(),
        governance=governance_part(),
        lineage=closed([], parents=several(parent, 256), supersedes=digest()),
        memories=several(memory(), config.MEMORIES),
        extensions=anything(),
    )


def build_config() -> Schema:
    return closed(
        ["mipVersion", "memory"],
        "The config of a build, in RFC 8785 form: the one memory that it adds to a cube.",
        mipVersion={"const": config.MIP_VERSION},
        memory=memory(),
        made=closed(
            ["recipe"],
            recipe=recipe(),
            evaluation=evaluation(),
            environment={
                "type": "object",
                "minProperties": 1,
                "maxProperties": 32,
                "propertyNames": line(),
                "additionalProperties": line(),
            },
        ),
    )


def recipe() -> Schema:
    memory_id = line(64, pattern=f"^{config.MEMORY_ID.pattern}$")
    share: Schema = {"type": "number", "minimum": 0, "maximum": 1}
    weight: Schema = {"type": "number", "minimum": 0, "maximum": 1000}
    question = closed(
        ["question"],
        question=line(2000),
        answer=line(2000),
        record=line(),
        heldOut={"const": True},
    )
    training = closed(
        ["alpha", "answers", "batch", "rank", "rate", "retain", "steps"],
        alpha=integer(1, limits.LORA_RANK),
        answers=weight,
        batch=integer(1, 4096),
        rank=integer(1, limits.LORA_RANK),
        rate=share,
        retain=weight,
        steps=integer(1, 100_000),
    )
    fields = closed(
        [
            *("asOf", "budgetTokens", "memory", "method", "parent"),
            *("prompt", "render", "seed", "source", "threads"),
        ],
        "How a build was made: everything that was chosen. `training` belongs to `distil`, and only there.",
        asOf={"type": "string", "pattern": SECOND},
        base=identity("mip1-base"),
        budgetTokens=integer(1, limits.KV_TOKENS),
        confidence=share,
        memory=memory_id,
        method=choice(*recipes.METHODS),
        parent=digest(),
        prompt={
            "type": "string",
            "maxLength": 4000,
            "description": "Holds {question} once, or is `chat`; printable, with newlines and tabs.",
        },
        questions=several(question, recipes.QUESTIONS, minItems=1),
        render=choice(*recipes.RENDERINGS),
        seed=integer(0, 2**31 - 1),
        source=memory_id,
        threads=integer(1, 4096),
        training=training,
        unrelated=digest(),
    )
    distils = {"properties": {"method": {"const": recipes.DISTIL}}}
    taught = {"required": ["training"]}
    return {**fields, "if": distils, "then": taught, "else": {"not": taught}}


def evaluation() -> Schema:
    count = integer(0, recipes.QUESTIONS)
    number: Schema = {"type": "number", "minimum": 0, "maximum": 1e15}
    return closed(
        ["asked", "without", "with"],
        "No count is larger than `asked`.",
        asked=count,
        without=count,
        source=count,
        heldOut=count,
        perplexity=closed(["with", "without"], without=number, **{"with": number}),
        **{"with": count},
    )


def compatibility_key(storage: Schema | None = None) -> Schema:
    dtype = {"type": "string", "pattern": "^[A-Z0-9_]+$"}
    quantisation = line(100, pattern="^[a-z0-9][a-z0-9.:-]{0,99}$")
    scale = r"^(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?|sha256:[0-9a-f]{64})$"
    adapter = closed(
        ["identity", "scale"],
        identity=identity("mip1-adapter"),
        scale={"type": "string", "pattern": scale},
    )
    fields: dict[str, Schema] = {
        "baseIdentity": identity("mip1-base"),
        "computeDtype": dtype,
        "weightQuantisation": quantisation,
        "architecture": digest(),
        "rope": anything(),
        "kvDtype": dtype,
        "kvQuantisation": storage or quantisation,
        "adapters": several(adapter, 64),
        "tokenizer": digest(),
        "specialTokens": line(200, pattern="^(?:bare|given|added:(?:[0-9]+(?:,[0-9]+)*)?)$"),
        "tokens": closed(["count", "digest"], count=integer(1, limits.KV_TOKENS), digest=digest()),
        "positionOffset": integer(),
        "postRope": {"type": "boolean"},
    }
    return closed(list(fields), **fields)


def activation_manifest() -> Schema:
    layer = closed(
        ["kvHeads", "keyDim", "valueDim"],
        kvHeads=integer(1),
        keyDim=integer(1),
        valueDim=integer(1),
    )
    blocks = closed(
        ["blockBytes", "start", "size", "blake3"],
        blockBytes=integer(1),
        start=integer(),
        size=integer(),
        blake3={"type": "string", "pattern": HASHES},
    )
    source = closed([], text={"type": "string"}, digest=digest())
    return closed(
        ["mipVersion", "id", "key", "layers", "tokenChain", "blocks", "source", "information"],
        "manifest.json of an activation memory, in RFC 8785 form.",
        mipVersion={"const": config.MIP_VERSION},
        id=line(),
        key=compatibility_key({"enum": [NONE, INT8]}),
        layers=several(layer, 4096, minItems=1),
        tokenChain={"type": "string", "pattern": HASHES},
        blocks={
            "type": "object",
            "propertyNames": {"pattern": r"^l\d+\.[kv](?:\.scale)?$"},
            "additionalProperties": blocks,
        },
        source=source | {"not": {"required": ["text", "digest"]}},
        information=anything(),
    )


def adapter_metadata() -> Schema:
    base = closed(
        [],
        model=line(),
        revision=line(),
        identity=identity("mip1-base"),
        form=line(),
    )
    return closed(
        [],
        "The value of `memcube` in the metadata of adapter_model.safetensors: canonical JSON as text.",
        base=base,
        training=anything(),
    )


def adapter_compatibility() -> Schema:
    return closed(
        ["base", "rank", "alpha", "adapter", "modules", "tensors", "training"],
        "`compatibility` of a parametric memory in the config of a cube or a build.",
        base=adapter_metadata()["properties"]["base"],
        rank=integer(1, limits.LORA_RANK),
        alpha={"type": "number"},
        adapter=identity("mip1-adapter"),
        modules={
            "type": "object",
            "additionalProperties": several(integer(1), 3, minItems=3),
            "description": "Per full module path: rank, outputs, inputs.",
        },
        tensors={
            "type": "object",
            "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "description": "Per tensor: BLAKE3 of its bytes.",
        },
        training=anything(),
    )


def release() -> Schema:
    time = {"type": "string", "pattern": SECOND}
    origin = text(1024, description="host/namespace/name in lower case, without tag and digest.")
    parent = closed(
        ["origin", "digest", "relation"],
        origin=origin,
        digest=digest(),
        relation={"type": "string", "pattern": "^[a-z][a-z0-9-]{0,63}$"},
    )
    keys = several(
        {"type": "string", "pattern": "^[0-9a-f]{64}$"}, 64, minItems=1, uniqueItems=True
    )
    job = closed(
        ["issuer", "subject", "claims"],
        issuer=text(255, pattern=r"^https?://[!-~]*[!-.0-~]$"),
        subject=line(512),
        claims={
            "type": "object",
            "propertyNames": {"pattern": "^[a-z][a-z0-9_]{0,63}$", "not": {"const": "sub"}},
            "additionalProperties": line(512),
            "maxProperties": 32,
        },
    )
    schema = closed(
        ["origin", "version", "seq", "licence", "lineage", "publisher", "createdAt"],
        "The predicate of a release statement, in RFC 8785 form; keyIds are sorted.",
        origin=origin,
        version=text(limits.TAG_CHARS, description="A full SemVer 2.0 version."),
        seq=integer(1),
        previous=digest(),
        licence=text(256, pattern="^[A-Za-z0-9.+:()-]+(?: [A-Za-z0-9.+:()-]+)*$"),
        lineage=several(parent, 256),
        publisher=closed(["keyIds"], keyIds=keys),
        createdAt=time,
        expiresAt=time,
        job=job,
    )
    first = {"properties": {"seq": {"const": 1}}}
    chained = {"required": ["previous"]}
    return schema | {"if": first, "then": {"not": chained}, "else": chained}


def cube_manifest() -> Schema:
    annotations: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
    layer_annotations = annotations | {
        "required": [media_types.TITLE, media_types.FILEPATH, media_types.MEMORY]
    }
    layer = {
        "type": "object",
        "required": ["mediaType", "digest", "size", "annotations"],
        "properties": {
            "mediaType": choice(*sorted(media_types.LAYERS)),
            "digest": digest(),
            "size": integer(),
            "annotations": layer_annotations,
        },
    }
    cube_config = {
        "type": "object",
        "required": ["mediaType", "digest", "size"],
        "properties": {
            "mediaType": {"const": media_types.CONFIG},
            "digest": digest(),
            "size": integer(0, limits.CONFIG_BYTES),
        },
    }
    return {
        "description": "The OCI image manifest of a cube; fields of OCI that are not named here are ignored.",
        "type": "object",
        "required": ["schemaVersion", "artifactType", "config", "layers"],
        "properties": {
            "schemaVersion": {"const": 2},
            "mediaType": {"const": media_types.OCI_MANIFEST},
            "artifactType": {"const": media_types.CUBE},
            "config": cube_config,
            "layers": several(layer, limits.MANIFEST_LAYERS),
            "annotations": annotations,
        },
    }


SCHEMAS: Final = {
    "activation-manifest": activation_manifest,
    "adapter-compatibility": adapter_compatibility,
    "adapter-metadata": adapter_metadata,
    "build-config": build_config,
    "compatibility-key": compatibility_key,
    "config": cube_config,
    "manifest": cube_manifest,
    "record": record,
    "release": release,
}
"""Per file name in docs/spec/schemas, without `.json`."""


def document(name: str) -> Schema:
    """The whole schema document `name`."""
    return {"$schema": DIALECT, "$id": f"{BASE}{name}.json", "title": name, **SCHEMAS[name]()}
