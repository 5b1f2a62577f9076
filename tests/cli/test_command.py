from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from weavemw.cli import run
from weavemw.cli.command import Invocation, engine_host, points_at
from weavemw.cli.command import weave as group
from weavemw.errors import SettingsError

_FACTS = {"listeners": ["unix:///run/w.sock", "tcp://0.0.0.0:12375"], "docker_host": "unix:///run/docker.real"}


@pytest.mark.parametrize(("environ", "running", "host"), [
    pytest.param({}, True, "", id="nothing said"),
    pytest.param({"DOCKER_HOST": "unix:///run/other.sock"}, True, "unix:///run/other.sock", id="an engine"),
    pytest.param({"DOCKER_HOST": "tcp://127.0.0.1:12375"}, True, "unix:///run/docker.real", id="the proxy"),
    pytest.param({"DOCKER_HOST": "unix:///run/w.sock"}, True, "unix:///run/docker.real", id="the proxy's unix socket"),
    pytest.param({"DOCKER_HOST": "tcp://127.0.0.1:9", "ORIG_DOCKER_HOST": "unix:///o"}, False, "unix:///o",
                 id="a proxy that has stopped"),
    pytest.param({"DOCKER_HOST": "unix:///var/run/weave.sock", "ORIG_DOCKER_HOST": ""}, False, "",
                 id="a stopped proxy's unix socket"),
    pytest.param({"DOCKER_HOST": "tcp://127.0.0.1:12375"}, False, "", id="a stopped proxy, set by hand"),
    pytest.param({"DOCKER_HOST": "unix:///mine", "ORIG_DOCKER_HOST": "unix:///o"}, False, "unix:///mine",
                 id="set anew since"),
])
def test_our_own_calls_go_to_the_engine(environ: dict[str, str], running: bool, host: str) -> None:
    """Where DOCKER_HOST is the proxy, the engine is what the proxy says, or what DOCKER_HOST was before."""
    assert engine_host(environ, _FACTS if running else None) == host


@pytest.mark.parametrize(("docker_host", "ours"), [
    ("tcp://127.0.0.1:12375", True), ("tcp://10.0.0.1:12375", True), ("unix:///run/w.sock", True),
    ("tcp://127.0.0.1:2375", False), ("unix:///run/docker.sock", False), ("", False), ("ssh://host", False),
])
def test_it_is_seen_where_a_docker_host_points(docker_host: str, ours: bool) -> None:
    """Also for what is no endpoint of ours at all."""
    assert points_at(docker_host, _FACTS["listeners"]) is ours


def test_options_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    """One order of precedence for every setting, in any spelling."""
    (tmp_path / "weave.toml").write_text('mtu = 1400\nlog-level = "error"\nhostname_match = "a"\n'
                                         'listeners = ["tcp://127.0.0.1:1"]\n[router]\ndns-ttl = 3\n')
    environ = {"WEAVEMW_CONFIG": str(tmp_path / "weave.toml"), "WEAVEMW_MTU": "1500", "WEAVEMW_LOG_LEVEL": "debug",
               "WEAVEMW_RUN_DIR": str(tmp_path)}
    settings = Invocation(environ).settings({"mtu": 1600, "bridge": None, "listeners": ()})
    assert (settings.mtu, settings.log_level, settings.hostname_match) == (1600, "debug", "a")
    assert settings.listeners == ("tcp://127.0.0.1:1",)
    assert Invocation(environ).file_section("router") == {"dns_ttl": 3}


@pytest.mark.parametrize(("text", "complaint"), [
    pytest.param("mtu = ", "can't read .*weave.toml: ", id="no TOML"),
    pytest.param('mut = 1500\n', "unknown setting 'mut'", id="an unknown setting"),
])
def test_a_wrong_file_is_one_complaint(tmp_path: Path, text: str, complaint: str) -> None:
    """The file or the setting is named."""
    (tmp_path / "weave.toml").write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        Invocation({"WEAVEMW_CONFIG": str(tmp_path / "weave.toml"), "WEAVEMW_RUN_DIR": str(tmp_path)}).settings()


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """A typing error in its name is not passed over."""
    with pytest.raises(SettingsError, match=r"none\.toml: No such file or directory"):
        Invocation({}, {"config": str(tmp_path / "none.toml"), "run_dir": str(tmp_path)}).settings()


Weave = Callable[..., tuple[int, str, str]]


@pytest.fixture
def weave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Weave:
    """Runs the command on a host where nothing runs; gives status, stdout, stderr."""
    def command(*arguments: str, **environ: str) -> tuple[int, str, str]:
        here = {"WEAVEMW_RUN_DIR": str(tmp_path / "run"), "WEAVEMW_STATE_DIR": str(tmp_path / "state"),
                "WEAVE_HTTP_ADDR": "127.0.0.1:1", "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
        status = run(list(arguments), here | environ)
        return (status, *capsys.readouterr())

    return command


@pytest.mark.parametrize(("arguments", "status", "complaint"), [
    pytest.param(["lauch"], 2, "no command 'lauch': did you mean 'launch'?", id="a verb mistyped"),
    pytest.param(["xyzzy"], 2, "no command 'xyzzy': `weave --help` lists them all", id="no such verb"),
    pytest.param(["launch-proxy", "--whith-dns"], 2, "--with-dns", id="an option mistyped"),
    pytest.param(["launch-proxy", "--mtu", "big"], 2, "'big' is not a valid integer", id="no number"),
    pytest.param(["launch-proxy", "-w", "--without-dns"], 2, "--with-dns and --without-dns", id="contradiction"),
    pytest.param(["launch-proxy", "-H", "foo"], 1, "listener 'foo': write tcp://address:port", id="no endpoint"),
    pytest.param(["launch-proxy", "--hostname-match=("], 1, "hostname match '('", id="no regular expression"),
    pytest.param(["launch-router", "--ipalloc-range=10.2.0.0/33"], 2, "10.2.0.0/33", id="no range"),
    pytest.param(["launch-proxy"], 1, "docker.sock did not answer: No such file or directory", id="no Docker"),
    pytest.param(["stop"], 1, "docker.sock did not answer: No such file or directory", id="no Docker to stop at"),
    pytest.param(["status", "nonsense"], 2, "'nonsense' is not one of", id="no such part"),
    pytest.param(["status", "dns"], 1, "weave router is not running (nothing answers at 127.0.0.1:1)", id="no router"),
    pytest.param(["env"], 1, "weave proxy is not running", id="env without a proxy"),
    pytest.param(["config"], 1, "weave proxy is not running", id="config without a proxy"),
    pytest.param(["healthcheck"], 1, "weave proxy is not running; weave router is not running", id="nothing healthy"),
])
def test_a_mistake_is_one_line(weave: Weave, arguments: list[str], status: int, complaint: str) -> None:
    """On stderr, beginning with the command's name; nothing on stdout, no traceback, a status other than 0."""
    ended, out, err = weave(*arguments)
    assert (ended, out) == (status, "")
    assert err.startswith("weave: ")
    assert err.count("\n") == 1
    assert complaint in err


def test_the_default_engine_is_dockers_own_socket_whatever_the_shell_says(weave: Weave) -> None:
    """A DOCKER_HOST that is no unix socket is named, since weave works on the engine's own machine."""
    status, _, err = weave("stop", DOCKER_HOST="tcp://vm:2376")
    assert status == 1
    assert "'tcp://vm:2376': only unix:///path is supported" in err


@pytest.mark.parametrize("shared", [
    pytest.param(["--run-dir", "elsewhere", "launch-proxy", "--print-config"], id="before"),
    pytest.param(["launch-proxy", "--print-config", "--run-dir=elsewhere"], id="after"),
])
def test_shared_options_stand_before_or_after_the_verb(weave: Weave, shared: list[str]) -> None:
    """In both spellings; a relative path is made absolute, for the programs run elsewhere."""
    status, out, _ = weave(*shared)
    assert status == 0
    assert f'run-dir = "{Path("elsewhere").absolute()}"' in out.splitlines()


def test_what_is_printed_as_configuration_is_one(weave: Weave, tmp_path: Path) -> None:
    """The output of --print-config is a file for --config that means the same."""
    _, out, _ = weave("launch-proxy", "--print-config", "-H", "tcp://[::1]:5", "--no-default-ipalloc",
                      "--hostname-match", r"(\w)")
    (tmp_path / "weave.toml").write_text(out)
    assert weave("launch-proxy", "--print-config", "--config", str(tmp_path / "weave.toml"))[1] == out
    assert "default-ipalloc = false" in out


def test_status_says_that_nothing_runs(weave: Weave) -> None:
    """And ends with 1, so that a script can ask."""
    status, out, _ = weave("status")
    assert status == 1
    assert out.splitlines()[-1] == "weave proxy is not running"


@pytest.mark.parametrize("verb", sorted(group.commands))
def test_every_verb_explains_itself(weave: Weave, verb: str) -> None:
    """--help ends with 0 and shows how the verb is used."""
    status, out, err = weave(verb, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: weave {verb}")
    assert f"weave {verb}" in out.partition("\n")[2]


@pytest.mark.parametrize(("words", "found"), [
    (["weave", "launch-"], {"launch-proxy", "launch-router"}),
    (["weave", "launch", "--ipalloc-d"], {"--ipalloc-default-subnet"}),
])
def test_shells_complete_it(words: list[str], found: set[str]) -> None:
    """Verbs and options, as `weave --help` says how to set it up."""
    environ = {**os.environ, "_WEAVE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words),
               "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([sys.executable, "-m", "weavemw.cli"], env=environ, capture_output=True, text=True,
                          check=False, timeout=30)
    assert {line.removeprefix("plain,") for line in done.stdout.splitlines()} == found
