"""The program that starts weavemw's own processes from an image with nothing else in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

IN_IMAGE = 'set -e; mount --bind / "$1/host"; exec chroot "$@"'
IN_UNFINISHED_IMAGE = 'rmdir "$1/host"; exec chroot "$@"'
WITHOUT_CAPABILITY = ('set -e; mount --bind / "$1/host"; image=$1; shift; '
                      'exec chroot --userspec=65534:65534 --groups= "$image" "$@"')


@pytest.fixture
def enter(any_machine, tmp_path):
    """Run it in an image whose /host is the root directory; an emulator is copied into the image."""
    image = tmp_path / "image"
    (image / "host").mkdir(parents=True)
    image.chmod(0o755)
    command = [_copied(shutil.which(path), image) for path in any_machine("enter")]

    def run(*arguments: str, script: str = IN_IMAGE, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", str(image), *command, *arguments],
                              capture_output=True, text=True, check=False, timeout=30, **options)

    return run


def _copied(path: str, image: Path) -> str:
    shutil.copy(path, image)
    return "/" + Path(path).name


def test_executes_a_command_of_the_host(enter):
    """Root and working directory are the host's; arguments, environment and exit status pass unchanged."""
    result = enter("/bin/sh", "-c", 'pwd; echo "$A" "$@"; test -e /etc/passwd; exit 7', "sh", "b c", "",
                   env={"A": "1", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"})
    assert (result.stdout, result.stderr, result.returncode) == ("/\n1 b c \n", "", 7)


@pytest.mark.parametrize(("arguments", "status", "reason"), [
    pytest.param(["/no/command"], 127, "/no/command: no such file or directory", id="not found"),
    pytest.param(["/etc/passwd"], 126, "/etc/passwd: permission denied", id="not executable"),
    pytest.param(["/etc"], 126, "/etc: permission denied", id="directory"),
    pytest.param(["sh"], 127, "sh: not an absolute path", id="no PATH"),
    pytest.param([], 2, "usage: enter /ABSOLUTE/COMMAND [ARGUMENT...]: executes it with /host as root directory",
                 id="nothing"),
])
def test_says_why_it_can_not(enter, arguments, status, reason):
    """One line that names the command and the reason, and Docker's exit codes."""
    result = enter(*arguments)
    assert (result.stdout, result.stderr, result.returncode) == ("", f"weavemw: {reason}\n", status)


@pytest.mark.parametrize(("script", "status", "reason"), [
    pytest.param(IN_UNFINISHED_IMAGE, 127, "no such file or directory", id="nothing mounted"),
    pytest.param(WITHOUT_CAPABILITY, 126, "operation not permitted", id="no capability"),
])
def test_says_what_it_lacks(enter, script, status, reason):
    """A container made without the mount or the capability is told from a command that is missing."""
    result = enter("/bin/true", script=script)
    assert result.returncode == status
    assert result.stderr == f"weavemw: can't make /host the root directory: {reason}\n"
