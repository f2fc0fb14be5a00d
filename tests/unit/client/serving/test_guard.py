"""The guard in front of the HTTP server: names, pages, tokens, before a byte of the body."""

from __future__ import annotations

import anyio
import pytest
from memcube.serving import guard as guard_module
from memcube.serving.guard import Entrance, Guard, Receive, Send
from memcube_protocol.errors import InvalidSettingError

TOKEN = "t" * 32
HOST = (b"host", b"127.0.0.1:7080")


def entrance(**more: object) -> Entrance:
    return Entrance.of("127.0.0.1", 7080, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([HOST], None),
        ([(b"Host", b"LOCALHOST:7080")], None),
        ([(b"host", b"[::1]:7080")], None),
        ([], 421),
        ([HOST, HOST], 421),
        ([(b"host", b"127.0.0.1")], 421),
        ([(b"host", b"127.0.0.1:7081")], 421),
        ([(b"host", b"rebound.example:7080")], 421),
        ([(b"host", b"127.0.0.1:7080.rebound.example")], 421),
        ([HOST, (b"origin", b"http://127.0.0.1:7080")], None),
        ([HOST, (b"origin", b"http://localhost:3000")], 403),
        ([HOST, (b"origin", b"https://evil.example")], 403),
        ([HOST, (b"origin", b"null")], 403),
        ([HOST, (b"sec-fetch-site", b"none")], None),
        ([HOST, (b"sec-fetch-site", b"same-origin")], None),
        ([HOST, (b"sec-fetch-site", b"cross-site")], 403),
        ([HOST, (b"sec-fetch-site", b"same-site")], 403),
        ([HOST, (b"sec-fetch-site", b"cross-site"), (b"origin", b"http://127.0.0.1:7080")], None),
        ([HOST, (b"origin", b"")], 403),
        ([HOST, (b"origin", b"http://localhost:7080"), (b"origin", b"https://evil.example")], 403),
    ],
)
def test_only_requests_for_this_server_from_its_own_pages_pass(
    headers: list[tuple[bytes, bytes]], status: int | None
) -> None:
    refused = entrance().refuses(headers)
    assert (refused and refused[0]) == status


def test_names_and_pages_that_the_user_allows_pass() -> None:
    allowed = entrance(hosts=("Memories.example",), origins=("https://app.example",))
    headers = [(b"host", b"memories.example"), (b"origin", b"https://app.example")]
    assert allowed.refuses(headers) is None


@pytest.mark.parametrize(
    ("shown", "passes"),
    [
        ([f"Bearer {TOKEN}"], True),
        ([f"bearer {TOKEN}"], True),
        ([], False),
        ([TOKEN], False),
        ([f"Basic {TOKEN}"], False),
        ([f"Bearer {TOKEN}x"], False),
        ([f"Bearer {TOKEN[1:]}"], False),
        (["Bearer é" + TOKEN], False),
        ([f"Bearer {TOKEN}"] * 2, False),
    ],
)
def test_a_token_has_to_be_shown_whole_and_once(shown: list[str], passes: bool) -> None:
    headers = [HOST, *((b"authorization", text.encode("latin-1")) for text in shown)]
    refused = entrance(token=TOKEN).refuses(headers)
    assert refused is None if passes else refused is not None and refused[0] == 401


@pytest.mark.parametrize("token", ["short", "t" * 31, "t" * 32 + " x", "é" * 32])
def test_a_weak_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidSettingError):
        entrance(token=token)


@pytest.mark.parametrize("origin", ["*", "null", "https://*", "app.example", "https://a.b/c", ""])
def test_what_is_no_origin_of_a_page_is_refused(origin: str) -> None:
    with pytest.raises(InvalidSettingError, match="not the origin"):
        entrance(origins=(origin,))


def test_other_machines_are_let_in_with_a_token_only() -> None:
    with pytest.raises(InvalidSettingError, match="other machines"):
        Entrance.of("0.0.0.0", 7080)
    assert (
        Entrance.of("192.0.2.7", 7080, token=TOKEN).refuses(
            [(b"host", b"192.0.2.7:7080"), (b"authorization", f"Bearer {TOKEN}".encode())]
        )
        is None
    )


def test_a_token_does_not_stand_in_what_is_printed_of_an_entrance() -> None:
    assert TOKEN not in repr(entrance(token=TOKEN))


def answered(guard: Guard, scope: dict) -> list[dict]:
    sent: list[dict] = []

    async def receive() -> dict:
        raise AssertionError("the body was read")

    async def send(message: dict) -> None:
        sent.append(message)

    anyio.run(guard, scope, receive, send)
    return sent


@pytest.mark.parametrize("ends", ["quietly", "with an error", "with an answer of its own"])
def test_a_body_that_does_not_come_in_time_is_refused(
    monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr(guard_module, "BODY_S", 0)
    heard: list[str] = []
    sent: list[dict] = []

    async def receive() -> dict:
        if not heard:
            return {"type": "http.request", "body": b"{", "more_body": True}
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: dict) -> None:
        sent.append(message)

    async def application(scope: dict, receive: Receive, send: Send) -> None:
        for _ in range(3):
            heard.append((await receive())["type"])
        if ends == "with an error":
            raise ConnectionError("gone")
        if ends == "with an answer of its own":
            await send({"type": "http.response.start", "status": 500, "headers": []})

    scope = {"type": "http", "method": "POST", "headers": [HOST]}
    anyio.run(Guard(application, entrance()), scope, receive, send)
    assert heard == ["http.request", "http.disconnect", "http.disconnect"]
    start, body = sent
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert b"did not come" in body["body"]


def test_an_answer_may_take_longer_than_its_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "BODY_S", 0)
    sent: list[dict] = []

    async def receive() -> dict:
        if sent:
            await anyio.sleep(0.01)
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"{}"}

    async def send(message: dict) -> None:
        sent.append(message)

    async def application(scope: dict, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.disconnect"
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        anyio.run(
            Guard(application, entrance()),
            {"type": "http", "method": "POST", "headers": [HOST]},
            receive,
            send,
        )
    assert [message.get("status") for message in sent] == [200]


def test_what_is_refused_never_reaches_the_application() -> None:
    async def application(scope: object, receive: object, send: object) -> None:
        raise AssertionError("reached")

    guard = Guard(application, entrance(token=TOKEN))
    start, body = answered(guard, {"type": "http", "method": "POST", "headers": [HOST]})
    assert start["status"] == 401
    assert (b"www-authenticate", b"Bearer") in start["headers"]
    assert TOKEN.encode() not in body["body"]
    assert answered(guard, {"type": "websocket", "headers": [HOST]}) == []


def test_a_preflight_shows_no_token_and_comes_from_an_allowed_page_only() -> None:
    guarded = entrance(token=TOKEN, origins=("https://app.example",))
    asks = (b"access-control-request-method", b"POST")
    page, other = (b"origin", b"https://app.example"), (b"origin", b"https://evil.example")
    assert guarded.refuses([HOST, page, asks], "OPTIONS") is None
    for headers, method, status in (
        ([HOST, other, asks], "OPTIONS", 403),
        ([HOST, page], "OPTIONS", 401),
        ([HOST, page, asks], "POST", 401),
    ):
        refused = guarded.refuses(headers, method)
        assert refused is not None
        assert refused[0] == status


def test_what_is_allowed_reaches_it() -> None:
    reached: list[str] = []

    async def application(scope: dict, receive: object, send: object) -> None:
        reached.append(scope["type"])

    guard = Guard(application, entrance())  # type: ignore[arg-type]
    for scope in ({"type": "http", "method": "POST", "headers": [HOST]}, {"type": "lifespan"}):
        answered(guard, scope)
    assert reached == ["http", "lifespan"]
