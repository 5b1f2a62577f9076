"""Docker's answers as they would be without the wait program."""

from __future__ import annotations

import json
from typing import Any

import pytest

from weavemw.dockerapi.traces import EventFilter, without_traces

SOURCE = "/var/lib/weavemw/wait/0123456789ab/w"
BIND = f"{SOURCE}:/dev/w:ro"
MOUNT = {"Type": "bind", "Source": SOURCE, "Destination": "/dev/w", "Mode": "ro", "RW": False, "Propagation": "x"}
OTHER = {"Type": "bind", "Source": "/a", "Destination": "/b", "Mode": "", "RW": True}


def told(call: str, answer: object) -> Any:
    """An answer without traces."""
    return json.loads(without_traces(call, json.dumps(answer).encode()))


def container(entrypoint: object, cmd: object, argv: list[str], binds: object, mounts: object) -> dict[str, Any]:
    """What inspect shows of a container; big numbers and fields that nobody knows stay."""
    return {"Id": "c", "Big": 9007199254740993, "Path": argv[0], "Args": argv[1:], "Mounts": mounts,
            "Config": {"Hostname": "h", "Cmd": cmd, "Entrypoint": entrypoint}, "HostConfig": {"Binds": binds, "X": 1.5}}


@pytest.mark.parametrize(("shown", "expected"), [
    pytest.param(container(["/dev/w"], ["sh"], ["/dev/w", "sh"], [BIND], [MOUNT]),
                 container(None, ["sh"], ["sh"], None, []), id="null"),
    pytest.param(container(["/dev/./w"], ["sh", "-c"], ["/dev/./w", "sh", "-c"], [f"{BIND},rprivate"], [MOUNT]),
                 container([], ["sh", "-c"], ["sh", "-c"], [], []), id="empty lists"),
    pytest.param(container(["/dev/w", "e"], None, ["/dev/w", "e"], ["/a:/b", BIND], [MOUNT, OTHER]),
                 container(["e"], None, ["e"], ["/a:/b"], [OTHER]), id="an entrypoint and a bind"),
    pytest.param(container(["/.dockerenv", "e"], [], ["/.dockerenv", "e"], [f"{SOURCE}:/.dockerenv:ro"],
                           [MOUNT | {"Destination": "/.dockerenv"}]),
                 container(["e"], [], ["e"], None, []), id="at the other place"),
    pytest.param(container(["/w/w", "e"], [], ["/w/w", "e"], ["/lib/wait/0123456789ab:/w:ro"],
                           [MOUNT | {"Source": "/lib/wait/0123456789ab", "Destination": "/w"}]),
                 container(["e"], [], ["e"], None, []), id="of an earlier version"),
    pytest.param(container(["sh"], None, ["sh"], None, [MOUNT | {"Mode": ""}]),
                 container(["sh"], None, ["sh"], None, []), id="by --volumes-from"),
])
def test_inspect(shown: object, expected: object) -> None:
    """Entrypoint, arguments, binds and mounts are those of the request, null and empty lists apart."""
    assert told("container_inspect", shown) == expected


@pytest.mark.parametrize(("command", "expected"), [
    ("/dev/w sleep 9", "sleep 9"), ("/dev/./w sleep 9", "sleep 9"), ("/dev/w sh -c 'a b'", "sh -c 'a b'"),
    ("/dev/w 'a program' x", "a program x"), ("/dev/w 'a program'", "a program"), ("/dev/w 'a'", "'a'"),
    ("/dev/w  x", " x"), ("/dev/w a\n'b c'", "a\n'b c'"),
])
@pytest.mark.parametrize("call", ["container_list", "df"])
def test_list(call: str, command: str, expected: str) -> None:
    """The command is as Docker would write it: an argument with a blank has quotes, the program has none."""
    rows = [{"Id": "a", "Command": command, "Mounts": [OTHER, MOUNT]}, {"Id": "b", "Command": "sh", "Mounts": []}]
    clean = [{"Id": "a", "Command": expected, "Mounts": [OTHER]}, rows[1]]
    assert told(call, {"Containers": rows} if call == "df" else rows) == \
        ({"Containers": clean} if call == "df" else clean)


def daemons(rows: object) -> bytes:
    """As the daemon writes it."""
    return json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def test_only_rows_with_marks_are_written_anew() -> None:
    """The others stay byte for byte, however their JSON is spelled."""
    ours = {"Id": "a", "Command": "/dev/w sh", "Mounts": [MOUNT]}
    other = b'{"Id":"b","Command":"s\\u0068","Size":1.50,"Mounts":[]}'
    written = daemons([ours]).rstrip(b"]\n")
    clean = b'{"Id":"a","Command":"sh","Mounts":[]}'
    assert without_traces("container_list", b"%b,%b,%b]\n" % (written, other, written[1:])) == \
        b"[%b,%b,%b]\n" % (clean, other, clean)


@pytest.mark.parametrize("inner", [[{"Id": "x"}, {"Id": "y"}], [{"X": "/dev/w"}, {"Id": "y"}]])
def test_what_looks_like_a_row_within_a_row(inner: object) -> None:
    """A field that nobody knows yet holds a list of objects with an Id."""
    row = {"Id": "a", "Inner": inner, "Command": "/dev/w sh", "Mounts": [MOUNT]}
    assert without_traces("container_list", daemons([row, row])) == \
        daemons([row | {"Command": "sh", "Mounts": []}] * 2)


def test_a_list_with_marks_that_are_no_traces_is_the_same() -> None:
    body = daemons([{"Id": "a", "Command": "/dev/w sh", "Mounts": []}, {"Id": "b", "Labels": {"x": "/wait/"}}])
    assert without_traces("container_list", body) == body


def test_disk_usage_since_api_1_52() -> None:
    """Containers are one kind of several, each with its items."""
    row = {"Id": "a", "Command": "/dev/w sh", "Mounts": [MOUNT]}
    usage = {"ContainersDiskUsage": {"Items": [row]}, "ImagesDiskUsage": {"Items": [{"Id": "i"}]}, "Total": 1}
    assert told("df", usage) == usage | {"ContainersDiskUsage": {"Items": [row | {"Command": "sh", "Mounts": []}]}}


def test_exec() -> None:
    """What is executed while the container waits is what was asked for."""
    process = {"entrypoint": "/dev/w", "arguments": ["sh", "-c", "x"], "tty": False}
    assert told("exec_inspect", {"ID": "e", "ProcessConfig": process}) == \
        {"ID": "e", "ProcessConfig": {"entrypoint": "sh", "arguments": ["-c", "x"], "tty": False}}


def test_image() -> None:
    """An image that was committed from a container tells how that was configured, up to API 1.44."""
    assert told("image_inspect", {"Id": "i", "ContainerConfig": {"Entrypoint": ["/dev/w"], "Cmd": ["/dev/w"]}}) == \
        {"Id": "i", "ContainerConfig": {"Entrypoint": None, "Cmd": ["/dev/w"]}}


LOOKS_LIKE_OURS = container(["/dev/w"], ["sh"], ["/dev/w", "sh"], ["/x/w:/dev/w:ro"], [MOUNT | {"RW": True}])


@pytest.mark.parametrize(("call", "body"), [
    pytest.param("container_inspect", json.dumps(LOOKS_LIKE_OURS).encode(), id="a mount of the user's"),
    pytest.param("container_inspect", b'{ "Path" : "sh", "Labels": {"x": "/wait/"}}', id="a mark elsewhere"),
    pytest.param("container_inspect", b'["/wait/"]', id="a list"),
    pytest.param("container_inspect", b'{"Config":"/dev/w","HostConfig":null,"Mounts":[],"Args":7}', id="other types"),
    pytest.param("container_list", b'{"message":"/dev/w"}', id="an object for a list"),
    pytest.param("container_list", b'[null,"/dev/w",{"Command":null,"Mounts":null}]', id="rows that are none"),
    pytest.param("container_list", b'[{"Command":"/dev/w x"}] ', id="no mount"),
    pytest.param("df", b'{"Containers":null,"x":"/dev/w"}', id="no containers"),
    pytest.param("exec_inspect", b'{"ProcessConfig":{"entrypoint":"/dev/w","arguments":null}}', id="no arguments"),
    pytest.param("image_inspect", b'{"Config":{"Entrypoint":["/dev/w"]}}', id="an image's own"),
    pytest.param("container_inspect", b'{"/wait/', id="no JSON"),
    pytest.param("container_top", b'{"Processes":[["/dev/w"]]}', id="another call"),
])
def test_everything_else_is_untouched(call: str, body: bytes) -> None:
    """What is not ours comes byte for byte."""
    assert without_traces(call, body) is body


def event(action: str, **attributes: str) -> bytes:
    """An event in its chunk, as the daemon sends it."""
    line = json.dumps({"status": action, "id": "c", "Action": action, "Actor": {"Attributes": attributes}},
                      separators=(",", ":")).encode() + b"\n"
    return b"%x\r\n%b\r\n" % (len(line), line)


@pytest.mark.parametrize(("action", "expected"), [
    ("exec_create: /dev/w sh -c x", "exec_create: sh -c x"), ("exec_start: /dev/./w sh", "exec_start: sh"),
    ("exec_start: /.dockerenv sh", "exec_start: sh"), ("exec_create: /dev/www x", "exec_create: /dev/www x"),
    ("exec_create: sh /dev/w x", "exec_create: sh /dev/w x"), ("start", "start"),
])
def test_events(action: str, expected: str) -> None:
    """Chunks keep their sizes, and the rest of the event its bytes."""
    sent = event(action, label='x:"exec_create: /dev/w y"')
    passed = EventFilter()(sent)
    assert len(passed) == len(sent)
    assert json.loads(passed.split(b"\r\n")[1]) == json.loads(event(expected, label='x:"exec_create: /dev/w y"')
                                                             .split(b"\r\n")[1])


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_events_in_pieces(size: int) -> None:
    """However the bytes arrive: whole lines go on at once, the rest at the end."""
    sent = b"HTTP/1.1 200 OK\r\n\r\n" + event("exec_create: /dev/w sh") * 3 + b"0\r\n\r\nrest"
    to_pass = EventFilter()
    pieces = [to_pass(sent[start : start + size]) for start in range(0, len(sent), size)]
    assert b"".join(pieces).endswith(b"0\r\n\r\n")
    assert b"".join([*pieces, to_pass(b"")]) == EventFilter()(sent) + b"rest"
    assert b"/dev/w" not in b"".join(pieces)
