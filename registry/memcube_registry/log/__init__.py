"""The registry's transparency log: entries appended in batches, tiles and checkpoints (MIP 1.0 §8)."""
