"""What others call their classes, layers and inputs does not get into a program as code."""

import re

import keras
import networks
import numpy as np
import onnx
import onnxruntime

from edgeml import exporting
from edgeml.runtimes import open_model
from edgeml.targets._onnx_metadata import with_metadata
from edgeml.targets._onnx_plain_names import with_plain_names

EVIL = '*/ extern int system(const char *); static int f(void) { return system("touch pwned"); } /*'
ODD = {"x": "a */ b\n/", "sum": "a #/ b\n/"}


def test_names_are_harmless_and_the_file_computes_the_same(tmp_path):
    inputs = keras.Input((4,), name="x")
    one, other = (keras.layers.Dense(5, "relu", name=name)(inputs) for name in ("one", "other"))
    model = networks.randomise(keras.Model(inputs, keras.layers.Add(name="sum")([one, other])))
    (file,) = exporting.write(model, tmp_path, ["onnx"], ["float32"], None, lambda event: None)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    due = open_model(file.path).predict({"x": x})["sum"]
    network = onnx.load_from_string(with_metadata(file.path.read_bytes(), {"edgeml.labels": EVIL}))
    network.doc_string = network.graph.doc_string = network.graph.node[0].doc_string = EVIL
    for place, node in enumerate(network.graph.node):  # two of them alike but for what is odd in them
        node.name = f"{'*#'[place % 2]}{place // 2}/ {EVIL}"
        node.input[:] = [ODD.get(name, name) for name in node.input]
        node.output[:] = [ODD.get(name, name) for name in node.output]
    network.graph.input[0].name, network.graph.output[0].name = ODD["x"], ODD["sum"]
    plain = with_plain_names(network)
    graph, content = plain.graph, plain.SerializeToString()
    assert b"edgeml.labels" not in content
    assert {one.doc_string for one in (plain, graph, *graph.node)} == {""}
    tensors = [name for node in graph.node for name in (*node.input, *node.output)]
    names = [one.name for one in (*graph.node, *graph.input, *graph.output, *graph.initializer)]
    assert [name for name in (*tensors, *names) if not re.fullmatch(r"[A-Za-z0-9_.:/-]*", name)] == []
    assert len({node.name for node in graph.node}) == len(graph.node)
    session = onnxruntime.InferenceSession(content)
    np.testing.assert_array_equal(session.run(None, {session.get_inputs()[0].name: x})[0], due)
