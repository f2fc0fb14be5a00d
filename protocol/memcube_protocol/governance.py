"""The parts of a cube's config that describe it and rule its use (docs/spec/config.md)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from memcube_protocol.fields import Described, Fields, write_moment
from memcube_protocol.values import frozen

ACCESS: Final = ("open", "listed", "private")
SENSITIVITIES: Final = ("public", "internal", "confidential", "restricted")
PERSONAL_DATA: Final = ("none", "pseudonymous", "personal", "special-category")
USES: Final = (
    "personal",
    "commercial",
    "research",
    "education",
    "evaluation",
    "training",
)
REDISTRIBUTIONS: Final = ("allowed", "same-licence", "forbidden")
PROCESSING: Final = ("anywhere", "local")
PRIORITIES: Final = ("low", "normal", "high")
WATERMARKS: Final = ("none", "optional", "required")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")
_TAG: Final = re.compile(r"[^\s,]+(?: [^\s,]+)*")
_LICENCE: Final = re.compile(r"LicenseRef-[A-Za-z0-9.-]+|[A-Za-z0-9][A-Za-z0-9.-]*\+?")
_URL: Final = re.compile(r"https?://[^\s<>\"\\^`{|}]+")


@frozen
class Source(Described):
    """A work that the cube's content comes from: its name, address and licence."""

    name: str
    url: str | None = None
    licence: str | None = None

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        values: dict[str, Any] = {
            "name": fields.text("name"),
            "url": fields.optional_text("url", chars=2000, pattern=_URL),
            "licence": fields.optional_text("licence", pattern=_LICENCE),
        }
        fields.finish()
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this source; what is absent is left out."""
        value = {"name": self.name, "url": self.url, "licence": self.licence}
        return {key: item for key, item in value.items() if item is not None}


@frozen
class Descriptive(Described):
    """What a cube is about. Languages are BCP 47 tags; the rest are words of the publisher."""

    languages: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        values: dict[str, Any] = {
            "languages": fields.texts("languages", pattern=_LANGUAGE),
            "domains": fields.texts("domains", pattern=_TAG),
            "tags": fields.texts("tags", pattern=_TAG),
            "semantic_types": fields.texts("semanticTypes", pattern=_TAG),
            "sources": tuple(map(Source.from_fields, fields.tables("sources", count=256))),
        }
        fields.finish()
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this part; empty lists are left out."""
        value: dict[str, Any] = {
            "languages": list(self.languages),
            "domains": list(self.domains),
            "tags": list(self.tags),
            "semanticTypes": list(self.semantic_types),
            "sources": [source.to_json() for source in self.sources],
        }
        return {key: items for key, items in value.items() if items}


@frozen
class Governance(Described):
    """The rules a cube asks its holders to keep.

    `licence` is an SPDX id, or `LicenseRef-…` with a `licence_url`. `allowed_uses` is empty where
    the licence alone decides. `retention_days` is how long a holder may keep a copy. `processing` says
    where its content may be used: on every machine, or on the holder's own alone.
    """

    licence: str = "NOASSERTION"
    licence_url: str | None = None
    access: str = "open"
    sensitivity: str = "public"
    personal_data: str = "none"
    allowed_uses: tuple[str, ...] = ()
    redistribution: str = "allowed"
    processing: str = "anywhere"
    expires_at: datetime | None = None
    retention_days: int | None = None
    priority: str = "normal"
    watermark: str = "none"

    @staticmethod
    def _read(fields: Fields) -> dict[str, Any]:
        values: dict[str, Any] = {
            "licence": fields.text("licence", "NOASSERTION", pattern=_LICENCE),
            "licence_url": fields.optional_text("licenceUrl", chars=2000, pattern=_URL),
            "access": fields.choice("access", ACCESS, "open"),
            "sensitivity": fields.choice("sensitivity", SENSITIVITIES, "public"),
            "personal_data": fields.choice("personalData", PERSONAL_DATA, "none"),
            "allowed_uses": fields.texts("allowedUses", pattern=re.compile("|".join(USES))),
            "redistribution": fields.choice("redistribution", REDISTRIBUTIONS, "allowed"),
            "processing": fields.choice("processing", PROCESSING, "anywhere"),
            "expires_at": fields.moment("expiresAt"),
            "retention_days": fields.integer("retentionDays", least=1, most=36_525),
            "priority": fields.choice("priority", PRIORITIES, "normal"),
            "watermark": fields.choice("watermark", WATERMARKS, "none"),
        }
        fields.finish()
        if values["licence"].startswith("LicenseRef-") and not values["licence_url"]:
            raise fields.refuse("licenceUrl", "is missing: a LicenseRef- names no known licence")
        return values

    def to_json(self) -> dict[str, Any]:
        """The JSON object of this part; fields at their default are left out."""
        value: dict[str, Any] = {
            "licence": self.licence if self.licence != "NOASSERTION" else None,
            "licenceUrl": self.licence_url,
            "access": self.access if self.access != "open" else None,
            "sensitivity": self.sensitivity if self.sensitivity != "public" else None,
            "personalData": self.personal_data if self.personal_data != "none" else None,
            "allowedUses": list(self.allowed_uses) or None,
            "redistribution": self.redistribution if self.redistribution != "allowed" else None,
            "processing": self.processing if self.processing != "anywhere" else None,
            "expiresAt": write_moment(self.expires_at) if self.expires_at else None,
            "retentionDays": self.retention_days,
            "priority": self.priority if self.priority != "normal" else None,
            "watermark": self.watermark if self.watermark != "none" else None,
        }
        return {key: item for key, item in value.items() if item is not None}
