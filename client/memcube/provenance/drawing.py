"""A provenance tree as an SVG drawing: boxes from left (the cube) to right (what it was made from)."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Final

from memcube_protocol.values import frozen

from memcube.provenance.tree import Node

_WIDTH: Final = 300
_HEIGHT: Final = 84
_GAP_X: Final = 110
_GAP_Y: Final = 22
_MARGIN: Final = 20
_CHARS: Final = 40
_COLOURS: Final = {
    "trusted": "#2e7d32",
    "first-use": "#1565c0",
    "local": "#1565c0",
    "unsigned": "#b26a00",
    "refused": "#c62828",
}
_UNKNOWN: Final = "#757575"


@frozen
class _Box:
    """A node at its place: column (generation) and row, both counted from 0; the row may be a half."""

    node: Node
    column: int
    row: float
    parents: tuple[_Box, ...]

    @property
    def x(self) -> int:
        return _MARGIN + self.column * (_WIDTH + _GAP_X)

    @property
    def y(self) -> float:
        return _MARGIN + self.row * (_HEIGHT + _GAP_Y)


def svg_of(root: Node) -> str:
    """The drawing; every text in it is escaped, and it loads nothing."""
    boxes, rows = _place(root, 0, 0)
    every = list(_walk(boxes))
    columns = 1 + max(box.column for box in every)
    width = 2 * _MARGIN + columns * _WIDTH + (columns - 1) * _GAP_X
    height = 2 * _MARGIN + rows * _HEIGHT + (rows - 1) * _GAP_Y
    edges = [_edge(box, parent) for box in every for parent in box.parents]
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" font-family="sans-serif">'
    )
    return "\n".join(
        [
            opening,
            f"<title>Provenance of {_escaped(root.name)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *edges,
            *(_drawn(box) for box in every),
            "</svg>\n",
        ]
    )


def _place(node: Node, column: int, row: int) -> tuple[_Box, int]:
    """The box of `node` with its parents from `row` down, and how many rows they take."""
    placed: list[_Box] = []
    taken = 0
    for parent in node.parents:
        box, rows = _place(parent, column + 1, row + taken)
        placed.append(box)
        taken += rows
    middle = (placed[0].row + placed[-1].row) / 2 if placed else float(row)
    return _Box(node, column, middle, tuple(placed)), max(taken, 1)


def _walk(box: _Box) -> Iterator[_Box]:
    yield box
    for parent in box.parents:
        yield from _walk(parent)


def _drawn(box: _Box) -> str:
    node = box.node
    colour = _COLOURS.get(node.standing, _UNKNOWN)
    statements = sum(claim.key is not None for claim in node.claims)
    lines = [
        f"{node.name} {node.version or ''}".strip(),
        f"{node.licence} · {node.standing}",
        f"{statements} statements verified" if node.config else (node.why_unknown or ""),
        str(node.digest),
    ]
    texts = [
        f'<text x="{box.x + 12}" y="{box.y + 20 + 18 * number:g}" font-size="{13 if number == 0 else 11}" '
        f'fill="{"#111111" if number == 0 else "#444444"}">{_escaped(_cut(line))}</text>'
        for number, line in enumerate(lines)
    ]
    frame = (
        f'<rect x="{box.x}" y="{box.y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
        f'fill="#fafafa" stroke="{colour}" stroke-width="2"/>'
    )
    return "\n".join(
        [f"<g><title>{_escaped(node.name)}@{node.digest}</title>", frame, *texts, "</g>"]
    )


def _edge(child: _Box, parent: _Box) -> str:
    x1, y1 = child.x + _WIDTH, child.y + _HEIGHT / 2
    x2, y2 = parent.x, parent.y + _HEIGHT / 2
    middle = (x1 + x2) / 2
    label = _escaped(parent.node.relation or "")
    return (
        f'<path d="M{x1} {y1:g} C{middle:g} {y1:g} {middle:g} {y2:g} {x2} {y2:g}" fill="none" '
        f'stroke="#999999" stroke-width="1.5"/>'
        f'<text x="{x2 - 8}" y="{y2 - 6:g}" font-size="10" fill="#555555" text-anchor="end">{label}</text>'
    )


def _cut(text: str) -> str:
    return text if len(text) <= _CHARS else f"{text[: _CHARS - 1]}…"


def _escaped(text: str) -> str:
    """`text` for XML: markup escaped, and what XML cannot hold replaced."""
    return html.escape("".join(char if char.isprintable() else "\ufffd" for char in text))
