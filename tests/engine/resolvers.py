"""An image with programs that resolve names, each in its own way: glibc's, musl's, BIND's and busybox's."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

__all__ = ["MUSL_GCC", "image_root"]

MUSL_GCC = shutil.which("musl-gcc") or ""

_RESOLVE = r"""
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct addrinfo hints, *found, *each;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    int error = getaddrinfo(argv[1], NULL, &hints, &found);
    if (error) {
        fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(error));
        return 1;
    }
    for (each = found; each; each = each->ai_next) {
        char text[INET6_ADDRSTRLEN];
        void *address = each->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)each->ai_addr)->sin_addr
                                                   : (void *)&((struct sockaddr_in6 *)each->ai_addr)->sin6_addr;
        puts(inet_ntop(each->ai_family, address, text, sizeof text));
    }
    return 0;
}
"""


def image_root(directory: Path) -> bytes:
    """A tar of a root file system with getent and dig (and what they load), busybox, and musl's getaddrinfo."""
    programs = {"bin/getent": "/usr/bin/getent", "bin/dig": shutil.which("dig") or "", "bin/busybox": "/bin/busybox"}
    files = {target: Path(source) for target, source in programs.items()}
    for program in programs.values():
        files |= {str(library).lstrip("/"): library for library in _libraries(program)}
    if MUSL_GCC:
        files["bin/musl"] = _musl(directory)
    with io.BytesIO() as out, tarfile.open(fileobj=out, mode="w", dereference=True) as tar:
        for target, source in files.items():
            tar.add(source.resolve(), target)
        for applet in ("sleep", "nslookup", "ping", "sh", "cat"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        tar.close()
        return out.getvalue()


def _libraries(program: str) -> list[Path]:
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)  # fails for what is static
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", done.stdout)]


def _musl(directory: Path) -> Path:
    source, program = directory / "resolve.c", directory / "resolve"
    source.write_text(_RESOLVE)
    subprocess.run([MUSL_GCC, "-static", "-o", program, source], check=True)
    return program
