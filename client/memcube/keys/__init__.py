"""The key documents of a namespace: who decides for it, and with which keys (docs/spec/keys.md).

documents   found at their registry, entered into its log, published
changes     announce, rotate, revoke, delegate, recover
proposals   files that people on several machines sign in turn
"""
