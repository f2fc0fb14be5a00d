"""The client of memcube: publish, pull, verify and mount memory for language models."""
