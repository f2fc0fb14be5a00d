"""Using cubes that others published: found, verified, kept, listed, forgotten.

finding     in the store or at a registry: nothing is believed yet
verifying   the one step that every cube passes through
opening     pull, resolve, open, fetch: found, verified, kept
holdings    what the local store holds
listing     what a place elsewhere holds
policies    what the trust policy demands of a name
proofs      proofs in files, for machines without a network
"""
