"""Plug-ins of somebody else: a real package with entry points, found by importlib.metadata as an installed one is."""

import sys
import textwrap

SMALL_SPACE = """
from edgeml.network import Network

def network(hp, input_shape, num_classes):
    net = Network(input_shape)
    x = net.act(net.norm(net.conv(net.input, hp.Choice("width", [8, 16]), kernel=3, stride=2)), "relu")
    net.softmax(net.dense(net.global_pool(x), num_classes))
    return net

def build(hp, input_shape, num_classes):
    return network(hp, input_shape, num_classes).keras()

def operators(hp, input_shape, num_classes):
    return network(hp, input_shape, num_classes).operators()
"""


def install(monkeypatch, folder, group, name, source):
    """Write a package with one entry point of ``group`` and put it on the path."""
    package = write_package(folder, group, name, source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, package, raising=False)
    return package


def write_package(folder, group, name, source):
    """Write a package with one entry point of ``group``; return its name."""
    package = f"foreign_{name}"
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[edgeml.{group}]\n{name} = {package}\n")
    (folder / f"{package}.py").write_text(textwrap.dedent(source))
    return package
