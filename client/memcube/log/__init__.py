"""Transparency logs as their users see them: nobody takes a log at its word.

watching     at every pull: the newest checkpoint against the highest one seen
monitoring   what was logged for a namespace, and whether a whole log is consistent
comparing    what this client was shown against what others were
forks        the proof that a log has shown two histories, kept for others to see
"""
