"""Reading and writing GGUF files (the GGUF specification, version 3) with numpy alone, for the tools beside it."""
import dataclasses
import math
import pathlib
import struct

import numpy as np

ALIGNMENT = 32
# ggml's type numbers, values per block, bytes per block.
TYPES = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q8_0": (8, 32, 34)}
TYPE_NAMES = {number: name for name, (number, _, _) in TYPES.items()}

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
U32, F32, STRING, ARRAY = 4, 6, 8, 9


@dataclasses.dataclass
class Tensor:
    name: str
    dims: list  # fastest first: [in, out] of a matrix
    type: str   # a key of TYPES
    data: np.ndarray  # uint8, the blocks as they lie in the file

    @property
    def values(self):
        return math.prod(self.dims)


def size_of(dims, type_name):
    """Bytes of a tensor."""
    _, block_values, block_bytes = TYPES[type_name]
    assert dims[0] % block_values == 0, f"rows of {dims[0]} values cannot be {type_name}"
    return math.prod(dims) // block_values * block_bytes


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(item):
    """A metadata value as the file has it: type number and bytes, for int (as u32), float (as f32) and str."""
    if isinstance(item, str):
        return struct.pack("<I", STRING) + string(item)
    if isinstance(item, float):
        return struct.pack("<If", F32, item)
    return struct.pack("<II", U32, item)


class Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, code):
        result, = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return result

    def string(self):
        length = self.take("Q")
        self.at += length
        return bytes(self.data[self.at - length:self.at]).decode()

    def skip_value(self, kind):
        if kind in SCALARS:
            self.at += struct.calcsize(SCALARS[kind])
        elif kind == STRING:
            length = self.take("Q")
            self.at += length
        elif kind == ARRAY:
            element, count = self.take("I"), self.take("Q")
            for _ in range(count):
                self.skip_value(element)
        else:
            raise ValueError(f"unknown metadata type {kind}")


def read(path):
    """(metadata, tensors): {key: value bytes, type number first} in the file's order, and a list of Tensor."""
    data = np.memmap(path, np.uint8, "r")
    reader = Reader(data)
    if bytes(data[:4]) != b"GGUF":
        raise ValueError(f"{path} is no GGUF file")
    reader.at = 8
    tensor_count, key_count = reader.take("Q"), reader.take("Q")
    metadata = {}
    for _ in range(key_count):
        key, start = reader.string(), reader.at
        reader.skip_value(reader.take("I"))
        metadata[key] = bytes(data[start:reader.at])
    infos = []
    for _ in range(tensor_count):
        name = reader.string()
        dims = [reader.take("Q") for _ in range(reader.take("I"))]
        infos.append((name, dims, TYPE_NAMES[reader.take("I")], reader.take("Q")))
    base = -(-reader.at // ALIGNMENT) * ALIGNMENT
    return metadata, [Tensor(name, dims, kind, data[base + offset:base + offset + size_of(dims, kind)])
                      for name, dims, kind, offset in infos]


def write(path, metadata, infos, make_data):
    """Writes a file whose tensors are `infos`, a list of (name, dims, type); `make_data(info)` gives a tensor's bytes
    (uint8) when its turn comes, so that only one tensor is in memory. The file appears whole or not at all."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(metadata))
    head += b"".join(string(key) + raw for key, raw in metadata.items())
    offset = 0
    for name, dims, kind in infos:
        head += string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, TYPES[kind][0], offset)
        offset += -(-size_of(dims, kind) // ALIGNMENT) * ALIGNMENT
    partial = pathlib.Path(f"{path}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(head + bytes(-len(head) % ALIGNMENT))
            for info in infos:
                data = make_data(info)
                assert data.dtype == np.uint8 and data.size == size_of(info[1], info[2]), info
                data.tofile(file)
                file.write(bytes(-data.size % ALIGNMENT))
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def dequantize(tensor):
    """The values of a tensor as fp32, flat."""
    if tensor.type in ("f32", "f16"):
        return tensor.data.view({"f32": np.float32, "f16": np.float16}[tensor.type]).astype(np.float32)
    blocks = tensor.data.reshape(-1, TYPES[tensor.type][2])
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if tensor.type == "q8_0":
        return (scale * blocks[:, 2:].view(np.int8)).ravel()
    packed = blocks[:, -16:]
    levels = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)
    if tensor.type == "q4_0":
        return (scale * (levels - 8)).ravel()
    return (scale * levels + blocks[:, 2:4].copy().view(np.float16)).ravel()


def quantize(values, kind):
    """fp32 values to the bytes of q8_0 or q4_0, as ggml's reference quantisers choose scale and levels."""
    rows = values.reshape(-1, 32).astype(np.float32)
    at_peak = np.abs(rows).argmax(axis=1, keepdims=True)
    peak = np.take_along_axis(rows, at_peak, axis=1)
    scale = np.abs(peak) / np.float32(127) if kind == "q8_0" else peak / np.float32(-8)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    if kind == "q8_0":
        scaled = rows * inverse
        levels = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8).view(np.uint8)
    else:
        q = np.minimum(15, (rows * inverse + np.float32(8.5)).astype(np.uint8))
        levels = q[:, :16] | q[:, 16:] << 4
    return np.concatenate([scale.astype(np.float16).view(np.uint8), levels], axis=1).ravel()
