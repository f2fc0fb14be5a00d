"""Who may read or change which bytes, and in which form."""
