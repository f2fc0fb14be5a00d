"""From a folder to a cube in the local store, and from the store back to a folder."""
