"""A provenance tree as text, JSON and a drawing, whatever its names hold."""

from __future__ import annotations

from xml.etree import ElementTree

from memcube.provenance import Node, json_of, svg_of, text_of
from memcube_protocol.digest import Digest


def node(name: str, *parents: Node, relation: str | None = None, **more) -> Node:
    return Node(name, Digest.of(name.encode()), relation, parents=parents, **more)


TREE = node(
    "registry.example/alice/book",
    node(
        "registry.example/bob/facts",
        node("registry.example/eve/<b>&", relation="derived-from", why_unknown="no answer"),
        relation="merged-from",
    ),
    node("registry.example/carol/notes", relation="derived-from", why_unknown="not found"),
)


def test_the_text_is_a_tree_with_every_parent_under_its_child():
    lines = text_of(TREE).splitlines()
    names = [line for line in lines if "registry.example" in line]
    assert names == [
        "registry.example/alice/book",
        "├── merged-from registry.example/bob/facts",
        "│   └── derived-from registry.example/eve/<b>&",
        "└── derived-from registry.example/carol/notes",
    ]
    assert any("unknown   no answer" in line for line in lines)


def test_the_json_holds_every_node():
    value = json_of(TREE)
    assert value["parents"][0]["parents"][0]["unknown"] == "no answer"
    assert value["parents"][1]["relation"] == "derived-from"


def test_the_drawing_is_well_formed_and_shows_every_cube():
    root = ElementTree.fromstring(svg_of(TREE))
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 1 + 4
    assert f"registry.example/eve/<b>&@{Digest.of(b'registry.example/eve/<b>&')}" in titles
    paths = list(root.iter("{http://www.w3.org/2000/svg}path"))
    assert len(paths) == 3


def test_the_drawing_of_hostile_names_holds_no_script():
    drawn = svg_of(node('</title><script>alert("x")</script>\x00\u202e'))
    root = ElementTree.fromstring(drawn)
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
