"""Publishing a cube, and what its owner does with it later.

pushing       from a folder, or a cube packed before, to a published one
publish       blobs, manifest, statements as referrers, tags last
vetting       the scan before: it stops secrets and programs
rivals        two machines that release at once
healing       sending again what a registry has lost
tagging, withdrawing, attesting, cosigning      further tags, states, statements and signatures
exposure      who may read it, and whether its governance bears that
visibility    how that is set at a place
"""
