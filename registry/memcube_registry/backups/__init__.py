"""Backups: a folder of blobs by digest and of snapshots, made while the registry serves, and proven.

```
memcube-backup.json             what this folder is
blobs/sha256/ab/abcd…           each blob once, whichever snapshots hold it
snapshots/20261127T153000Z/     whole or not there: made under another name
    snapshot.json               what it is, and the SHA-256 of every file of it
    tables/account.jsonl        each table: its columns, then a row a line
    keys/token.key              for its owner only
```
"""
