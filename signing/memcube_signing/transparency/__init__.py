"""The transparency log, as values over bytes: Merkle tree, tiles, checkpoints and entries (docs/spec/log.md)."""
