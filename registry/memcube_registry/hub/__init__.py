"""Cubes for clients of the Hugging Face Hub: the part of its API that reads (docs/spec/hub.md)."""
