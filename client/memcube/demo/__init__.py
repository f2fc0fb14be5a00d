"""The demonstration: a cube made, published, verified and mounted on one machine."""
