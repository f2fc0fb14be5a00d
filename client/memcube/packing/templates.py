"""The folders that `memcube init` writes: each packs as it is."""
