"""Using cubes that others published: found, verified, kept, listed, forgotten.

consume    resolve, fetch, verify, keep: the way of every cube to this machine
holdings   what the local store holds
listing    what a place elsewhere holds
policies   what the trust policy demands of a name
proofs     proofs in files, for machines without a network
"""
