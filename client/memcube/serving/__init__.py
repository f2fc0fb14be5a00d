"""What the servers for programs of this machine share (`memcube mcp`, `memcube proxy`).

listening     their sockets
http_server   uvicorn, which waits for no caller without end
guard         who may talk to them
"""
