"""What an ONNX file says of itself: ``metadata_props``, which every runtime hands out and none needs."""

from __future__ import annotations

from collections.abc import Mapping


def with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return a model's bytes with further ``metadata`` in it, keys in order."""
    import onnx
    from onnx import helper

    model = onnx.load_model_from_string(content)
    standing = {one.key: one.value for one in model.metadata_props}
    helper.set_model_props(model, dict(sorted({**standing, **metadata}.items())))
    return bytes(model.SerializeToString(deterministic=True))
