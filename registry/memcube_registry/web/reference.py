"""The API's reference as one page made from its OpenAPI document: no script, no foreign host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any, Final

METHODS: Final = ("get", "put", "post", "delete")
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def stylesheet() -> str:
    """The page's style sheet."""
    return files("memcube_registry.web").joinpath("reference.css").read_text(encoding="utf-8")


def page(document: Mapping[str, Any], *, style_url: str, document_url: str) -> str:
    """The reference of the API that `document` (OpenAPI 3.1) describes, as HTML."""
    info = document["info"]
    operations = list(_operations(document))
    links = "".join(f'<li><a href="#{op.anchor}">{op.heading}</a></li>' for op in operations)
    sections = "".join(op.section() for op in operations)
    title = escape(f"{info['title']} {info['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="{escape(style_url)}"></head><body>'
        f"<header><h1>{title}</h1><p>{escape(info.get('description') or '')}</p>"
        f'<p>Machine-readable: <a href="{escape(document_url)}">OpenAPI document</a>.</p></header>'
        f'<nav aria-label="Operations"><ul>{links}</ul></nav><main>{sections}</main></body></html>'
    )


class _Operation:
    """One method of one path."""

    def __init__(
        self, document: Mapping[str, Any], path: str, method: str, entry: Mapping[str, Any]
    ) -> None:
        self._document = document
        self._path = path
        self._method = method
        self._entry = entry
        self.anchor = escape(str(entry["operationId"]))
        self.heading = (
            f'<span class="method {method}">{method.upper()}</span> <code>{escape(path)}</code>'
        )

    def section(self) -> str:
        """Everything about it."""
        summary = escape(self._entry.get("description") or self._entry.get("summary") or "")
        return (
            f'<section id="{self.anchor}"><h3>{self.heading}</h3><p>{summary}</p>'
            f"{self._parameters()}{self._body()}{self._answers()}{self._example()}</section>"
        )

    def _parameters(self) -> str:
        rows = "".join(
            f"<tr><td><code>{escape(entry['name'])}</code></td><td>{escape(entry['in'])}</td>"
            f"<td>{escape(self._kind(entry.get('schema', {})))}</td></tr>"
            for entry in self._entry.get("parameters", ())
        )
        return rows and (
            "<h4>Parameters</h4><table><thead><tr><th>Name</th><th>In</th><th>Type</th></tr>"
            f"</thead><tbody>{rows}</tbody></table>"
        )

    def _body(self) -> str:
        schema = self._request_schema()
        return f"<h4>Body</h4>{self._fields(schema)}" if schema else ""

    def _answers(self) -> str:
        parts = []
        for status, answer in self._entry.get("responses", {}).items():
            content = answer.get("content", {}).get("application/json", {}).get("schema", {})
            if int(status) < 300:
                parts.append(f"<h4>Answer {escape(status)}</h4>{self._fields(content)}")
        return "".join(parts)

    def _fields(self, schema: Mapping[str, Any]) -> str:
        inner = self._resolved(schema)
        if inner.get("type") == "array":
            return "<p>A list of:</p>" + self._fields(inner.get("items", {}))
        rows = "".join(
            f"<tr><td><code>{escape(name)}</code></td><td>{escape(self._kind(entry))}</td></tr>"
            for name, entry in inner.get("properties", {}).items()
        )
        about = f"<p>{escape(inner['description'])}</p>" if inner.get("description") else ""
        return about + (
            f"<table><thead><tr><th>Field</th><th>Type</th></tr></thead><tbody>{rows}</tbody></table>"
            if rows
            else ""
        )

    def _example(self) -> str:
        command = f"curl -X {self._method.upper()} -H 'Authorization: Bearer $TOKEN' $REGISTRY{self._path}"
        schema = self._resolved(self._request_schema())
        if schema:
            body = {name: self._kind(entry) for name, entry in schema.get("properties", {}).items()}
            command += f" \\\n  -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
        return f"<h4>Try it</h4><pre><code>{escape(command)}</code></pre>"

    def _request_schema(self) -> Mapping[str, Any]:
        body = self._entry.get("requestBody", {}).get("content", {})
        schema: Mapping[str, Any] = body.get("application/json", {}).get("schema", {})
        return schema

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        if "$ref" not in schema:
            return schema
        name = schema["$ref"].rpartition("/")[2]
        found: Mapping[str, Any] = self._document["components"]["schemas"][name]
        return found

    def _kind(self, schema: Mapping[str, Any]) -> str:
        """The type of a field in a few words."""
        inner = self._resolved(schema)
        if "enum" in inner:
            return " | ".join(map(str, inner["enum"]))
        if "oneOf" in inner:
            return " or ".join(self._kind(choice) for choice in inner["oneOf"])
        if inner.get("type") == "array":
            return f"list of {self._kind(inner.get('items', {}))}"
        kind = inner.get("type", "object")
        words = " or ".join(kind) if isinstance(kind, list) else str(kind)
        return f"{words} ({inner['format']})" if "format" in inner else words


def _operations(document: Mapping[str, Any]) -> Iterator[_Operation]:
    for path, methods in sorted(document.get("paths", {}).items()):
        for method in METHODS:
            if method in methods:
                yield _Operation(document, path, method, methods[method])
