"""The consistency check of database and blob store: finds and says, changes nothing."""
