"""One module a command; `memcube.cli.table` says which."""
