from __future__ import annotations

import pytest

from weavemw.middleware.captured import Captured, capture


def returns(environ, start_response):
    start_response("200 OK", [("A", "1")])
    return [b"a", b"b"]


def writes(environ, start_response):
    start_response("200 OK", [("A", "1")])(b"a")
    return [b"b"]


def generates(environ, start_response):
    start_response("200 OK", [("A", "1")])
    yield b"a"
    yield b"b"


def generates_late(environ, start_response):
    def body():
        start_response("200 OK", [("A", "1")])
        yield b"ab"

    return body()


def thinks_better_of_it(environ, start_response):
    start_response("500 Internal Server Error", [])
    start_response("200 OK", [("A", "1")], (None, None, None))
    return [b"ab"]


@pytest.mark.parametrize("app", [returns, writes, generates, generates_late, thinks_better_of_it])
def test_every_way_of_answering(app):
    """However a WSGI app answers (PEP 3333), the whole answer is held."""
    captured = capture(app, {})
    assert captured == Captured("200 OK", [("A", "1")], b"ab")
    assert captured.code == 200


class Closing(list):
    closed = False

    def close(self):
        self.closed = True


@pytest.mark.parametrize("chunks", [[b"a"], [1]])
def test_answer_is_closed(chunks):
    """The app's iterable is closed, also after an error."""
    answer = Closing(chunks)

    def app(environ, start_response):
        start_response("200 OK", [])
        return answer

    try:
        capture(app, {})
    except TypeError:
        assert chunks == [1]
    assert answer.closed


def test_sent_as_it_was():
    """Sending it gives the same status, headers and body, and no body for none."""
    sent = []
    assert Captured("204 No Content", [("A", "1")], b"").send(lambda *args: sent.append(args)) == []
    assert sent == [("204 No Content", [("A", "1")])]
    assert Captured("200 OK", [], b"x").send(lambda *args: sent.append(args)) == [b"x"]
