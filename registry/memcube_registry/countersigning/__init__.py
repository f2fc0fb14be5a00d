"""The registry's countersignature: what it verified of a release before anybody resolved a tag to it.

queue.note       in the transaction that makes a release's bundle visible: this one is due
service          judges it, signs, logs, attaches; takes up at a later run what a crash cut off
judging          what is verified, pure; `rules.TEXT` says the same to people (docs/spec/attestations.md)
"""
