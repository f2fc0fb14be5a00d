"""Who says so: keys, envelopes, statements, bundles. Pure: no sockets, no files, no clock."""
