"""The transparency log, as values over bytes: Merkle tree, tiles, checkpoints and entries (MIP 1.0 §8)."""
