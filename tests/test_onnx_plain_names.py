"""What others call their classes, layers and inputs does not get into a program as code."""

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


def test_names_are_harmless_and_the_file_computes_the_same(tmp_path):
    inputs = keras.Input((4,), name="a * b")
    one = keras.layers.Dense(5, "relu", name="x *")(inputs)
    other = keras.layers.Dense(5, "relu", name="x #")(inputs)
    model = networks.randomise(keras.Model(inputs, keras.layers.Add(name="out put")([one, other])))
    (file,) = exporting.write(model, tmp_path, ["onnx"], ["float32"], None, lambda event: None)
    file.path.write_bytes(with_metadata(file.path.read_bytes(), {"edgeml.labels": EVIL}))
    network = onnx.load(file.path)
    network.graph.doc_string = network.graph.node[0].doc_string = EVIL
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    (due,) = open_model(file.path).predict({open_model(file.path).signature.inputs[0].name: x}).values()
    plain = with_plain_names(network)
    content = plain.SerializeToString()
    assert not any(part in content for part in (b"*", b"system", b"\\", b"\n/", b"#"))
    session = onnxruntime.InferenceSession(content)
    np.testing.assert_array_equal(session.run(None, {session.get_inputs()[0].name: x})[0], due)
    names = [name for node in plain.graph.node for name in node.output]
    assert len(names) == len(set(names))
