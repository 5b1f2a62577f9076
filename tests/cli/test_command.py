from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from weavemw.cli import run
from weavemw.cli.command import VERBS, Invocation
from weavemw.cli.command import weave as group
from weavemw.cli.sources import Given
from weavemw.errors import SettingsError
from weavemw.ops import run_file

Weave = Callable[..., tuple[int, str, str]]
def test_options_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    """One order of precedence for every setting, in any spelling; who gave it is known."""
    (tmp_path / "weave.toml").write_text('mtu = 1400\nlog-level = "error"\nhostname_match = "a"\n'
                                         'listeners = ["tcp://127.0.0.1:1"]\n[router]\ndns-ttl = 3\n')
    environ = {"WEAVEMW_CONFIG": str(tmp_path / "weave.toml"), "WEAVEMW_MTU": "1500", "WEAVEMW_LOG_LEVEL": "debug",
               "WEAVEMW_RUN_DIR": str(tmp_path), "WEAVE_MTU": "1700"}
    invocation = Invocation(environ, {"mtu": 1600})
    settings = invocation.settings({"hostname_from_label": "x"})
    assert (settings.mtu, settings.log_level, settings.hostname_match) == (1600, "debug", "a")
    assert settings.listeners == ("tcp://127.0.0.1:1",)
    given = invocation.given({"hostname_from_label": "x"})
    assert {name: given[name].source for name in ("mtu", "log_level", "listeners", "hostname_from_label")} == {
        "mtu": "--mtu", "log_level": "WEAVEMW_LOG_LEVEL", "listeners": f"{tmp_path}/weave.toml",
        "hostname_from_label": "--hostname-from-label"}
    assert invocation.file_section("router") == {"dns_ttl": Given(3, f"{tmp_path}/weave.toml")}


def test_who_clears_up_follows_the_proxy_that_ran_last(tmp_path: Path) -> None:
    """Who launched with another bridge need not say so again; but may. To launch anew it does not count."""
    held = run_file.RunFile(tmp_path / run_file.PROXY, what="test")
    held.write({"bridge": "w2", "mtu": 1400, "router_address": "127.0.0.1:7000", "listeners": []})
    environ = {"WEAVEMW_RUN_DIR": str(tmp_path), "WEAVEMW_MTU": "1500"}
    last = Invocation(environ).last_settings()
    held.close()
    assert (last.bridge, last.mtu, last.router_address) == ("w2", 1500, "127.0.0.1:7000")
    assert Invocation(environ).last_settings() == last
    assert Invocation(environ).settings().bridge == "weave"


@pytest.mark.parametrize(("text", "complaint"), [
    pytest.param("mtu = ", "can't read FILE: ", id="no TOML"),
    pytest.param("mut = 1500", "FILE: unknown setting 'mut': did you mean 'mtu'?", id="an unknown setting"),
    pytest.param("no-default-ipalloc = true", "did you mean 'default-ipalloc'?", id="an option that is no setting"),
    pytest.param("[proxy]\nmtu = 1500", "FILE: unknown table [proxy]", id="an unknown table"),
    pytest.param("mtu = 'big'", "FILE: mtu 'big': expected a whole number", id="no number"),
    pytest.param("mtu = true", "FILE: mtu True: expected a whole number", id="a truth value"),
    pytest.param("listeners = [1]", "FILE: listeners [1]: expected a list of texts", id="a list of numbers"),
    pytest.param("hostname-match = 5", "FILE: hostname-match 5: expected text in quotes", id="no text"),
    pytest.param("tls = 'maybe'", "FILE: tls 'maybe': expected true or false", id="neither true nor false"),
])
def test_a_wrong_file_is_one_complaint(weave: Weave, tmp_path: Path, text: str, complaint: str) -> None:
    """The file, what is wrong in it, and what would be right."""
    file = tmp_path / "weave.toml"
    file.write_text(f"{text}\n")
    status, out, err = weave("launch", "--config", str(file))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert complaint.replace("FILE", str(file)) in err


@pytest.mark.parametrize(("name", "value", "complaint"), [
    ("WEAVEMW_MTU", "big", "mtu 'big': expected a whole number"),
    ("WEAVEMW_STATE_DIR", "weave", "directory 'weave': write an absolute path"),
    ("WEAVE_MTU", "1", "MTU 1: choose 576 to 65535 bytes"),
    ("WEAVEMW_LOG_LEVEL", "loud", "log level 'loud': choose debug, info, warning or error"),
    ("WEAVE_HTTP_ADDR", "host", "router address 'host': write HOST:PORT, as 127.0.0.1:6784"),
    ("DOCKER_HOST", "ssh://vm", "docker host 'ssh://vm': only unix:///path is supported"),
    ("WEAVEMW_DOCKER_HOST", "tcp://vm:2376", "docker host 'tcp://vm:2376': only unix:///path is supported"),
    ("DOCKER_BRIDGE", "a/b", "bridge 'a/b': choose at most 15 letters or digits"),
    ("WEAVEMW_IPALLOC_RANGE", "10.2.0.0/33", "--ipalloc-range"),
    ("WEAVEMW_NO_DNS", "maybe", "no-dns 'maybe': expected true or false"),
    ("WEAVEMW_START_TIMEOUT", "-1", "choose more than 0 seconds"),
])
def test_a_wrong_variable_is_named(weave: Weave, name: str, value: str, complaint: str) -> None:
    """With what is wrong about its value."""
    status, out, err = weave("launch", **{name: value})
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"weave: {name}: ")
    assert complaint in err


def test_what_looks_like_a_setting_and_is_none_is_said(weave: Weave) -> None:
    """A typing error in a variable's name, and the original's variables that mean nothing here."""
    _, _, err = weave("launch", WEAVEMW_MUT="1500", WEAVEPROXY_DOCKER_ARGS="-v /x:/x", WEAVEMW_DNS_TTL="3")
    warnings = [line for line in err.splitlines() if "warning" in line]
    assert warnings == ["weave: warning: WEAVEMW_MUT is no setting: did you mean 'WEAVEMW_MTU'?",
                        "weave: warning: WEAVEPROXY_DOCKER_ARGS has no effect"]


@pytest.fixture
def weave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Weave:
    """Runs the command on a host where nothing runs; gives status, stdout, stderr."""
    def command(*arguments: str, **environ: str) -> tuple[int, str, str]:
        here = {"WEAVEMW_RUN_DIR": str(tmp_path / "run"), "WEAVEMW_STATE_DIR": str(tmp_path / "state"),
                "WEAVE_HTTP_ADDR": "127.0.0.1:1", "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
        status = run(list(arguments), here | environ)
        return (status, *capsys.readouterr())

    return command


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    """A typing error in its name is not passed over."""
    with pytest.raises(SettingsError, match=r"none\.toml: No such file or directory"):
        Invocation({}, {"config": str(tmp_path / "none.toml"), "run_dir": str(tmp_path)}).settings()


@pytest.mark.parametrize(("arguments", "status", "complaint"), [
    pytest.param(["lauch"], 2, "no command 'lauch': did you mean 'launch'?", id="a verb mistyped"),
    pytest.param(["help", "lauch"], 2, "no command 'lauch': did you mean 'launch'?", id="help for no such verb"),
    pytest.param(["--no-dns", "launch"], 2, "no option --no-dns: it stands after the command: weave launch --no-dns",
                 id="an option in the wrong place"),
    pytest.param(["launch-router", "--rewrite-inspect"], 2, "there is `weave launch --rewrite-inspect`",
                 id="another verb's option"),
    pytest.param(["launch", "--xyzzy"], 2, "launch has no option --xyzzy: `weave launch --help` lists them all",
                 id="no such option"),
    pytest.param(["launch-proxy", "--tls=maybe"], 2, "write --tls, --tls=true or --tls=false", id="no truth value"),
    pytest.param(["stop", "web"], 2, "Got unexpected extra argument (web): see `weave stop --help`", id="too much"),
    pytest.param(["attach", "\udcff"], 2, "'\\udcff' is not UTF-8", id="no text"),
    pytest.param(["launch-proxy", "--bridge=much-too-long-a-name"], 1, "choose at most 15 letters", id="a long name"),
    pytest.param(["launch-proxy", "-H", f"/{'x' * 107}"], 1, "the path of a socket has at most 107 bytes",
                 id="a long path"),
    pytest.param(["launch-proxy", f"--docker-host=unix:///{'x' * 107}"], 1, "at most 107 bytes", id="Docker's too"),
    pytest.param(["launch-proxy", "--tls"], 1, "`weave certs` makes what is needed", id="no certificates"),
    pytest.param(["launch-router", "--ipalloc-default-subnet=10.99.0.0/24"], 1, "is not within the range", id="subnet"),
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
    pytest.param(["healthcheck"], 1, "weave proxy is not running", id="nothing healthy"),
])
def test_a_mistake_is_one_line(weave: Weave, arguments: list[str], status: int, complaint: str) -> None:
    """On stderr, beginning with the command's name; nothing on stdout, no traceback, a status other than 0."""
    ended, out, err = weave(*arguments)
    assert (ended, out) == (status, "")
    assert err.startswith("weave: ")
    assert err.count("\n") == 1
    assert complaint in err


def _launch(weave: Weave, *words: str, **environ: str) -> tuple[str, list[str]]:
    """The engine of a launch, and what is said."""
    status, out, err = weave("launch-proxy", "--print-config", *words, **environ)
    assert status == 0, err
    return str(tomllib.loads(out)["docker-host"]), err.splitlines()


@pytest.mark.parametrize(("words", "docker_host"), [
    pytest.param([], "tcp://127.0.0.1:12375", id="the proxy's usual port"),
    pytest.param([], "tcp://vm:2376", id="a machine elsewhere"),
    pytest.param([], "unix:///var/run/weave.sock", id="the proxy's usual socket"),
])
def test_a_shell_that_does_not_lead_to_an_engine_is_no_obstacle(weave: Weave, words: list[str],
                                                                docker_host: str) -> None:
    """Docker's own socket is used then, and one line says so; with an engine that is named, there is nothing to say."""
    said = f"weave: warning: DOCKER_HOST is {docker_host}, which is no Docker Engine's socket on this machine: " \
        "unix:///var/run/docker.sock is used"
    assert _launch(weave, *words, DOCKER_HOST=docker_host) == ("unix:///var/run/docker.sock", [said])
    assert _launch(weave, *words, "--docker-host=unix:///d", DOCKER_HOST=docker_host) == ("unix:///d", [])
    assert _launch(weave, *words, WEAVEMW_DOCKER_HOST="unix:///d", DOCKER_HOST=docker_host) == ("unix:///d", [])


def test_a_shell_that_weave_env_led_to_the_proxy_is_understood(weave: Weave) -> None:
    """What led docker before is the engine; there is nothing to say."""
    here = {"DOCKER_HOST": "tcp://127.0.0.1:9999", "ORIG_DOCKER_HOST": "unix:///d"}
    assert _launch(weave, **here) == ("unix:///d", [])
    assert _launch(weave, **here | {"ORIG_DOCKER_HOST": ""}) == ("unix:///var/run/docker.sock", [])


@pytest.mark.parametrize("words", [["--docker-host=tcp://vm:2376"], ["--config=FILE"]])
def test_an_engine_that_is_named_and_cannot_be_is_refused(weave: Weave, tmp_path: Path, words: list[str]) -> None:
    """By an option or in the file, whatever DOCKER_HOST is."""
    (tmp_path / "weave.toml").write_text('docker-host = "tcp://vm:2376"\n')
    words = [word.replace("FILE", f"{tmp_path}/weave.toml") for word in words]
    status, _, err = weave("launch-proxy", "--print-config", *words, DOCKER_HOST="tcp://127.0.0.1:12375")
    assert status == 1
    assert "'tcp://vm:2376': only unix:///path is supported" in err


@pytest.mark.parametrize(("words", "said"), [
    (["launch-proxy", "--tls=true"], True), (["launch-proxy", "--tls"], True), (["launch-proxy", "--tls=false"], False),
    (["launch-proxy", "--tls=1"], True), (["launch-proxy", "--tls=False"], False),
])
def test_switches_are_written_as_with_docker(weave: Weave, words: list[str], said: bool) -> None:
    """--tls, --tls=true, --tls=false; what the environment says is overruled."""
    _, out, _ = weave(*words, "--print-config", WEAVEMW_TLS=str(not said))
    assert tomllib.loads(out)["tls"] is said


@pytest.mark.parametrize("words", [["-H", "/w"], ["-H=/w"], ["-H/w"], ["--host", "/w"], ["--host=/w"]])
def test_values_are_written_as_with_docker(weave: Weave, words: list[str]) -> None:
    """With a space, with an equals sign, or with nothing between."""
    assert tomllib.loads(weave("launch-proxy", *words, "--print-config")[1])["listeners"] == ["/w"]


@pytest.mark.parametrize("shared", [
    pytest.param(["--run-dir", "elsewhere", "launch-proxy", "--print-config"], id="before"),
    pytest.param(["launch-proxy", "--print-config", "--run-dir=elsewhere"], id="after"),
    pytest.param(["--log-level=debug", "launch", "--print-config", "--run-dir=elsewhere"], id="both"),
])
def test_shared_options_stand_before_or_after_the_verb(weave: Weave, shared: list[str]) -> None:
    status, out, _ = weave(*shared)
    assert status == 0
    assert tomllib.loads(out)["run-dir"] == str(Path("elsewhere").absolute())


@pytest.mark.parametrize(("verb", "options"), [
    ("launch-proxy", ["-H", "tcp://[::1]:5", "--no-default-ipalloc", "--hostname-match", r"(\w)"]),
    ("launch-router", ["--dns-ttl=5", "--no-dns", "--upstream=10.0.0.1", "--upstream=10.0.0.2", "--mtu=1500"]),
    ("launch", ["-H", "/w.sock", "--force", "--ipalloc-range=10.40.0.0/16"]),
])
def test_what_is_printed_as_configuration_is_one(weave: Weave, tmp_path: Path, verb: str, options: list[str]) -> None:
    """The output of --print-config is a file for --config that means the same."""
    _, out, _ = weave(verb, "--print-config", *options)
    (tmp_path / "weave.toml").write_text(out)
    again = weave(verb, "--print-config", "--config", str(tmp_path / "weave.toml"))[1]
    assert tomllib.loads(again) == tomllib.loads(out)


def test_what_is_printed_as_configuration_says_where_it_comes_from(weave: Weave, tmp_path: Path) -> None:
    """An option, a variable, the file, or nobody."""
    (tmp_path / "weave.toml").write_text("mtu = 1400\n[router]\ndns-ttl = 3\n")
    _, out, _ = weave("launch", "--print-config", f"--config={tmp_path}/weave.toml", "-H", "/w.sock", "--dns-port=54",
                      "--log-level=debug", WEAVEMW_WORKERS="3", WEAVEMW_DNS_DOMAIN="corp.")
    found = {line.partition(" = ")[0]: line.rpartition("# ")[2] for line in out.splitlines() if "#" in line}
    wanted = {"mtu": f"{tmp_path}/weave.toml", "dns-ttl": f"{tmp_path}/weave.toml", "listeners": "-H",
              "dns-port": "--dns-port", "log-level": "--log-level", "workers": "WEAVEMW_WORKERS",
              "dns-domain": "WEAVEMW_DNS_DOMAIN", "docker-host": "DOCKER_HOST", "threads": "default",
              "ipalloc-range": "default"}
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("words", [["help"], ["-h"], ["--help"]])
def test_help_is_asked_for_in_any_way(weave: Weave, words: list[str]) -> None:
    """Of the whole command, and of a verb; without a word of it, it is a mistake."""
    assert weave(*words)[1].startswith("Usage: weave [OPTIONS] COMMAND")
    assert weave("help", "launch")[1] == weave("launch", "--help")[1]
    status, out, err = weave()
    assert (status, out) == (2, "")
    assert err.startswith("Usage: weave [OPTIONS] COMMAND")


def _piped(command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a command line that has ``weave`` in it."""
    line = command.replace("weave", f"{sys.executable} -m weavemw")
    return subprocess.run(["/bin/sh", "-c", line], env={**os.environ, **environ}, capture_output=True, text=True,
                          check=False, timeout=30)


@pytest.mark.parametrize(("command", "said"), [
    ("weave --help | head -1", ""),
    ("weave version | true", ""),
    ("weave version >&-", ""),
    ("weave lauch 2>&-", ""),
    ("weave version > /dev/full", "weave: No space left on device\n"),
    ("weave --help > /dev/full", "weave: No space left on device\n"),
])
def test_output_that_nobody_takes_is_no_traceback(command: str, said: str) -> None:
    """A reader that has gone, a stream that is closed, a disk that is full."""
    assert _piped(command).stderr == said


def test_an_encoding_without_our_characters_is_no_obstacle() -> None:
    """They are written as escapes."""
    done = _piped("weave launch --help", PYTHONIOENCODING="latin-1", LC_ALL="xx_YY")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[PEER\\u2026]" in done.stdout


_INTERRUPTED_IMPORT = """
import sys
class Finder:
    def find_spec(self, name, *rest):
        if name == "weavemw.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from weavemw.__main__ import main
main()
"""


def test_interrupted_while_it_starts_it_says_nothing() -> None:
    """Ctrl-C while Python imports it; the status is 130, as shells have it."""
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_IMPORT], capture_output=True, text=True, check=False,
                          timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_while_it_waits_it_says_nothing(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Here for an engine that never answers."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "docker.sock"))
        silent.listen()
        environ = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/docker.sock", "WEAVEMW_RUN_DIR": str(tmp_path)}
        child = subprocess.Popen([sys.executable, "-m", "weavemw", "ps"], env=environ, text=True,
                                 stderr=subprocess.PIPE)
        with silent.accept()[0]:
            child.send_signal(number)
            said = child.communicate(timeout=20)[1]
    assert (child.returncode, said.strip()) == (status, "")


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that others can read, not below pytest's own, which each run of pytest closes."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


_AS_NOBODY = """
import os, sys
import weavemw.router.host, weavemw.serving.certs, weavemw.serving.program
from weavemw.cli import certs, launch, mistakes, reset, run  # while they can be read
os.setegid(65534)
os.seteuid(65534)
sys.exit(run(sys.argv[1:], os.environ))
"""


@pytest.mark.root
@pytest.mark.parametrize(("arguments", "said"), [
    (["launch"], "Docker at {dir}/docker.sock did not answer: Permission denied: try again as root"),
    (["stop"], "Docker at {dir}/docker.sock did not answer: Permission denied: try again as root"),
    (["reset"], "reset removes interfaces, bridge and files: try again as root"),
    (["launch-proxy", "--foreground"], "the proxy must be root: it makes network interfaces in containers' namespaces"),
    (["certs", "{dir}/closed/tls"], "{dir}/closed/tls: Permission denied: try again as root"),
], ids=lambda each: " ".join(each) if isinstance(each, list) else "")
def test_who_is_not_root_is_told_so(open_dir: Path, arguments: list[str], said: str) -> None:
    """In one line; nothing has happened by then."""
    (open_dir / "closed").mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as docker:
        docker.bind(str(open_dir / "docker.sock"))
        environ = {**os.environ, "DOCKER_HOST": f"unix://{open_dir}/docker.sock", "WEAVEMW_RUN_DIR": str(open_dir),
                   "WEAVE_HTTP_ADDR": "127.0.0.1:1"}
        words = [each.format(dir=open_dir) for each in arguments]
        done = subprocess.run([sys.executable, "-c", _AS_NOBODY, *words], env=environ, capture_output=True, text=True,
                              check=False, timeout=30)
    assert (done.returncode, done.stderr) == (1, f"weave: {said.format(dir=open_dir)}\n")


def test_status_says_that_nothing_runs(weave: Weave) -> None:
    """And ends with 1, so that a script can ask."""
    status, out, _ = weave("status")
    assert status == 1
    assert out.splitlines()[-1] == "weave proxy is not running"


def test_every_verb_is_in_the_table() -> None:
    """What a module defines is what the table says of it: a verb that is missing there could not be called."""
    for module in VERBS:
        importlib.import_module(f"weavemw.cli.{module}")
    assert sorted(group.commands) == sorted(verb for verbs in VERBS.values() for verb in verbs)


@pytest.mark.parametrize("verb", sorted(verb for verbs in VERBS.values() for verb in verbs))
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
