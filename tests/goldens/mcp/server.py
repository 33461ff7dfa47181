#!/usr/bin/env python3
"""A server of the `mcp` package with two tools, for executors/mcp/peer_test.cc. `./dev test` installs the package.

    server.py stdio
    server.py http PORT
"""

import sys

from mcp.server import MCPServer

server = MCPServer("peer")


@server.tool()
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return f"{a} + {b} = {a + b}"


@server.tool()
def fail(why: str) -> str:
    """Fails."""
    raise ValueError(why)


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run()
    else:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
