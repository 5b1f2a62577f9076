"""JSON taken apart. What is well-formed was compared with Go's encoding/json."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weavemw.dockerapi.jsontext import DEEPEST, MOST_BRACKETS, MOST_PARTS, Text, object_at_start
from weavemw.errors import BadRequest, PayloadTooLarge


def test_values_are_found_as_they_stand() -> None:
    """Keys are read, values are not; what follows the object is left out."""
    raw = b' \n{ "a" : 1.50 ,"\\u0062":[ 1 , {"x":[]} ] ,"c":{ },"d":"\\n","a":null } {"next":1}'
    found = object_at_start(raw)
    assert found is not None
    assert raw[found.end :] == b' {"next":1}'
    assert [(key, bytes(value)) for key, value in found.fields()] == [
        ("a", b"1.50"), ("b", b'[ 1 , {"x":[]} ]'), ("c", b"{ }"), ("d", b'"\\n"'), ("a", b"null")]
    items = found.fields()[1][1].items()
    assert [(item.first, bytes(item)) for item in items] == [("1", b"1"), ("{", b'{"x":[]}')]


_VALUES = ["0", "-0", "12", "-1.5", "1e5", "1E+5", "1.0e-5", '""', '"a b"', '"\\u00e9"', '"\\"\\\\\\/\\b\\f\\n\\r\\t"',
           '"\x7f\xe9"', "true", "false", "null", "[]", "[ ]", "{}", "{\n}", "[1]", '[1,"a",[]]', '{"":[{"a":1}]}']
_NO_VALUES = ["", "01", "+1", ".5", "1.", "1e", "-", "0x1", "NaN", "Infinity", "nul", "True", "'a'", '"a', '"\t"',
              '"\\x"', '"\\u12"', '"\\u12"34"', "[1", "[1,]", "[,1]", "[1 2]", "[1,,2]", "[}", "{]", "{1:2}", '{"a"}',
              '{"a":}', '{"a":1,}', '{"a":1 "b":2}', '{"a":1,2}', '["a":1]', '{"a":[1}', "1 2", "/**/1", "[1]]",
              "\ufeff1"]


@pytest.mark.parametrize("text", _VALUES)
@pytest.mark.parametrize("around", ["%s", " \t\r\n%s ", "[%s]", "[[%s]]", '{"k":%s}', "[%s,[%s],%s]",
                                    '{"k":[],"k" :%s}'])
def test_what_is_well_formed(text: str, around: str) -> None:
    """In every place where a value may be."""
    value = around.replace("%s", text)
    found = object_at_start(f'{{"a":{value},"b":{value}}}'.encode())
    assert found is not None
    assert [key for key, _ in found.fields()] == ["a", "b"]
    assert [bytes(part).decode() for _, part in found.fields()] == [value.strip()] * 2


@pytest.mark.parametrize("text", _NO_VALUES)
@pytest.mark.parametrize("around", ["%s", "[%s]", "[1,%s]", "[[],%s]", '{"k":%s}', '{"k":[],"l":%s}'])
def test_what_is_not_well_formed(text: str, around: str) -> None:
    """In every place too, unless the place makes it good."""
    value = around.replace("%s", text)
    try:
        json.loads(value, parse_constant=lambda name: 1 / 0)
    except (ValueError, ZeroDivisionError):
        assert object_at_start(f'{{"a":{value}}}'.encode()) is None
        assert object_at_start(f'{{"a":[],"b":{value}}}'.encode()) is None


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(-1e9, 1e9),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), st.sampled_from([None, 1]))
def test_it_reads_what_json_wrote(value: object, indent: int | None) -> None:
    """Taken apart to the last part, a text is the value that it was made of."""
    written = json.dumps({"a": value}, indent=indent).encode()
    found = object_at_start(written)
    assert found is not None
    assert _whole(found) == json.loads(written)


def _whole(text: Text) -> object:
    if text.first == "{":
        return {key: _whole(value) for key, value in text.fields()}
    return [_whole(item) for item in text.items()] if text.first == "[" else json.loads(bytes(text))


def test_it_agrees_with_python_about_damaged_texts() -> None:
    """A character more, less or other: both take it, or neither; Python alone takes NaN and Infinity."""
    rng = random.Random(1)
    for _ in range(3000):
        text = '{"a":[1,{"b":-2.5e3,"c":["\\u0041",{}]},[],true],"d":{"e":null,"f":[[[0]]]}}'
        for _ in range(rng.randrange(1, 3)):
            place = rng.randrange(1, len(text))
            text = text[:place] + rng.choice(["", *'{}[]:,"\\ 01-+.eEtnu\x00\x1f']) + text[place + rng.randrange(2) :]
        try:
            json.JSONDecoder().raw_decode(text)
            expected = True
        except ValueError:
            expected = False
        found = object_at_start(text.encode())
        assert (found is not None) is expected, text


@pytest.mark.parametrize(("opening", "closing", "depth"), [("[", "]", 1), ('{"a":', "}", 1), ('[0,{"a":', "}]", 2)])
def test_depth(opening: str, closing: str, depth: int) -> None:
    """Ten thousand, the object at the start included; Go refuses what is deeper, and so do we."""
    times = (DEEPEST - 1) // depth
    assert object_at_start(f'{{"a":{opening * times}0{closing * times}}}'.encode()) is not None
    with pytest.raises(BadRequest, match="nested too deeply"):
        object_at_start(f'{{"a":{opening * (times + 1)}0{closing * (times + 1)}}}'.encode())


def test_more_parts_than_are_looked_at() -> None:
    """They are refused where they are looked into, and pass where they are not."""
    many = f"[{'0,' * MOST_PARTS}0]"
    found = object_at_start(f'{{"a":{many}}}'.encode())
    assert found is not None
    with pytest.raises(PayloadTooLarge, match="more than 20000 fields"):
        found.fields()[0][1].items()
    with pytest.raises(PayloadTooLarge, match="more than 400000 lists"):
        object_at_start(b'{"a":[%b0]}' % (b"[0]," * MOST_BRACKETS))
    with pytest.raises(PayloadTooLarge, match="more than 20000 fields"):
        object_at_start(b"{%b}" % b",".join([b'"a":0'] * (MOST_PARTS + 1)))


@pytest.mark.parametrize("item", ["0", "[]", "{}", "[0]", '{"":0}', "[[[[]]]]", '"ab"', '"\\n"', "1.5e3", "null",
                                  '[{"a":[{}]}]'])
def test_memory(item: str) -> None:
    """However many values there are, what is not read costs nothing beyond a body's own bytes."""
    raw = f'{{"Image":"a","x":[{",".join([item] * (200_000 // len(item)))}]}}'.encode()
    tracemalloc.start()
    try:
        assert object_at_start(raw)
        assert tracemalloc.get_traced_memory()[1] < len(raw)
    finally:
        tracemalloc.stop()


def test_all_ports_of_a_host() -> None:
    """The largest create that is known of is looked at."""
    ports = {f"{port}/tcp": [{"HostIp": "", "HostPort": f"{port}"}] for port in range(1, 65536)}
    raw = json.dumps({"ExposedPorts": {port: {} for port in ports}, "HostConfig": {"PortBindings": ports}},
                     separators=(",", ":")).encode()
    assert len(raw) < 4 << 20
    found = object_at_start(raw)
    assert found is not None
    assert [key for key, _ in found.fields()] == ["ExposedPorts", "HostConfig"]


def test_memory_of_a_long_string() -> None:
    """Its escapes are no exception."""
    raw = b'{"x":"' + b"\\n" * 500_000 + b'"}'
    tracemalloc.start()
    try:
        assert object_at_start(raw)
        assert tracemalloc.get_traced_memory()[1] < len(raw)
    finally:
        tracemalloc.stop()
