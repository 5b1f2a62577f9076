"""The proxy's numbers as Prometheus reads them: what its processes counted, and what its watcher says.

Our router shows them at ``/metrics`` beside its own; ``weave metrics`` prints
them, also where the router is a real Weave Net router. Names, units and types
follow https://prometheus.io/docs/practices/naming/. No label has values that
clients choose.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from weavemw.ops import run_file
from weavemw.ops.run_file import OUR_CONTAINERS
from weavemw.ops.tally import (
    ALLOCATE,
    ALLOCATE_FAILURES,
    ATTACH,
    ATTACH_FAILURES,
    BUCKET_NAMES,
    DIRECTORY,
    REQUESTS,
    STREAM_BYTES,
    STREAMS,
    STREAMS_ENDED,
    Cell,
    read_shared,
)
from weavemw.ops.watcher_state import State, read_state

__all__ = ["Family", "exposed", "families", "of_proxy"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name (without ``_total``), kind (counter, gauge, times), help and the names of its labels."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


#: What the proxy's processes count.
_COUNTED = (
    Family(REQUESTS, "counter", "Requests answered, by what they ask of Docker and by the answer's status "
                                "(none: the stream ended without one).", ("call", "code")),
    Family(STREAMS, "counter", "Connections handed to the relay: attach, exec, logs, wait, pulls, uploads."),
    Family(STREAM_BYTES, "counter", "Bytes that the relay moved.", ("direction",)),
    Family(ATTACH, "times", "Time from a container's start to its interface being up, without the allocation."),
    Family(ATTACH_FAILURES, "counter", "Attaches that failed; what can be tried again is."),
    Family(ALLOCATE, "times", "Time until a container had its addresses, waiting for the router included."),
    Family(ALLOCATE_FAILURES, "counter", "Allocations that failed."),
)
#: What the watcher's state says.
_WATCHED = {
    "connections": ("weave_proxy_watcher_connections", "Connections to Docker's events."),
    "attached": ("weave_proxy_watcher_attached", "Containers attached that no client started through the proxy."),
    "detached": ("weave_proxy_watcher_detached", "Containers detached after they ended."),
    "released": ("weave_proxy_watcher_released", "Containers whose addresses were given back after their removal."),
    "retries": ("weave_proxy_watcher_retries", "Attempts that failed and are repeated."),
}


def families(wanted: Iterable[Family], numbers: Mapping[Cell, float]) -> Iterator[Metric]:
    """The numbers as metrics, those of each family that there are."""
    by_name: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for (name, labels), value in sorted(numbers.items()):
        by_name.setdefault(name, []).append((labels, value))
    for family in wanted:
        yield _metric(family, by_name.get(family.name, []), numbers)


def exposed(metrics: Iterable[Metric], accept: str = "") -> tuple[bytes, str]:
    """Metrics in the text format that an ``Accept`` header asks for, and that format's content type."""
    encode, content_type = choose_encoder(accept)
    return encode(_Once(tuple(metrics))), content_type


def of_proxy(run_dir: Path) -> Iterator[Metric]:
    """All metrics of the proxy of a run directory, whether it runs or not. Raises ``OSError``."""
    facts = run_file.running(run_dir / run_file.PROXY)
    yield GaugeMetricFamily("weave_proxy_up", "Whether the proxy runs.", value=float(facts is not None))
    if facts is not None:
        yield from _running(facts)
    numbers = read_shared(run_dir / DIRECTORY)
    yield from families(_COUNTED, numbers)
    yield GaugeMetricFamily("weave_proxy_streams", "Streams that are open.", value=_open_streams(facts, numbers))
    if state := read_state(run_dir):
        yield from _watcher(state, is_running=facts is not None)


class _Once:
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def _running(facts: Mapping[str, object]) -> Iterator[Metric]:
    build = GaugeMetricFamily("weave_proxy_build_info", "The version of the proxy that runs.", labels=["version"])
    build.add_metric([str(facts.get("version", ""))], 1)
    yield build
    if isinstance(started := facts.get("started"), (int, float)):
        yield GaugeMetricFamily("weave_proxy_start_time_seconds", "When the proxy was started, in Unix time.",
                                value=started)


def _open_streams(facts: Mapping[str, object] | None, numbers: Mapping[Cell, float]) -> float:
    if facts is None:
        return 0.0
    return max(numbers.get((STREAMS, ()), 0.0) - numbers.get((STREAMS_ENDED, ()), 0.0), 0.0)


def _watcher(state: State, *, is_running: bool) -> Iterator[Metric]:
    for counter, (name, text) in _WATCHED.items():
        yield CounterMetricFamily(name, text, value=state.counters.get(counter, 0))
    swept = CounterMetricFamily("weave_proxy_watcher_swept", "Orphans that were removed.", labels=["kind"])
    for kind in ("interfaces", "names", "addresses"):
        swept.add_metric([kind], state.counters.get(f"swept_{kind}", 0))
    yield swept
    yield GaugeMetricFamily("weave_proxy_watcher_connected", "Whether the watcher follows Docker's events.",
                            value=float(is_running and state.connected))
    yield GaugeMetricFamily("weave_proxy_containers_pending", "Containers that could not be attached yet.",
                            value=len(state.pending))
    yield GaugeMetricFamily("weave_proxy_containers_left_alone", "Containers that are not the proxy's to touch.",
                            value=sum(row.get("name") not in OUR_CONTAINERS for row in state.left_alone.values()))


def _metric(family: Family, rows: list[tuple[tuple[str, ...], float]], numbers: Mapping[Cell, float]) -> Metric:
    if family.kind == "times":
        total = numbers.get((f"{family.name}_sum", ()), 0.0)
        return _histogram(family, {labels[-1]: value for labels, value in rows}, total)
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric: CounterMetricFamily | GaugeMetricFamily = kind(family.name, family.help, labels=list(family.labels))
    for labels, value in rows or ([] if family.labels else [((), 0.0)]):
        metric.add_metric(list(labels), value)
    return metric


def _histogram(family: Family, counts: Mapping[str, float], total: float) -> Metric:
    below = itertools.accumulate(counts.get(name, 0.0) for name in BUCKET_NAMES)
    metric = HistogramMetricFamily(family.name, family.help)
    metric.add_metric([], list(zip(BUCKET_NAMES, below, strict=True)), total)
    return metric
