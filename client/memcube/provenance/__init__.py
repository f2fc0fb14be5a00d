"""Where a cube comes from: a tree of its parents with who states what about each.

tree = trace(context, reference)       follows the lineage through stores and registries
text_of(tree), json_of(tree), svg_of(tree)
"""

from memcube.provenance.drawing import svg_of
from memcube.provenance.telling import json_of, text_of
from memcube.provenance.tree import Node, trace

__all__ = ["Node", "json_of", "svg_of", "text_of", "trace"]
