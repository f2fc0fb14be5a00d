"""Memories made usable, by kind: text searched, caches and adapters given to a model.

Here is what the kinds share: the identity of a model, checkpoints, and how memories are made and read.
"""
