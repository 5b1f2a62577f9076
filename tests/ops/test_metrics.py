from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from weavemw.ops.metrics import Family, _running, exposed, families, of_proxy
from weavemw.ops.run_file import PROXY
from weavemw.ops.tally import ATTACH, DIRECTORY, REQUESTS, STREAM_BYTES, STREAMS, STREAMS_ENDED, SharedTally, Tally
from weavemw.ops.watcher_state import STATE_FILE
from weavemw.router.metrics import DnsCounts, RouterFacts, of_router

_OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def samples(metrics: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    """Each sample's value by its name and the values of its labels in their order, read back from the text."""
    text = exposed(metrics)[0].decode()
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in parse(text) for sample in family.samples}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The run directory of a proxy that has counted, and does not run any more."""
    tally = SharedTally(tmp_path / DIRECTORY)
    for code in ("200", "200", "404"):
        tally.add(REQUESTS, ("ping", code))
    tally.add(STREAM_BYTES, ("to_client",), 1e6)
    tally.observe(ATTACH, 0.004)
    tally.observe(ATTACH, 0.2)
    for _ in range(3):
        tally.add(STREAMS)
    tally.add(STREAMS_ENDED)
    tally.close()
    (tmp_path / STATE_FILE).parent.mkdir(exist_ok=True)
    (tmp_path / STATE_FILE).write_text(json.dumps({
        "connected": True, "pending": {"1" * 64: {"name": "web", "error": "no"}}, "left_alone": {},
        "counters": {"attached": 7, "swept_names": 2, "of a later version": 1}, "new": 1}))
    return tmp_path


@pytest.mark.parametrize(("sample", "value"), [
    (("weave_proxy_up",), 0),
    (("weave_proxy_requests_total", "ping", "200"), 2),
    (("weave_proxy_requests_total", "ping", "404"), 1),
    (("weave_proxy_stream_bytes_total", "to_client"), 1e6),
    (("weave_proxy_streams_opened_total",), 3),
    (("weave_proxy_streams",), 0),
    (("weave_proxy_attach_duration_seconds_bucket", "0.0025"), 0),
    (("weave_proxy_attach_duration_seconds_bucket", "0.005"), 1),
    (("weave_proxy_attach_duration_seconds_bucket", "+Inf"), 2),
    (("weave_proxy_attach_duration_seconds_count",), 2),
    (("weave_proxy_attach_duration_seconds_sum",), 0.204),
    (("weave_proxy_attach_failures_total",), 0),
    (("weave_proxy_allocate_duration_seconds_count",), 0),
    (("weave_proxy_watcher_attached_total",), 7),
    (("weave_proxy_watcher_swept_total", "names"), 2),
    (("weave_proxy_watcher_connected",), 0),
    (("weave_proxy_containers_pending",), 1),
])
def test_what_was_counted_is_shown(run_dir: Path, sample: tuple[str, ...], value: float) -> None:
    """By Prometheus's names; of a proxy that has ended the sums stay, and nothing is open or connected."""
    assert samples(of_proxy(run_dir))[sample] == pytest.approx(value)


_RUNNING = """
import sys
from pathlib import Path
from weavemw.ops.run_file import RunFile
RunFile(Path(sys.argv[1]), what="weave proxy").write({"version": "0.1.0", "started": 1700000000.5})
print(flush=True)
sys.stdin.read()
"""


def test_a_proxy_that_runs_shows_its_version_its_start_and_what_is_open(run_dir: Path) -> None:
    """As its run file says, which another process holds."""
    with subprocess.Popen([sys.executable, "-c", _RUNNING, str(run_dir / PROXY)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        proxy.stdout.readline()
        found = samples(of_proxy(run_dir))
        proxy.kill()
    assert found["weave_proxy_up",] == 1
    assert found["weave_proxy_build_info", "0.1.0"] == 1
    assert found["weave_proxy_start_time_seconds",] == 1700000000.5
    assert found["weave_proxy_streams",] == 2
    assert found["weave_proxy_watcher_connected",] == 1


def test_the_readme_names_what_there_is(run_dir: Path) -> None:
    """Every metric in its table exists."""
    table = (Path(__file__).parents[2] / "README.md").read_text().partition("| metric |")[2].partition("\n\n")[0]
    numbers = of_router(Tally(), RouterFacts({"r": 1}, {"r": 1}, 1, {"udp": DnsCounts([1] * 16, [1] * 16)}))
    running = _running({"version": "1", "started": 1.0})
    text = exposed((*of_proxy(run_dir), *numbers, *running))[0].decode()
    there = {family.name for family in parse(text)} | {f"{family.name}_total" for family in parse(text)}
    named = set(re.findall(r"weave_[a-z_]+[a-z]", table))
    assert len(named) > 20
    assert named - there - {"weave_router_requests_total"} == set()


def test_of_a_host_without_a_proxy_there_is_little_to_say(tmp_path: Path) -> None:
    """It is down, and all that needs no label is zero."""
    found = samples(of_proxy(tmp_path / "none"))
    assert found["weave_proxy_up",] == 0
    assert set(found.values()) == {0.0}


@pytest.mark.parametrize(("accept", "parser", "kind"), [
    pytest.param("", parse, "text/plain", id="plain text"),
    pytest.param(_OPENMETRICS, parse_openmetrics, "application/openmetrics-text", id="OpenMetrics"),
])
def test_the_format_is_the_one_asked_for_and_well_formed(run_dir: Path, accept: str, parser: Any, kind: str) -> None:
    """Parsed by Prometheus's own parsers: types, units, help texts, ``_total`` and buckets are as they must be."""
    text, content_type = exposed(of_proxy(run_dir), accept)
    assert content_type.startswith(kind)
    found = list(parser(text.decode()))
    assert {family.type for family in found} == {"counter", "gauge", "histogram"}
    for family in found:
        assert family.name.startswith("weave_proxy_")
        assert family.documentation.endswith(".")
        assert family.type != "histogram" or family.name.endswith("_seconds")


def test_a_family_without_labels_is_zero_before_anything_happened() -> None:
    """So that a rate can be taken from the beginning; one with labels shows what there is."""
    wanted = [Family("a", "counter", "A."), Family("b", "counter", "B.", ("x",)), Family("c", "gauge", "C.")]
    assert samples(families(wanted, Tally().numbers())) == {("a_total",): 0, ("c",): 0}
    assert samples(families(wanted, {("b", ('"\n\\',)): 1.0, ("z", ()): 1.0}))["b_total", '"\n\\'] == 1
