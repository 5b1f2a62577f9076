from __future__ import annotations

from typing import Any

import pytest

from weavemw import __version__
from weavemw.cli.display import Screen
from weavemw.cli.overview import container_table, error_table, overview, router_words

_NOTHING: dict[str, Any] = {"attached": [], "waiting": [], "left_alone": []}
_CONTAINERS = {
    "attached": [{"id": "1" * 64, "name": "web", "addresses": ["10.32.0.1/12"], "names": ["web.weave.local"]}],
    "waiting": [{"id": "2" * 64, "name": "db", "reason": "no address", "attempts": 3}],
    "left_alone": [{"id": "3" * 64, "name": "host", "reason": "it has the host's network"}],
}
_ENGINE = {"host": "unix:///d.sock", "version": "20.10", "api_version": "1.41"}
_ROUTER = {"running": True, "address": "127.0.0.1:6784", "status": "        Version: 2.8\n\n        Service: router\n",
           "error": ""}
_PROXY = {"running": True, "version": __version__, "pid": 7, "started": 1000.0, "router_address": "127.0.0.1:6784",
          "listening": [{"address": "unix:///w.sock", "error": ""}], "watcher": {"connected": True, "error": ""}}


def _facts(**changes: Any) -> dict[str, Any]:
    return {"router": _ROUTER, "proxy": _PROXY, "engine": _ENGINE, "containers": _NOTHING, "errors": [], **changes}


def _shown(facts: dict[str, Any], to: Screen = Screen(), **options: Any) -> str:  # noqa: B008  # it is immutable
    return overview(facts, to, now=1065.0, **options)


def test_all_of_it_in_a_pipe() -> None:
    """Blocks of keys, a table of containers, the last errors, and the line that the manual promises as the last."""
    errors = [{"time": 1060.0, "program": "proxy", "level": "warning", "message": "it failed"}]
    lines = _shown(_facts(containers=_CONTAINERS, errors=errors)).splitlines()
    assert lines[:15] == [
        "        Version: 2.8",
        "",
        "        Service: router",
        "",
        "        Service: proxy",
        f"        Version: {__version__}",
        "       Listener: unix:///w.sock",
        "         Engine: Docker 20.10, API 1.41, unix:///d.sock",
        "         Router: 127.0.0.1:6784",
        "          UpFor: 1m05s",
        "        Watcher: follows Docker's events",
        "     Containers: 1 attached, 1 waiting, 1 left alone",
        "",
        "CONTAINER     NAME  STATE       ADDRESSES AND NAMES, OR WHY",
        "222222222222  db    waiting     no address (tried 3 times)",
    ]
    assert lines[15:17] == ["111111111111  web   attached    10.32.0.1/12 web.weave.local",
                            "333333333333  host  left alone  it has the host's network"]
    assert lines[-3].endswith("proxy  it failed")
    assert lines[-1] == "weave proxy is running"


def test_what_the_watcher_can_not_do_stands_at_the_watcher() -> None:
    """And not among the containers, if it is of no single one."""
    failing = {"removing orphans": {"name": "", "error": "no", "attempts": 3, "since": 1.0}}
    shown = _shown(_facts(proxy=_PROXY | {"watcher": {"connected": True, "error": "", "failing": failing}}))
    assert "Watcher: follows Docker's events; removing orphans: no (tried 3 times)\n" in shown


def test_networks_in_the_way_stand_at_the_watcher() -> None:
    """In its words; an older watcher says nothing of them."""
    watcher = {"connected": True, "error": "", "in_the_way": ["Docker's network shop (10.32.5.0/24) overlaps"]}
    shown = _shown(_facts(proxy=_PROXY | {"watcher": watcher}))
    assert "Watcher: follows Docker's events; Docker's network shop (10.32.5.0/24) overlaps\n" in shown


@pytest.mark.parametrize(("changes", "line"), [
    pytest.param({"proxy": {"running": False}}, "weave proxy is not running", id="no proxy"),
    pytest.param({"proxy": {"running": False, "error": "can't read /x: try again as root"}},
                 "weave proxy is not running (can't read /x: try again as root)", id="no right to read"),
    pytest.param({"router": {"running": False, "error": "weave router is not running (nothing answers at a:1)"}},
                 "weave router is not running (nothing answers at a:1)", id="no router"),
    pytest.param({"engine": {"host": "unix:///d", "error": "Docker at /d did not answer: No such file"}},
                 "         Engine: Docker at /d did not answer: No such file", id="no engine"),
    pytest.param({"proxy": {**_PROXY, "listening": [{"address": "tcp://h:1", "error": "answers with status 502"}]}},
                 "       Listener: tcp://h:1 (answers with status 502)", id="a listener that does not serve"),
    pytest.param({"proxy": {**_PROXY, "watcher": None}}, "        Watcher: starting", id="no watcher yet"),
    pytest.param({"proxy": {**_PROXY, "watcher": {"connected": False, "error": "gone"}}},
                 "        Watcher: does not follow Docker's events: gone", id="a watcher without events"),
    pytest.param({"proxy": {"running": True, "version": "0.0.9", "listening": []}},
                 f"        Version: 0.0.9 (this command is {__version__}; `weave relaunch` starts the proxy anew)",
                 id="a proxy of another version, which says less"),
    pytest.param({}, "     Containers: none", id="no containers"),
])
def test_whatever_is_down_has_a_line(changes: dict[str, Any], line: str) -> None:
    """And the rest is shown all the same."""
    assert line in _shown(_facts(**changes)).splitlines()


def test_escapes_are_for_terminals_with_colours() -> None:
    """Nowhere else is there one."""
    facts = _facts(containers=_CONTAINERS)
    assert "\x1b[32mweave proxy is running\x1b[0m" in _shown(facts, Screen(80, colour=True))
    assert "\x1b" not in _shown(facts, Screen(80)) + _shown(facts)
    assert router_words(_ROUTER, Screen(80, colour=True)).endswith("Service: \x1b[1mrouter\x1b[0m")


def test_of_many_containers_some_are_shown_unless_they_are_asked_for() -> None:
    """Those that wait come first; how many there are besides is said."""
    many = {**_CONTAINERS, "attached": _CONTAINERS["attached"] * 30}
    lines = container_table(many, Screen(), 20).splitlines()
    assert (len(lines), lines[-1]) == (22, "… and 12 more: `weave status proxy` shows them all")
    assert len(container_table(many, Screen()).splitlines()) == 33
    assert container_table(_NOTHING, Screen()) == ""


def test_an_error_that_came_again_and_again_stands_once() -> None:
    """With the time of the last, and how often."""
    errors = [{"time": float(n), "program": "proxy", "message": f"no; next attempt in {n} s"} for n in range(3)]
    errors.insert(1, {"time": 0.5, "program": "router", "message": "other"})
    shown = error_table(errors, Screen(), 10.0).splitlines()
    assert [line.split(None, 1)[1] for line in shown[1:]] == ["router  other", "proxy   no (3 times)"]
    assert error_table(errors, Screen(), 10.0, 1).count("\n") == 1
    assert error_table([], Screen(), 10.0) == ""


def test_errors_of_other_days_have_a_date() -> None:
    """Those of today the time only."""
    shown = error_table([{"time": 0.0, "program": "p", "message": "m"}], Screen(), 1e9)
    assert shown.splitlines()[1].startswith(("1970-01-01 ", "1969-12-31 "))
