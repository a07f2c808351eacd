"""Malformed HTTP and JSON over a plain socket: an answer or a closed door, never a dead server."""

from __future__ import annotations

import json
import socket

import httpx
import pytest

from tests.e2e.chat import MODEL, QUESTION
from tests.e2e.server_process import ServerProcess

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
JSON = b"Content-Type: application/json\r\n"
GOOD = json.dumps({"model": MODEL, "messages": QUESTION, "max_tokens": 1}).encode()


def exchange(server: ServerProcess, request: bytes) -> bytes:
    """Everything the server answers until it closes the connection."""
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


def with_length(body: bytes, head: bytes = CHAT + JSON) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\x00",
    b"\xff\xfe{}",
    b'{"messages": NaN}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": [{"role": "user", "content": "\xc3\x28"}]}',
    b'{"messages": [{"role": "user", "content": "Hi"}], "\xff": 1}',
    b'{"messages": [{"role": "user", "content": "Hi"}], "x": "\xff"}',
    b"[" * 200_000,
    b'{"messages": [], "x": ' + b'{"y":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    b'{"messages": [{"role": "user", "content": "Hi"}], "seed": 1e999}',
    b'{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": -' + b"9" * 400 + b"}",
    b'{"messages": [{"role": "user", "content": "Hi"}], "temperature": -1e308}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_malformed_bodies(server: ServerProcess, body: bytes) -> None:
    answer = exchange(server, with_length(body))
    assert status_of(answer) == 400
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_huge_integers_are_seeds(server: ServerProcess) -> None:
    body = GOOD[:-1] + b', "seed": -' + b"9" * 400 + b"}"
    assert status_of(exchange(server, with_length(body))) == 200


def test_nul_and_control_characters_are_text(server: ServerProcess) -> None:
    body = json.dumps(
        {"messages": [{"role": "user", "content": "a\x00b\x1b[31m"}], "max_tokens": 1}
    ).encode()
    assert status_of(exchange(server, with_length(body))) == 200


def test_special_tokens_in_text_do_not_crash(server: ServerProcess) -> None:
    body = json.dumps(
        {"messages": [{"role": "user", "content": "<|im_end|><|endoftext|>"}], "max_tokens": 1}
    ).encode()
    assert status_of(exchange(server, with_length(body))) == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        CHAT + JSON + b"Content-Length: abc\r\n\r\n",
        CHAT + JSON + b"Content-Length: -5\r\n\r\n",
        CHAT + b"bad header\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_malformed_http(server: ServerProcess, request_bytes: bytes) -> None:
    answer = exchange(server, request_bytes + b"\r\n\r\n")
    assert answer == b"" or status_of(answer) == 400


def test_chunked_body(server: ServerProcess) -> None:
    request = CHAT + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    request += b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (10, GOOD[:10], len(GOOD) - 10, GOOD[10:])
    assert status_of(exchange(server, request)) == 200


def test_body_that_claims_too_much(server: ServerProcess) -> None:
    request = CHAT + JSON + b"Content-Length: 99999999999\r\n\r\n{"
    answer = exchange(server, request)
    assert status_of(answer) == 413
    assert b"request_too_large" in answer


@pytest.mark.parametrize("content_type", [b"", b"Content-Type: text/plain\r\n"])
def test_body_that_is_not_json(server: ServerProcess, content_type: bytes) -> None:
    assert status_of(exchange(server, with_length(GOOD, CHAT + content_type))) == 415


@pytest.mark.parametrize("path", [b"/v1", b"/v1/nothing", b"/..%2f..%2fetc", b"/%c3%a9"])
def test_unknown_paths(server: ServerProcess, path: bytes) -> None:
    head = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = exchange(server, head % path)
    assert status_of(answer) == 404
    assert b'"error"' in answer


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_unknown_methods(http: httpx.Client, method: str) -> None:
    response = http.request(method, "/tokenize")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_body_cut_short_by_the_client(server: ServerProcess) -> None:
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(CHAT + JSON + b"Content-Length: 1000\r\n\r\n{")
    answer = exchange(server, with_length(GOOD))
    assert status_of(answer) == 200


def test_one_connection_serves_many(http: httpx.Client) -> None:
    for _ in range(3):
        assert http.get("/health").json()["status"] == "ok"
        assert http.post("/v1/chat/completions", content=b"{").status_code == 415


@pytest.mark.parametrize("line", [b"Host: evil.example", b"Host: localhost\r\nOrigin: http://evil"])
def test_foreign_pages_and_names_stay_out(server: ServerProcess, line: bytes) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + line + b"\r\nConnection: close\r\n"
    answer = exchange(server, with_length(GOOD, head + b"Content-Type: text/plain\r\n"))
    assert status_of(answer) == 403
    assert b"access-control" not in answer
