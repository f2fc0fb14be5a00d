"""Who we are at a registry, and what proves it.

session           logging in and out, and asking a registry who it takes us for
credentials       what proves it, one pair per host: in the keyring, or in a private file
publishers        CI jobs that may push to a cube without a password
identity_tokens   what such a job shows
"""
