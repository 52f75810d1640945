"""A graph whose run does not end by itself, for what must be able to end it."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.toys import toy


def endless_graph() -> bytes:
    """A loop that counts for some hours."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["value", "one"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    turns = numpy_helper.from_array(np.array(10**12), "turns")
    start = numpy_helper.from_array(np.zeros(1, np.float32), "start")
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "", "start"], ["logits"], body=body)],
        "endless",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "T"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1])],
        [turns, start],
    )
    opset = helper.make_opsetid("", toy.OPSET)
    content: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=toy.IR).SerializeToString()
    return content
