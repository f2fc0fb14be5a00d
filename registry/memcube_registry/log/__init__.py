"""The registry's transparency log: entries appended in batches, tiles and checkpoints (docs/spec/log.md)."""
