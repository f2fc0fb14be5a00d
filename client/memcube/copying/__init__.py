"""Copying cubes with all that is attached to them, past the local store.

registries   from registry to registry
folders      into folders and out of them, for machines that no network joins
oci_layout   such a folder, as oras and skopeo write it
passage      the way of a cube and its referrers from one repository to another
"""
