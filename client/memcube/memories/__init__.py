"""Memories made usable: text searched, caches and adapters given to a model."""
