"""Rate limits: token buckets in one process, in a file of one machine, or in PostgreSQL for all replicas."""
