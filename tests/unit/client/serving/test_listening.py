"""Listening sockets: a taken port is said to be, and small pieces of an answer leave at once."""

from __future__ import annotations

import asyncio
import socket

import pytest
from memcube.serving.listening import address_of, listen_at
from memcube_protocol.errors import ConflictError


def test_an_address_that_is_taken_or_of_another_machine_is_refused() -> None:
    with listen_at("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(ConflictError):
            listen_at("127.0.0.1", port)
    with pytest.raises(ConflictError):
        listen_at("192.0.2.1", 0)


def test_an_event_loop_sends_small_pieces_at_once() -> None:
    async def accepted() -> int:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = writer.get_extra_info("socket")
            told.set_result(line.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = listen_at("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            answer = await told
            writer.close()
            return answer

    assert asyncio.run(accepted())
