"""The registry of memcube: the OCI distribution API and what surrounds it."""
