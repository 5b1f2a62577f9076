"""Docker's JSON and bodies. What is expected here was compared with Go's encoding/json."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weavemw import context
from weavemw.dockerapi.payload import LIMIT, Body, Number, Object, body_of, encode, fold, parse
from weavemw.errors import BadRequest, PayloadTooLarge, Unsupported


def document(text: str | bytes) -> Object:
    """The object that a body holds."""
    found, _ = parse(text.encode() if isinstance(text, str) else text)
    assert found is not None
    return found


def request(raw: bytes = b"", **environ: object) -> dict[str, Any]:
    """An environ with this body."""
    return {"REQUEST_METHOD": "POST", "wsgi.input": BytesIO(raw), "CONTENT_LENGTH": str(len(raw)), **environ}


@pytest.mark.parametrize("raw", [
    b"", b" ", b"null", b"[]", b'["Env"]', b'"Env"', b"1", b"true", b"{", b'{"a":1', b"{'a':1}", b'{"a":NaN}',
    b'{"a":-Infinity}', b'{"a":01}', b'{"a":1,}', b'{"a":"\n"}', b"\xef\xbb\xbf{}", b"\xff{}", b'{"a" 1}', b'{"a":nul}',
    b'{"a":"\\x41"}', b'{a:1}', b"name=web",
])
def test_what_is_no_object_is_not_ours_to_judge(raw: bytes) -> None:
    """A body that is no JSON object is left to the daemon, byte for byte."""
    body = Body(raw)
    assert body.document is None
    assert body.data == raw


@pytest.mark.parametrize("raw", [
    b"{}", b' {"a" : 1 } ', b'{"a":1}{"b":2}', b'{"a":1}\n\xff\x00garbage', b'{"a":1.50,"a":2}', b'{"a":"\\u0041\xff"}',
])
def test_what_nobody_changed_is_kept_byte_for_byte(raw: bytes) -> None:
    """Reading a body does not change it."""
    body = Body(raw)
    assert body.document is not None
    body.document.strings("Env")
    assert body.data == raw


@pytest.mark.parametrize(("text", "expected"), [
    pytest.param('{"Env":["a"]}', ["a"], id="plain"),
    pytest.param('{"ENV":["a"]}', ["a"], id="any case"),
    pytest.param('{"\\u0045nv":["a"]}', ["a"], id="escaped"),
    pytest.param('{"Env":["a"],"env":["b"]}', ["b"], id="the last counts"),
    pytest.param('{"Env":["a"],"env":null}', None, id="null empties"),
    pytest.param('{"Env":null,"env":["b"]}', ["b"], id="after null"),
    pytest.param('{"Env":[null]}', [""], id="null within"),
    pytest.param('{"Env":[]}', [], id="empty"),
    pytest.param('{"Env":null}', None, id="null"),
    pytest.param("{}", None, id="missing"),
    pytest.param('{"Environment":["a"]}', None, id="another name"),
    pytest.param('{"Env":["\\ud83d\\ude00"]}', ["\U0001f600"], id="surrogates in a pair"),
    pytest.param('{"Env":["\\ud800\\ud83d\\ude00x"]}', ["\ufffd\U0001f600x"], id="lone surrogate before a pair"),
    pytest.param('{"Env":["\\udc00A"]}', ["\ufffdA"], id="lone surrogate"),
    pytest.param(b'{"Env":["\xff\xe2\x82"]}', ["\ufffd\ufffd\ufffd"], id="not UTF-8"),
    pytest.param(b'{"Env":["\xed\xa0\x80"]}', ["\ufffd\ufffd\ufffd"], id="surrogate in UTF-8"),
])
def test_lists_of_strings(text: str | bytes, expected: list[str] | None) -> None:
    """A list of strings reads as the daemon reads it."""
    assert document(text).strings("Env") == expected


@pytest.mark.parametrize(("text", "expected"), [
    ('{"Cmd":["a","b"]}', ["a", "b"]), ('{"Cmd":"a b"}', ["a b"]), ('{"Cmd":""}', [""]), ('{"Cmd":[]}', []),
    ('{"Cmd":null}', None), ("{}", None), ('{"cmd":"a","CMD":["b",null]}', ["b", ""]), ('{"Cmd":"a","Cmd":null}', None),
])
def test_commands_are_lists_or_strings(text: str, expected: list[str] | None) -> None:
    """Entrypoint and Cmd may be single strings."""
    assert document(text).command("Cmd") == expected


@pytest.mark.parametrize(("text", "expected"), [
    ('{"Image":"a"}', "a"), ('{"IMAGE":"b"}', "b"), ('{"Image":"a","image":"b"}', "b"),
    ('{"Image":"a","image":null}', "a"), ('{"Image":null}', ""), ("{}", ""),
])
def test_strings(text: str, expected: str) -> None:
    """The last string counts; null leaves a string alone."""
    assert document(text).string("Image") == expected


@pytest.mark.parametrize(("text", "mode"), [
    ('{"HostConfig":{"NetworkMode":"host"}}', "host"),
    ('{"ho\u017ftconfig":{"networ\u212amode":"host"}}', "host"),
    ('{"HostConfig":{"NetworkMode":"host"},"hostconfig":{"Dns":[]}}', "host"),
    ('{"HostConfig":{"NetworkMode":"host"},"hostconfig":{"networkmode":"none"}}', "none"),
    ('{"HostConfig":{"NetworkMode":"host"},"hostconfig":null}', None),
    ('{"HostConfig":{"NetworkMode":"host"},"hostconfig":null,"HOSTCONFIG":{}}', ""),
    ('{"HostConfig":null}', None), ("{}", None),
])
def test_objects_given_twice_are_merged(text: str, mode: str | None) -> None:
    """A second object goes on where the first one ended; null in between begins anew."""
    host = document(text).child("HostConfig")
    assert (host.string("NetworkMode") if host else None) == mode


def test_maps() -> None:
    """The keys of a map are told apart by case, the last of two counts."""
    found = document('{"Labels":{"a":"1","A":"2","a":"3","b":null},"labels":{"c":"4"},"Volumes":{"/w":{},"/w":{}}}')
    assert found.labels("LABELS") == {"a": "3", "A": "2", "b": "", "c": "4"}
    assert found.keys("Volumes") == ["/w"]
    assert (found.labels("None"), found.keys("None")) == ({}, [])


def test_lists_of_objects() -> None:
    """The objects of a list are read one by one."""
    mounts = document('{"Mounts":[{"Target":"/a"},{"target":"/b"},null]}').objects("Mounts")
    assert [mount.string("Target") for mount in mounts] == ["/a", "/b", ""]
    assert document("{}").objects("Mounts") == []


@pytest.mark.parametrize(("text", "read", "complaint"), [
    ('{"Env":1}', "strings", "Env: expected a list of strings, got number"),
    ('{"Env":["a",1.5]}', "strings", "Env[1]: expected a string, got number"),
    ('{"Env":{"a":"b"}}', "strings", "Env: expected a list of strings, got object"),
    ('{"Env":["a"],"ENV":true}', "strings", "Env: expected a list of strings, got boolean"),
    ('{"Env":1,"ENV":["a"]}', "strings", "Env: expected a list of strings, got number"),
    ('{"Env":["a"],"ENV":[null]}', "strings", "Env: given twice"),
    ('{"Env":["a",{}]}', "objects", "Env[0]: expected an object, got string"),
    ('{"Env":[{}],"ENV":[{}]}', "objects", "Env: given twice"),
    ('{"Env":[["a"]]}', "command", "Env[0]: expected a string, got list"),
    ('{"Env":1}', "command", "Env: expected a list of strings, got number"),
    ('{"Env":["a"]}', "string", "Env: expected a string, got list"),
    ('{"Env":"a"}', "child", "Env: expected an object, got string"),
    ('{"Env":[]}', "labels", "Env: expected an object, got list"),
    ('{"Env":{"a":1}}', "labels", "Env.a: expected a string, got number"),
])
def test_complaints_name_the_field_and_both_types(text: str, read: str, complaint: str) -> None:
    """A value of the wrong type is refused, as the daemon would, with the field's name."""
    found = document(text)
    with pytest.raises(BadRequest) as refused:
        getattr(found, read)("Env")
    assert str(refused.value) == complaint


def test_complaints_name_the_path() -> None:
    """A field within a field is named with both names."""
    host = document('{"HostConfig":{"Binds":1,"Mounts":[{"Target":1}]}}').child("HostConfig")
    assert host is not None
    with pytest.raises(BadRequest, match=r"HostConfig\.Binds: expected a list of strings, got number"):
        host.strings("Binds")
    with pytest.raises(BadRequest, match=r"HostConfig\.Mounts\[0\]\.Target: expected a string, got number"):
        host.objects("Mounts")[0].string("Target")


def test_changes_keep_everything_else() -> None:
    """A change touches its own field; order, unknown fields and digits stay."""
    body = Body(b'{"Memory":9007199254740993,"env":["a"],"X":1.50,"ENV":[],"Y":{"Z":-1,"Z":1e400},"\xc3\xa9":null} end')
    assert body.document is not None
    body.document.set("Env", ["\u00e9\"\n"])
    assert body.data == (b'{"Memory":9007199254740993,"Env":["\xc3\xa9\\"\\n"],"X":1.50,"Y":{"Z":-1,"Z":1e400},'
                         b'"\xc3\xa9":null} end')


def test_changes_within_an_object_are_set_in_the_outer_one() -> None:
    """An inner object takes effect when it is set, in one spelling."""
    body = Body(b'{"hostconfig":{"dns":["1.1.1.1"]},"HostConfig":{"Privileged":false}}')
    assert body.document is not None
    host = body.document.child("HostConfig")
    assert host is not None
    host.set("Dns", ["2.2.2.2"])
    body.document.set("HostConfig", host)
    assert body.data == b'{"HostConfig":{"Dns":["2.2.2.2"],"Privileged":false}}'


def test_removing_takes_all_spellings() -> None:
    """What is removed is gone in all its spellings; removing nothing is no change."""
    body = Body(b'{"a":1,"A":2,"b":3}')
    assert body.document is not None
    body.document.remove("c")
    assert not body.document.changed
    body.document.remove("a")
    assert body.data == b'{"b":3}'


@pytest.mark.parametrize("deep", [
    pytest.param(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="lists"),
    pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="objects"),
])
def test_what_we_can_not_read_is_refused(deep: bytes) -> None:
    """Nothing undecided is forwarded: nesting beyond Go's parser is a bad request."""
    with pytest.raises(BadRequest, match="nested too deeply"):
        Body(deep)


@pytest.mark.parametrize(("before", "part", "after"), [
    ('{"x":[', "[]", "]}"), ('{"x":[', "0", "]}"), ("{", '"a":0', "}"), ("{", '"HostConfig":{"Dns":["a"]}', "}"),
    ('{"Env":[', '"ab"', "]}"), ('{"Env":[', "[[0]]", "]}"), ('{"Labels":{', '"ab":""', "}}"),
    ('{"Volumes":{', '"ab":{}', "}}"), ('{"HostConfig":{"Mounts":[', "{}", "]}}"),
    ('{"HostConfig":{"Mounts":[', '{"Type":"bind","Target":"/a"}', "]}}"),
    ('{"HostConfig":{"Mounts":[{"x":[', "{}", "]}]}}"),
])
def test_memory(before: str, part: str, after: str) -> None:
    """Whatever fills a body, reading it takes little more than the largest one has."""
    raw = (before + ",".join([part] * (1_000_000 // len(part))) + after).encode()
    tracemalloc.start()
    try:
        with contextlib.suppress(BadRequest, PayloadTooLarge):
            _read_all(document(raw))
        assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT
    finally:
        tracemalloc.stop()


def _read_all(body: Object) -> None:
    host = body.child("HostConfig") or Object()
    for target in host.objects("Mounts"):
        target.string("Target")
    assert [body.labels("Labels"), body.keys("Volumes"), host.strings("Dns"), body.strings("Env")]


def test_what_go_reads_deeply_is_read() -> None:
    """Ten thousand lists in one another are kept as they came, beside what is changed."""
    deep = b"[" * 9_999 + b"]" * 9_999
    body = Body(b'{"a":%b,"Env":null}' % deep)
    assert body.document is not None
    body.document.set("Env", [])
    assert body.data == b'{"a":%b,"Env":[]}' % deep


def test_a_number_may_have_any_length() -> None:
    """Digits are kept, not computed with."""
    body = Body(b'{"a":' + b"9" * 10_000 + b"}")
    assert body.document is not None
    body.document.set("b", 1)
    assert body.data == b'{"a":' + b"9" * 10_000 + b',"b":1}'


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_encoding_is_json(value: object) -> None:
    """Whatever is written can be read again as what it was."""
    written = encode({"a": value})
    clean = json.loads(json.dumps(value))
    assert json.loads(written) == {"a": clean}
    assert encode(document(written)) == written


def test_numbers_are_written_as_they_were() -> None:
    """Numbers keep their digits, also beside plain Python values."""
    assert encode({"a": Number("1.0"), "b": (1, 2), "c": Object([("d", 0)])}) == b'{"a":1.0,"b":[1,2],"c":{"d":0}}'


@pytest.mark.parametrize(("one", "other", "same"), [
    ("Env", "eNV", True), ("Dns", "dn\u017f", True), ("NetworkMode", "networ\u212aMODE", True),
    ("Image", "\u0130mage", False), ("Image", "\u0131mage", False), ("É", "é", False),
])
def test_names_are_folded_as_go_does(one: str, other: str, same: bool) -> None:
    """ASCII letters in any case, and the two others that Go takes for them."""
    assert (fold(one) == fold(other)) is same


def test_a_body_is_read_once_and_put_back() -> None:
    """Everything inside finds an ordinary body, and the parsed one beside it."""
    environ = request(b'{"a":1}tail')
    body = body_of(environ)
    assert environ[context.BODY] is body is body_of(environ)
    assert (environ["wsgi.input"].read(), environ["CONTENT_LENGTH"]) == (b'{"a":1}tail', "11")


def test_a_chunked_body_becomes_one_with_a_length() -> None:
    """A body that the server reads to its end is forwarded with its length."""
    environ = request(b'{"a":1}', HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="")
    environ["wsgi.input_terminated"] = True
    assert body_of(environ).raw == b'{"a":1}'
    assert environ["CONTENT_LENGTH"] == "7"
    assert "HTTP_TRANSFER_ENCODING" not in environ


def test_a_changed_body_is_stored() -> None:
    """What was changed is what is inside, with its new length."""
    environ = request(b'{"a":1}')
    body = body_of(environ)
    assert body.document is not None
    body.document.set("b", [])
    body.store(environ)
    assert (environ["wsgi.input"].read(), environ["CONTENT_LENGTH"]) == (b'{"a":1,"b":[]}', "14")


def test_a_request_without_a_body_stays_without() -> None:
    """No length is made up where there was none."""
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": BytesIO(b"next request")}
    assert body_of(environ).raw == b""
    assert "CONTENT_LENGTH" not in environ


def test_a_whole_body_can_be_replaced() -> None:
    """A request without an object can be given one."""
    body = Body(b"null\n")
    body.replace(Object([("a", 1)]))
    assert body.data == b'{"a":1}'


class Trickle(BytesIO):
    """An input that gives one byte at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(1, size or 0))


def test_a_body_that_trickles_in_is_read_whole() -> None:
    """A short read is not the end."""
    assert body_of(request(b'{"a":1}') | {"wsgi.input": Trickle(b'{"a":1}')}).raw == b'{"a":1}'


@pytest.mark.parametrize(("environ", "error"), [
    pytest.param({"CONTENT_LENGTH": "8"}, BadRequest, id="shorter than announced"),
    pytest.param({"CONTENT_LENGTH": "-1"}, BadRequest, id="negative"),
    pytest.param({"CONTENT_LENGTH": "+7"}, BadRequest, id="signed"),
    pytest.param({"CONTENT_LENGTH": "0x7"}, BadRequest, id="hexadecimal"),
    pytest.param({"CONTENT_LENGTH": "7, 7"}, BadRequest, id="twice"),
    pytest.param({"CONTENT_LENGTH": "7", "HTTP_TRANSFER_ENCODING": "chunked"}, BadRequest, id="both"),
    pytest.param({"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "gzip"}, BadRequest, id="another coding"),
    pytest.param({"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}, Unsupported, id="chunked without an end"),
    pytest.param({"CONTENT_LENGTH": "99999999999"}, PayloadTooLarge, id="announced too large"),
    pytest.param({"CONTENT_LENGTH": "", "wsgi.input_terminated": True, "wsgi.input": BytesIO(b" " * 101)},
                 PayloadTooLarge, id="chunked too large"),
])
def test_lying_heads_are_refused(environ: dict[str, Any], error: type[Exception]) -> None:
    """A body whose extent can't be told, or that is too large to hold, is refused, not guessed."""
    with pytest.raises(error):
        body_of(request(b'{"a":1}') | environ, limit=100)


def test_a_length_of_zero_hides_nothing() -> None:
    """What follows an empty body belongs to the next request: it is neither read nor forwarded."""
    environ = request(b'{"HostConfig":{}}', CONTENT_LENGTH="0")
    assert body_of(environ).document is None
    assert environ["wsgi.input"].read() == b""
