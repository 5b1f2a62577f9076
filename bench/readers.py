"""``python -m bench.readers``: what it costs that readers are shown the request.

A list of all containers and an inspect, each asked past the proxy, through it, and through it without hiding the wait
program; in turns, so that whatever else loads the machine loads all of them. The containers are created, not started.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping

from host import TestHost, why_not

from bench.proxies import weave_server
from weavemw.dockerapi.hosts import Unix
from weavemw.transport.http_client import HttpClient

_ATTACHED = {"WEAVEMW_DEFAULT_IPALLOC": "yes", "WEAVEMW_LOG_LEVEL": "error"}


def main() -> None:
    """Make the containers, ask, print medians in milliseconds and their ratios to the direct way."""
    parser = argparse.ArgumentParser(description="Compare a list and an inspect through the proxy with direct ones.")
    parser.add_argument("--containers", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    if reason := why_not():
        sys.exit(f"bench: {reason}")
    with TestHost() as host, weave_server(host, environ=_ATTACHED) as hiding, \
            weave_server(host, environ=_ATTACHED | {"WEAVEMW_HIDE_WAIT_PROGRAM": "no"}) as showing:
        paths = {"direct": host.socket, "hiding": hiding.path, "showing": showing.path}
        clients = {way: HttpClient(Unix(str(path))) for way, path in paths.items()}
        for number in range(options.containers):
            made = created(clients["hiding"], {"Image": "busybox", "Cmd": ["sleep", str(number)]})
        for what, target in ((f"list of {options.containers}", "/containers/json?all=1"),
                             ("inspect", f"/containers/{made}/json"), ("empty list", "/containers/json")):
            report(what, medians(clients, target, options.rounds))


def created(client: HttpClient, body: Mapping[str, object]) -> str:
    """The id of a container that is made."""
    answer = client.ask("POST", "/containers/create", timeout=60, body=json.dumps(body).encode(),
                        headers={"Content-Type": "application/json"})
    return str(answer.json()["Id"])


def medians(clients: Mapping[str, HttpClient], target: str, rounds: int) -> dict[str, float]:
    """The median time of an answer each way, in milliseconds."""
    times: dict[str, list[float]] = {way: [] for way in clients}
    for _ in range(rounds):
        for way, client in clients.items():
            begun = time.perf_counter()
            client.ask("GET", target, timeout=120)
            times[way].append(time.perf_counter() - begun)
    return {way: 1000 * statistics.median(found) for way, found in times.items()}


def report(what: str, found: Mapping[str, float]) -> None:
    """One line."""
    ways = (f"{way} {value:.2f} ms ({value / found['direct']:.2f})" for way, value in found.items())
    print(f"{what}: {', '.join(ways)}", flush=True)


if __name__ == "__main__":
    main()
