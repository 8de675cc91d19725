"""Bad bodies get the proper refusal and never anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api import protobuf_body
from controller.api.body import decode_json, decode_object, decode_yaml, judge_fields
from controller.api.selection import decode_continue, encode_continue
from controller.api.status import ApiError

JSON = "application/json"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"\xff\xfe",
        b'"x"',
        b"[" * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
    ],
)
def test_malformed_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        decode_object(body, JSON)
    assert caught.value.code == 400


def test_duplicate_keys_are_found_with_their_paths() -> None:
    _, found = decode_json(b'{"a":1,"b":{"c":1,"c":2},"l":[{"d":1,"d":2}],"a":3}')
    assert sorted(found) == ['duplicate field "a"', 'duplicate field "b.c"', 'duplicate field "l[0].d"']
    with pytest.raises(ApiError, match='strict decoding error: unknown field "x", duplicate field "a"'):
        judge_fields(["x"], found[:1], "Strict")
    assert judge_fields(["x"], [], "Warn") == ['unknown field "x"']


def test_yaml_bombs_and_tags_are_refused() -> None:
    bomb = b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"
    for body in (bomb, b"!!python/object/apply:os.system ['true']", b"a: .inf", b"? [a]\n: b", b"a: [", b"\xff"):
        with pytest.raises(ApiError) as caught:
            decode_yaml(body)
        assert caught.value.code == 400


def test_yaml_dates_and_number_keys_are_strings() -> None:
    assert decode_yaml(b"a: 2024-01-01\n1: x\n") == ({"a": "2024-01-01", "1": "x"}, [])


def test_duplicate_keys_of_yaml_are_found_with_their_lines() -> None:
    value, found = decode_yaml(b"\na: {b: 1}\nc:\n- d: 1\n  e: 2\n  d: 3\na: 4\n")
    assert value == {"a": 4, "c": [{"d": 3, "e": 2}]}
    assert found == ['line 6: key "d" already set in map', 'line 7: key "a" already set in map']
    assert decode_yaml(b'{"a":1,"a":2}') == ({"a": 2}, ['duplicate field "a"'])


def test_unknown_media_type() -> None:
    with pytest.raises(ApiError) as caught:
        decode_object(b"{}", "text/html")
    assert (caught.value.code, caught.value.reason) == (415, "UnsupportedMediaType")


@given(st.binary(max_size=200))
def test_any_bytes_after_the_protobuf_prefix_decode_or_are_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        decode_object(protobuf_body.MAGIC + body, protobuf_body.MEDIA_TYPE)
    assert caught.value.code in (400, 415)


def test_protobuf_of_a_config_map() -> None:
    # k8s\0, Unknown{typeMeta{v1 ConfigMap} raw{metadata{name zz, creationTimestamp{}} data{a b}}}
    meta = b"\x0a\x02v1\x12\x09ConfigMap"
    obj = b"\x0a\x06\x0a\x02zz\x42\x00" + b"\x12\x06\x0a\x01a\x12\x01b"
    body = protobuf_body.MAGIC + bytes([0x0A, len(meta)]) + meta + bytes([0x12, len(obj)]) + obj
    made, _ = decode_object(body, protobuf_body.MEDIA_TYPE)
    assert made == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "zz"}, "data": {"a": "b"}}


@given(st.text(max_size=40), st.integers(0, 2**62))
def test_continue_tokens_come_back(key: str, revision: int) -> None:
    assert decode_continue(encode_continue(key, revision)) == (key, revision)


@given(st.text(max_size=60))
def test_foreign_continue_tokens_are_refused(token: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode_continue(token)
    assert caught.value.code == 400
