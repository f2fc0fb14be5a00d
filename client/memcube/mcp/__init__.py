"""Mounted memories for any agent that speaks the Model Context Protocol.

    memcube mcp acme/cardiology:1.4 --overlay ~/notes

`desk` answers what the tools ask, `tools` says which there are, `resources` and `prompts` likewise;
`server` is the only module that the official SDK is needed for, `transport` runs it over stdio or
HTTP. `clients` writes the configuration of those who start it.
"""
