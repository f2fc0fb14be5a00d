"""Who may sign in a namespace: key documents, their chain, and the judgement on a signature.

A namespace (`registry.example/alice`) has one chain of key documents. Each says the whole state: the
keys of the authority and how many of them decide, the recovery keys, who else may release what, which
keys are revoked. A document counts when those in charge before it signed it (docs/spec/keys.md).
"""
