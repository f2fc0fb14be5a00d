"""Manifests, tags and referrers, and the collection of what nothing refers to any more."""
