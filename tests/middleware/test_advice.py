"""Warnings in the answer of create."""

from __future__ import annotations

import io
import json
from threading import BoundedSemaphore
from typing import Any

import pytest

from weavemw import context
from weavemw.attaching.decision import Attach, LeaveAlone
from weavemw.errors import DockerUnreachable, InvalidCidr, RouterUnreachable
from weavemw.middleware.advice import CreateAdviser, with_warnings
from weavemw.middleware.captured import Captured
from weavemw.network.addresses import parse
from weavemw.testing import FakeDocker, FakeRouter


class World:
    def __init__(self) -> None:
        self.docker, self.router = FakeDocker(), FakeRouter("10.32.0.0/12")

    def warnings(self, decision: object, env: tuple[str, ...] = (), network: str = "") -> list[str]:
        adviser = CreateAdviser(lambda *_: [], docker=self.docker, router=self.router)
        body = json.dumps({"Env": env, "HostConfig": {"NetworkMode": network}}).encode()
        environ: dict[str, Any] = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return list(adviser._warnings(environ, decision))  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(("decision", "expected"), [
    (LeaveAlone("WEAVE_CIDR is none"), []),
    (LeaveAlone("it has a driver", is_surprising=True),
     ["the container is not on the weave network, because it has a driver"]),
    (Attach(parse("")), []),
])
def test_only_what_surprises(world: World, decision: object, expected: list[str]) -> None:
    """What was asked for needs no words, nor a question to anybody."""
    assert world.warnings(decision) == expected
    assert world.router.calls == world.docker.calls == []


def test_addresses(world: World) -> None:
    """Too narrow, overlapping, and held by one that runs; by one that doesn't, it is to be had."""
    holder = world.docker.run(name="web")
    world.router.claim(holder.id, parse("172.17.0.9/24")[0].interface)  # type: ignore[union-attr]
    narrow, overlapping, held = world.warnings(Attach(parse("10.33.1.1/24 172.17.0.9/24")))
    assert "reaches only 10.33.1.0/24" in narrow
    assert "172.17.0.0/16" in overlapping
    assert held.startswith("172.17.0.9 is held by web, which runs")
    world.docker.die(holder.id)
    assert len(world.warnings(Attach(parse("10.33.1.1/24 172.17.0.9/24")))) == 2


def test_while_too_many_wait_nothing_is_asked(world: World, daemon: Any, ask: Any) -> None:
    """A router that is stuck keeps as many threads as it may; a create goes on without its advice."""
    app = CreateAdviser(daemon, docker=world.docker, router=world.router, places=(places := BoundedSemaphore(1)))
    with places:
        ask(app, "POST", "/containers/create", {}, **{context.DECISION: Attach(parse("10.33.1.1/24"))})
    assert daemon.requests
    assert not world.router.calls


@pytest.mark.parametrize("mode", ["shop", "0123abc"])
def test_a_network_in_the_way(world: World, mode: str) -> None:
    """The one that the container will be on, by its name or its id, is named if it overlaps the weave range."""
    world.docker.create_network("0123abc456", "10.32.5.0/24")
    world.docker.create_network("shop", "10.33.0.0/16")
    world.docker.create_network("fine", "10.99.0.0/16")
    assert world.warnings(Attach(parse("")), network="fine") == []
    (told,) = world.warnings(Attach(parse("")), network=mode)
    assert told.startswith(f"Docker's network {mode}")
    assert "overlaps the weave network's 10.32.0.0/12" in told


@pytest.mark.parametrize(("cidr", "wanted", "why"), [
    ("net:10.99.0.0/24", "net:10.99.0.0/24", "range 10.99.0.0/24 out of bounds: 10.32.0.0/12"),
    ("net:default 172.17.0.1/16", "ip:172.17.0.1/16", "172.17.0.1 is an address of this host"),
])
def test_what_no_start_would_get_is_refused(world: World, daemon: Any, ask: Any, cidr: str, wanted: str,
                                            why: str) -> None:
    """Before the daemon hears of it, with the router's reason and what would help."""
    world.router.objections[wanted] = why
    app = CreateAdviser(daemon, docker=world.docker, router=world.router)
    with pytest.raises(InvalidCidr) as refused:
        ask(app, "POST", "/containers/create", {}, **{context.DECISION: Attach(parse(cidr))})
    assert str(refused.value) == f'invalid WEAVE_CIDR "{wanted.removeprefix("ip:")}": {why}; choose another'
    assert daemon.requests == []
    world.router.failures["objection"] = RouterUnreachable("gone")
    ask(app, "POST", "/containers/create", {}, **{context.DECISION: Attach(parse(cidr))})
    assert len(daemon.requests) == 1


def test_what_can_not_be_found_out_is_not_said(world: World) -> None:
    """Without router or Docker a create goes on as before."""
    world.router.failures |= {"default_subnet": RouterUnreachable("gone"), "owned": RouterUnreachable("gone")}
    world.docker.failures["bridge_subnets"] = DockerUnreachable("gone")
    assert world.warnings(Attach(parse("10.33.1.1/24")), ("WEAVE_CDIR=x",)) == [
        "WEAVE_CDIR means nothing to the weave network: did you mean WEAVE_CIDR?"]


@pytest.mark.parametrize(("status", "body", "expected"), [
    ("201 Created", b'{"Id":"a","Warnings":null}\n', {"Id": "a", "Warnings": ["weave: w"]}),
    ("201 Created", b'{"Id":"a","Warnings":["d"]}', {"Id": "a", "Warnings": ["d", "weave: w"]}),
    ("409 Conflict", b'{"message":"no"}', {"message": "no"}),
])
def test_the_answer(status: str, body: bytes, expected: object) -> None:
    """Docker's own warnings come first; a refusal has none."""
    reply = with_warnings(Captured(status, [("Content-Length", str(len(body)))], body), ["weave: w"])
    assert json.loads(reply.body) == expected
    assert reply.headers == [("Content-Length", str(len(reply.body)))]


def test_through_the_stack(daemon: Any, ask: Any, world: World) -> None:
    """Only creates are looked at."""
    app = CreateAdviser(daemon, docker=world.docker, router=world.router)
    ask(app, "POST", "/containers/web/start", **{context.DECISION: LeaveAlone("x", is_surprising=True)})
    assert len(daemon.requests) == 1
