"""Blobs: stored once, visible per repository, uploaded in sessions."""
