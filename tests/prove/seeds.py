"""Where fuzzing begins: requests, bodies, graphs and files of keys as they should be, or nearly."""

import json
from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from tests.service.wire.wire_cases import CASES


def _bodies(*bodies: object) -> list[bytes]:
    return [json.dumps(each).encode() for each in bodies]


def _tensor(name: str, *texts: object, shape: Sequence[int] | None = None) -> dict[str, object]:
    return {"name": name, "shape": shape or [len(texts)], "datatype": "BYTES", "data": texts}


PAIR = {"text": "good", "text_pair": "a film"}
BODIES: dict[str, list[bytes]] = {
    "native": _bodies(
        {"input": "a good film"},
        {"input": ["good", "a very dull film ."], "top_k": 1, "truncate": False},
        {"input": [PAIR, PAIR], "model": "same"},
        {"input": PAIR, "model": "twins@1", "version": None},
        {"input": ["é ✓ \u0000 😀"], "model": "tags", "version": 1},
        {"input": [], "model": "stars", "version": "1"},
        {"input": "a good film", "strategy": "teacher"},
        {"input": ["good", "bad"], "student": "toy@2", "teacher": "toy-teacher"},
        {"inputs": [[1]], "top_k": 0},
    ),
    "hub": _bodies(
        {"inputs": "a good film"},
        {"inputs": ["good", ""], "parameters": {"top_k": 2, "function_to_apply": "softmax"}},
        {"inputs": PAIR, "parameters": {"function_to_apply": "none", "more": None}, "options": {"use_cache": True}},
        {"inputs": [PAIR], "parameters": None, "options": {"wait_for_model": None}},
    ),
    "oip": _bodies(
        {"inputs": [_tensor("text", "good", "bad")], "id": "7"},
        {"inputs": [_tensor("text", ["good"], ["bad"], shape=[2, 1])], "parameters": {"truncate": False}},
        {"inputs": [_tensor("text", "good"), _tensor("text_pair", "a film")], "outputs": [{"name": "logits"}]},
        {"inputs": [_tensor("text", "good")], "outputs": [{"name": "scores", "parameters": {"classification": 2}}]},
        {"inputs": [_tensor("text", "a") | {"parameters": {"content_type": "str", "binary_data_size": 4}}]},
    ),
    "repository": [b"", *_bodies({"ready": True}, {"parameters": {"config": "{}"}}, {"parameters": {"file:1/m": ""}})],
}

WORDS = (
    *(b'"', b"[", b"]", b"{", b"}", b":", b",", b"null", b"true", b"1e999", b"-0", b"NaN", b"\\ud800", b"\\u0000"),
    *(b"9" * 400, b"[" * 60, b'{"a":' * 60, b"\xff", b"\xef\xbb\xbf", b'"text"', b'"text_pair"', b'"top_k"'),
    *(b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"Host: a\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Upgrade: h2c\r\n", b"Connection: upgrade\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.1", b"%00", b"%2f"),
)

REQUESTS = [case.sent for case in CASES if len(case.sent) < 2000]

_KEY = b"an-inference-key-"
KEY_FILES = [
    _KEY + b"1\n",
    b"# ours\n\nalice:" + _KEY + b"1\nbob:" + _KEY + b"2\r\n",
    b"\xef\xbb\xbf" + _KEY + b"1",
    _KEY + b"1\n" + _KEY + b"1\n",
    b"short\n",
    b"a name:" + _KEY + b"1\n",
    b"\xff\xfe",
    b"",
]


def graphs() -> list[bytes]:
    """Small ones: with a tensor inside, with one outside, and with one outside in a subgraph."""
    inside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], float_data=[1.0])
    away = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    away.external_data.add(key="location", value="weights.bin")
    return [_model(inside), _model(away), _model(inside, deep=inside), _model(inside, deep=away)]


def _model(tensor: TensorProto, deep: TensorProto | None = None) -> bytes:
    nodes = [] if deep is None else [helper.make_node("If", ["c"], ["d"], then_branch=_graph("inner", deep))]
    model = helper.make_model(_graph("outer", tensor, nodes), opset_imports=[helper.make_opsetid("", 17)])
    content: bytes = model.SerializeToString()
    return content


def _graph(name: str, tensor: TensorProto, nodes: Sequence[onnx.NodeProto] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [], [tensor])
