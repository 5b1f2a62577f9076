"""The wait program, in network namespaces that attach an interface under its eyes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

MARKED = ("sh", "-c", "echo ran; exit 7")


def test_command_runs_once_the_interface_is_up_and_has_carrier(namespace):
    """Neither an interface that is there, nor one that is up, releases the command: carrier does."""
    waiter = namespace.wait(*MARKED)
    namespace.ip("link", "add", "ethwe", "type", "veth", "peer", "name", "peer")
    waiter.assert_still_waits()
    namespace.ip("link", "set", "ethwe", "up")
    waiter.assert_still_waits()
    namespace.ip("link", "set", "peer", "up")
    assert (waiter.output(), waiter.status()) == ("ran\n", 7)


def test_carrier_without_up_does_not_release(namespace):
    """The host's end may go up first: the command still waits for its own end."""
    waiter = namespace.wait(*MARKED)
    namespace.ip("link", "add", "ethwe", "type", "veth", "peer", "name", "peer")
    namespace.ip("link", "set", "peer", "up")
    waiter.assert_still_waits()
    namespace.ip("link", "set", "ethwe", "up")
    assert waiter.output() == "ran\n"


def test_command_runs_at_once_where_the_interface_already_is(namespace):
    """A process that starts after the attach doesn't wait for another one."""
    namespace.attach()
    assert namespace.enter(namespace.wait_program, *MARKED).communicate(timeout=30)[0] == "ran\n"


@pytest.mark.parametrize("name", ["ethwe1", "ethw", "eth0", "ETHWE"])
def test_other_interfaces_do_not_release_until_renamed(namespace, name):
    """Only the very name counts; an interface that gets it counts."""
    waiter = namespace.wait(*MARKED)
    namespace.attach(name)
    waiter.assert_still_waits()
    namespace.ip("link", "set", name, "down")
    namespace.ip("link", "set", name, "name", "ethwe")
    waiter.assert_still_waits()
    namespace.ip("link", "set", "ethwe", "up")
    assert waiter.output() == "ran\n"


def test_an_alternative_name_does_not_release(namespace):
    """The kernel finds interfaces by alternative names too, which are not what is waited for."""
    namespace.attach("eth0")
    namespace.ip("link", "property", "add", "dev", "eth0", "altname", "ethwe")
    namespace.wait(*MARKED)


FORGER = """
import socket, struct, sys
name = struct.pack("=HH8s", 10, 3, b"ethwe")
link = struct.pack("=BxHiII", 0, 1, 2, 0x11043, 0xFFFFFFFF)
message = struct.pack("=IHHII", 16 + len(link + name), 16, 0, 0, 0) + link + name
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as forger:
    print(forger.sendto(message, (int(sys.argv[1]), 0)))
"""


def test_only_the_kernel_releases(namespace):
    """A message from another process that says the right thing is not believed."""
    waiter = namespace.wait(*MARKED)
    forger = namespace.enter(sys.executable, "-c", FORGER, waiter.netlink_socket()[2])
    assert forger.communicate(timeout=30)[0] == "44\n"
    waiter.assert_still_waits()
    namespace.attach()
    assert waiter.output() == "ran\n"


def test_lost_notifications_do_not_lose_the_interface(namespace):
    """When so much happens that the kernel drops messages, the command still runs once it is attached."""
    waiter = namespace.wait(*MARKED)
    waiter.kill(signal.SIGSTOP)
    flaps = "".join(f"link set lo mtu {60000 + n}\n" for n in range(1000))
    namespace.ip("-batch", "-", stdin=flaps)
    namespace.attach()
    assert int(waiter.netlink_socket()[8]) > 0, "the flood was too small to make the kernel drop messages"
    waiter.kill(signal.SIGCONT)
    assert (waiter.output(), waiter.status()) == ("ran\n", 7)


def test_waiting_goes_on_after_lost_notifications(namespace):
    """Dropped messages neither release the command nor make it deaf to what comes after them."""
    waiter = namespace.wait(*MARKED)
    waiter.kill(signal.SIGSTOP)
    namespace.ip("-batch", "-", stdin="".join(f"link set lo mtu {60000 + n}\n" for n in range(1000)))
    assert int(waiter.netlink_socket()[8]) > 0, "the flood was too small to make the kernel drop messages"
    waiter.kill(signal.SIGCONT)
    waiter.assert_still_waits()
    namespace.attach()
    assert waiter.output() == "ran\n"


ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
          signal.SIGALRM, signal.SIGPIPE, signal.SIGWINCH, signal.SIGABRT, 32, signal.SIGRTMIN,
          signal.SIGRTMIN + 3, signal.SIGRTMAX]


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_the_wait_of_process_one(namespace, number):
    """A container that waits is stopped at once, by whatever signal it is stopped with, and says by which."""
    waiter = namespace.wait_as_process_one(*MARKED)
    waiter.kill(number)
    assert (waiter.output(), waiter.status()) == ("", 128 + number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGRTMIN + 3])
def test_a_signal_ends_the_wait_of_another_process(namespace, number):
    """Below an init, or in an exec, it's the same."""
    waiter = namespace.wait(*MARKED)
    waiter.kill(number)
    assert (waiter.output(), waiter.status()) == ("", 128 + number)


@pytest.mark.parametrize("start", ["wait", "wait_as_process_one"])
def test_signals_that_ask_for_nothing_do_not_end_the_wait(namespace, start):
    """A child's end, urgent data, stopping and going on: the wait goes on."""
    waiter = getattr(namespace, start)(*MARKED)
    for number in (signal.SIGCHLD, signal.SIGURG, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN,
                   signal.SIGTTOU, signal.SIGSTOP, signal.SIGCONT):
        waiter.kill(number)
    waiter.assert_still_waits()
    namespace.attach()
    assert waiter.output() == "ran\n"


def test_a_resized_terminal_does_not_end_the_wait(namespace):
    """Then SIGWINCH comes from the kernel; a web server's stop signal comes from a process."""
    own, other = pty.openpty()
    waiter = namespace.wait(*MARKED, by=("setsid", "--ctty", "--wait"), stdin=other, stdout=other, stderr=other)
    termios.tcsetwinsize(own, (50, 100))
    waiter.assert_still_waits()
    namespace.attach()
    assert waiter.status() == 7
    os.close(own)
    os.close(other)


def test_a_signal_that_comes_with_the_interface_is_not_lost(namespace):
    """Stopped in the instant of its attach, the command doesn't run as if nobody had asked it to stop."""
    waiter = namespace.wait_as_process_one(*MARKED)
    waiter.kill(signal.SIGSTOP)
    namespace.attach()
    waiter.kill(signal.SIGTERM)
    waiter.kill(signal.SIGCONT)
    assert (waiter.output(), waiter.status()) == ("", 143)


SHOW_SELF = """
import json, os, signal, sys
print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), sorted(map(int, os.listdir("/proc/self/fd"))),
                  [line for line in open("/proc/self/status")
                   if line.startswith(("SigP", "SigB", "SigI", "SigC", "Shd", "Pid"))]]))
"""


def test_the_command_finds_what_it_would_have_found_without(namespace, tmp_path):
    """Arguments, environment, directory, files, process id, blocked and ignored signals are as they were."""
    command = (sys.executable, "-I", "-c", SHOW_SELF, "a", "", "b c", "ü*")
    environment = {"A": "1", "EMPTY": "", "PATH": "/nowhere", "LC_CTYPE": "C.UTF-8"}
    options = {"env": environment, "cwd": tmp_path,
               "preexec_fn": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, 40})}
    nsenter = f"--net=/run/netns/{namespace.name}"
    direct = subprocess.Popen(["/usr/bin/nsenter", nsenter, *command], stdout=subprocess.PIPE, text=True, **options)
    namespace.attach()
    waited = subprocess.Popen(["/usr/bin/nsenter", nsenter, namespace.wait_program, *command],
                              stdout=subprocess.PIPE, text=True, **options)
    answers = [json.loads(process.communicate(timeout=30)[0]) for process in (direct, waited)]
    for answer, process in zip(answers, (direct, waited), strict=True):
        answer[4].remove(f"Pid:\t{process.pid}\n")
    assert answers[0] == answers[1]
    assert answers[1][:2] == [["a", "", "b c", "ü*"], environment]


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Two directories of a PATH, with what can be found in one: good, bad, and misleading."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    for path, content, mode in [("first/plain", "#!/bin/sh\necho wrong\n", 0o644), ("first/twice", "x", 0o644),
                                ("second/twice", "#!/bin/sh\necho second $0\n", 0o755),
                                ("second/bare", "echo no interpreter\n", 0o755),
                                ("second/lost", "#!/no/such/interpreter\n", 0o755),
                                ("second/-x", "#!/bin/sh\necho minus $0\n", 0o755),
                                ("here", "#!/bin/sh\necho here\n", 0o755)]:
        (tmp_path / path).write_text(content)
        (tmp_path / path).chmod(mode)
    (tmp_path / "second" / "folder").mkdir()
    return tmp_path


NOT_FOUND = 'exec: "{}": executable file not found in $PATH\n'
NO_FILE = 'exec: "{0}": stat {0}: {1}\n'
DENIED = 'exec: "{}": permission denied\n'


@pytest.mark.parametrize(("command", "path", "status", "output"), [
    pytest.param("twice", "first:second", 0, "second second/twice\n", id="what can't be executed is passed over"),
    pytest.param("twice", "/no:/etc/passwd:second", 0, "second second/twice\n", id="what is no directory as well"),
    pytest.param("twice", "x" * 5000 + ":second", 0, "second second/twice\n", id="and what is too long"),
    pytest.param("here", "first:", 0, "here\n", id="an empty element is the working directory"),
    pytest.param("here", ":first", 0, "here\n", id="at the beginning too"),
    pytest.param("here", "first::second", 0, "here\n", id="and in the middle"),
    pytest.param("./here", "first", 0, "here\n", id="a slash means no PATH"),
    pytest.param("second/twice", "", 0, "second second/twice\n", id="relative to the working directory"),
    pytest.param("nothing", "first:second", 127, NOT_FOUND.format("nothing"), id="not found"),
    pytest.param("plain", "first:second", 127, NOT_FOUND.format("plain"), id="only what can't be executed, as Docker"),
    pytest.param("folder", "first:second", 127, NOT_FOUND.format("folder"), id="only a directory, as Docker"),
    pytest.param("", "first:second", 127, NOT_FOUND.format(""), id="no name"),
    pytest.param("bare", "first:second", 1, "exec second/bare: exec format error\n", id="found without #!"),
    pytest.param("lost", "first:second", 1, "exec second/lost: no such file or directory\n", id="without interpreter"),
    pytest.param("./nothing", "second", 127, NO_FILE.format("./nothing", "no such file or directory"), id="no path"),
    pytest.param("./here/x", "second", 127, NO_FILE.format("./here/x", "not a directory"), id="path through a file"),
    pytest.param("first/plain", "", 126, DENIED.format("first/plain"), id="path not executable"),
    pytest.param("./second", "", 126, DENIED.format("./second"), id="path is a directory"),
    pytest.param("second/bare", "", 1, "exec second/bare: exec format error\n", id="path without #!"),
    pytest.param("/" + "x" * 300, "", 126, NO_FILE.format(f"/{'x' * 300}", "error 36"), id="error without words"),
    pytest.param("--help", "first", 127, NOT_FOUND.format("--help"), id="what looks like an option"),
    pytest.param("--version", "first", 127, NOT_FOUND.format("--version"), id="another"),
    pytest.param("-x", "second", 0, "minus second/-x\n", id="a command that looks like an option"),
])
def test_looks_a_command_up_as_docker_does(namespace, places, command, path, status, output):
    """127 for what is not found, 126 for what may not be executed, one line as Docker's; it has no options itself."""
    namespace.attach()
    process = namespace.enter("/usr/bin/env", "-C", str(places), f"PATH={path}", namespace.wait_program, command)
    assert (process.communicate(timeout=30)[0], process.returncode) == (output, status)


@pytest.mark.parametrize(("command", "status"), [("nothing", 127), ("/nothing", 127), ("/etc", 126), ("", 127)])
def test_a_wrong_command_is_not_waited_for(namespace, command, status):
    """It ends at once, with or without network."""
    assert namespace.enter(namespace.wait_program, command).wait(timeout=30) == status


def test_it_is_called_waiting_once_its_command_was_found(namespace):
    """So that whoever attaches knows that it was; the command has a name of its own."""
    waiter = namespace.wait("sh", "-c", "cat /proc/$$/comm")
    assert Path(f"/proc/{waiter.pid}/comm").read_text() == "weave-wait\n"
    namespace.attach()
    assert waiter.output() == "sh\n"


def test_default_path_is_dockers(namespace):
    """An environment without PATH finds what Docker's default PATH has."""
    namespace.attach()
    process = namespace.enter("env", "-i", namespace.wait_program, "sh", "-c", "echo $0")
    assert process.communicate(timeout=30)[0] == "sh\n"


def test_without_a_command_it_says_how_it_is_used(namespace):
    """Docker never starts it like that."""
    process = namespace.enter(namespace.wait_program)
    assert (process.communicate(timeout=30)[0], process.returncode) == (
        "weavemw: usage: w COMMAND [ARGUMENT...]: executes it once the interface ethwe is up and has carrier\n", 2)


def test_after_a_while_it_says_what_it_waits_for(namespace, tmp_path):
    """One line on stderr, once; a stderr that nobody reads, that is full or closed, doesn't harm the wait."""
    with open(tmp_path / "stderr", "w+") as log:
        told = namespace.wait(*MARKED, stderr=log)
        unread, unread_end = os.pipe()
        os.close(unread)
        untold = namespace.wait(*MARKED, stderr=unread_end)
        full, full_end = os.pipe()
        os.set_blocking(full_end, False)
        _fill(full_end)
        os.set_blocking(full_end, True)
        stuck = namespace.wait("sh", "-c", "exec 2>&1; echo ran", stderr=full_end)
        closed = namespace.wait("sh", "-c", "echo ran", by=("sh", "-c", 'exec "$@" 2>&-', "sh"))
        _until(lambda: (tmp_path / "stderr").read_text() != "")
        waiters = (told, untold, stuck, closed)
        for waiter in waiters:
            waiter.assert_still_waits()
        namespace.attach()
        assert [waiter.output() for waiter in waiters] == ["ran\n"] * 4
        line, = (tmp_path / "stderr").read_text().splitlines()
        assert "ethwe" in line
    for handle in (unread_end, full, full_end):
        os.close(handle)


def _fill(pipe: int) -> None:
    try:
        while True:
            os.write(pipe, b"x" * 4096)
    except BlockingIOError:
        return


def _until(condition) -> None:
    while not condition():
        signal.sigtimedwait((), 0.05)


def test_takes_next_to_no_memory(namespace):
    """A thousand waiting containers take less than one interpreter would."""
    waiter = namespace.wait("true")
    rollup = Path(f"/proc/{waiter.pid}/smaps_rollup").read_text()
    resident = int(next(line for line in rollup.splitlines() if line.startswith("Rss:")).split()[1])
    assert resident <= 64
    assert len(list(Path(f"/proc/{waiter.pid}/task").iterdir())) == 1


BARE = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
exec env -i "$(command -v setpriv)" --no-new-privs \\
    "$(command -v chroot)" --userspec=65534:65534 --groups= "$1" /w /w sh
"""


def test_works_in_the_barest_of_containers(namespace, tmp_path):
    """Read-only, nothing but the program itself, any user, no capabilities, no new privileges."""
    image = tmp_path / "image"
    image.mkdir(mode=0o755)
    (image / "w").write_bytes(Path(namespace.wait_program).read_bytes())
    (image / "w").chmod(0o555)
    namespace.attach()
    process = namespace.enter("unshare", "--mount", "sh", "-c", BARE, "sh", str(image))
    output = process.communicate(timeout=30)[0]
    assert (output, process.returncode) == (NOT_FOUND.format("sh"), 127)


def test_every_machines_program_waits_and_runs(namespace, any_machine):
    """The programs for other machines do the same, as far as emulation can tell."""
    waiter = namespace.wait(*MARKED, by=_around(namespace, any_machine))
    namespace.ip("link", "add", "ethwe", "type", "veth", "peer", "name", "peer")
    namespace.ip("link", "set", "ethwe", "up")
    waiter.assert_still_waits()
    namespace.ip("link", "set", "peer", "up")
    assert (waiter.output(), waiter.status()) == ("ran\n", 7)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])  # qemu numbers real-time signals otherwise
def test_every_machines_program_ends_by_signal(namespace, any_machine, number):
    """The programs for other machines are stopped at once as well."""
    waiter = namespace.wait(*MARKED, by=_around(namespace, any_machine))
    waiter.kill(number)
    assert (waiter.output(), waiter.status()) == ("", 128 + number)


def test_every_machines_program_survives_lost_notifications(namespace, any_machine):
    """The programs for other machines also look again after messages were dropped."""
    waiter = namespace.wait(*MARKED, by=_around(namespace, any_machine))
    waiter.kill(signal.SIGSTOP)
    namespace.ip("-batch", "-", stdin="".join(f"link set lo mtu {60000 + n}\n" for n in range(1000)))
    namespace.attach()
    assert int(waiter.netlink_socket()[8]) > 0
    waiter.kill(signal.SIGCONT)
    assert waiter.output() == "ran\n"


def test_every_machines_program_says_why_not(namespace, any_machine):
    """The programs for other machines know the exit codes."""
    namespace.attach()
    for command, status in (("/nothing", 127), ("nothing", 127), ("/etc", 126), ("--help", 127)):
        assert namespace.enter(*any_machine("w"), command).wait(timeout=30) == status


def _around(namespace, any_machine) -> tuple[str, ...]:
    *emulator, namespace.wait_program = any_machine("w")
    return tuple(emulator)
