"""What an element of a tensor is called in each language, by dtype."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ElementType:
    """One dtype: ``bytes`` each, ``array`` in JavaScript, ``onnx`` in Java, ``swift_onnx`` in Swift.

    ``put`` writes a number to a buffer in Kotlin, ``get`` reads one.
    """

    bytes: int
    cpp: str
    swift: str
    swift_onnx: str
    array: str
    onnx: str
    put: str
    get: str


TYPES = {
    "float32": ElementType(
        4, "float", "Float32", "float", "Float32Array", "FLOAT", "putFloat({}.toFloat())", "buffer.getFloat()"
    ),
    "uint8": ElementType(
        1, "uint8_t", "UInt8", "uInt8", "Uint8Array", "UINT8", "put({}.toInt().toByte())",
        "(buffer.get().toInt() and 255)",
    ),
    "int8": ElementType(
        1, "int8_t", "Int8", "int8", "Int8Array", "INT8", "put({}.toInt().toByte())", "buffer.get().toInt()"
    ),
    "int16": ElementType(
        2, "int16_t", "Int16", "int16", "Int16Array", "INT16", "putShort({}.toInt().toShort())",
        "buffer.getShort().toInt()",
    ),
    "int32": ElementType(
        4, "int32_t", "Int32", "int32", "Int32Array", "INT32", "putInt({}.toInt())", "buffer.getInt()"
    ),
}  # fmt: skip
LEAST_AND_MOST = {"uint8": (0, 255), "int8": (-128, 127), "int16": (-32768, 32767)}
