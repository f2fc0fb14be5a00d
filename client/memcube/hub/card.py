"""The README that the Hub shows for a cube: metadata that the Hub reads, then the cube's own card.

Metadata is written as YAML whose values are all JSON: no text of a cube can end its string and become
something else. The Hub refuses a licence, a language or a base model that it does not know; those are left
out or given as `other`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from memcube_protocol import media_types
from memcube_protocol.config import PARAMETRIC
from memcube_protocol.cube import Cube
from memcube_protocol.governance import Governance

from memcube.hub.layout import CARD_TAG

_FENCE: Final = "---"
_MODEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")
_OWN_METADATA: Final = re.compile(r"\A---[ \t]*\r?\n.*?^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
_TAG_CHARS: Final = 64
_HUB_LICENCES: Final = frozenset(
    """apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigcode-openrail-m afl-3.0
    artistic-2.0 bsl-1.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0
    cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0
    gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl osl-3.0 postgresql ofl-1.1
    ncsa unlicense zlib pddl""".split()  # noqa: SIM905 - one word a name reads better than a quoted list
)
_RENAMED: Final = {"odbl-1.0": "odbl", "odc-by-1.0": "odc-by", "pddl-1.0": "pddl"}


def readme(cube: Cube, own: str, place: str) -> bytes:
    """The README of `cube` at the reference `place`; `own` is the cube's card, empty if it has none."""
    lines = [f"{key}: {_yaml(value)}" for key, value in metadata(cube).items()]
    body = _OWN_METADATA.sub("", own, count=1).strip("\n") or _body(cube)
    note = (
        f"This repository holds a MemCube, version {cube.config.version}. `memcube pull {place}` fetches "
        "it and checks who released it; its manifest and signatures are in `.memcube/`."
    )
    return "\n".join([_FENCE, *lines, _FENCE, body, "", _FENCE, "", note, ""]).encode()


def metadata(cube: Cube) -> dict[str, Any]:
    """What the Hub's search, its viewer and its libraries read of `cube`."""
    config = cube.config
    found: dict[str, Any] = _licence(config.governance)
    languages = {text.partition("-")[0].lower() for text in config.descriptive.languages}
    if known := sorted(text for text in languages if _LANGUAGE.fullmatch(text)):
        found["language"] = known
    words = (*config.descriptive.tags, *config.descriptive.domains)
    found["tags"] = list(dict.fromkeys([CARD_TAG, *(word[:_TAG_CHARS] for word in words)]))
    if config.title:
        found["pretty_name"] = config.title
    if any(memory.kind == PARAMETRIC for memory in config.memories):
        found["library_name"] = "peft"
    if bases := _bases(cube):
        found["base_model"] = bases[0] if len(bases) == 1 else bases
    if any(file.media_type == media_types.RECORDS for file in cube.files):
        split = {"split": "train", "path": "plaintext/*.jsonl.zst"}
        found["configs"] = [{"config_name": "default", "data_files": [split]}]
    return found


def _licence(governance: Governance) -> dict[str, Any]:
    """How the Hub names the licence."""
    if governance.licence == "NOASSERTION":
        return {}
    name = governance.licence.lower().removesuffix("-only").removesuffix("-or-later")
    name = _RENAMED.get(name, name)
    if name in _HUB_LICENCES:
        return {"license": name}
    link = {"license_link": governance.licence_url} if governance.licence_url else {}
    return {"license": "other", "license_name": governance.licence.lower(), **link}


def _bases(cube: Cube) -> list[str]:
    """Models on the Hub for which the cube carries an adapter."""
    found = []
    for memory in cube.config.memories:
        base = memory.compatibility.get("base") if memory.kind == PARAMETRIC else None
        name = base.get("model") if isinstance(base, Mapping) else None
        if isinstance(name, str) and _MODEL.fullmatch(name):
            found.append(name)
    return list(dict.fromkeys(found))


def _body(cube: Cube) -> str:
    """A card for a cube without one."""
    config = cube.config
    return f"# {config.title or config.name}" + (f"\n\n{config.summary}" if config.summary else "")


def _yaml(value: object) -> str:
    """`value` as JSON, which is YAML too, in characters that every reader of YAML prints."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)
