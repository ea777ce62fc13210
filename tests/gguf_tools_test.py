#!/usr/bin/env python3
"""Tests tools/gguf_file.py: what it writes it reads back, and its quantisers against blocks worked out by hand."""
import pathlib
import sys
import tempfile
import unittest

try:
    import numpy as np
except ImportError:
    print("*** SKIPPED: no numpy; install python3-numpy ***")
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
import gguf_file  # noqa: E402


def tensor_of(data, kind, values):
    return gguf_file.Tensor("t", [values], kind, data)


class Quantisers(unittest.TestCase):
    def test_q8_0_by_hand(self):
        values = np.zeros(32, np.float32)
        values[:4] = [127, -63.5, 0.5, -2.4]  # scale 1; halves are rounded away from zero
        block = gguf_file.quantize(values, "q8_0")
        self.assertEqual(block[:2].view(np.float16)[0], 1)
        self.assertEqual(block[2:].view(np.int8)[:5].tolist(), [127, -64, 1, -2, 0])

    def test_q4_0_by_hand(self):
        values = np.zeros(32, np.float32)
        values[[0, 1, 16, 17]] = [-8, 7, 3.4, 8]  # the first of greatest magnitude, -8, makes the scale 1
        block = gguf_file.quantize(values, "q4_0")
        self.assertEqual(block[:2].view(np.float16)[0], 1)
        self.assertEqual(block[2:4].tolist(), [0 | 11 << 4, 15 | 15 << 4])
        self.assertEqual(set(block[4:].tolist()), {8 | 8 << 4})

    def test_error_is_at_most_a_step(self):
        values = np.random.default_rng(3).normal(size=64 * 32).astype(np.float32)
        peak = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)
        for kind, steps in (("q8_0", 127), ("q4_0", 8)):
            back = gguf_file.dequantize(tensor_of(gguf_file.quantize(values, kind), kind, values.size))
            error = np.abs(back - values).reshape(-1, 32)
            self.assertTrue((error <= peak / steps * 1.01).all(), kind)
            self.assertGreater(error.max(), 0)

    def test_zeros_stay_zeros(self):
        for kind in ("q8_0", "q4_0"):
            block = gguf_file.quantize(np.zeros(32, np.float32), kind)
            self.assertFalse(gguf_file.dequantize(tensor_of(block, kind, 32)).any())

    def test_q4_1_decoding_by_hand(self):
        block = np.zeros(20, np.uint8)
        block[:4] = np.array([0.5, -1], np.float16).view(np.uint8)
        block[4] = 3 | 15 << 4
        values = gguf_file.dequantize(tensor_of(block, "q4_1", 32))
        self.assertEqual(values[[0, 1, 16]].tolist(), [0.5, -1, 6.5])


class Files(unittest.TestCase):
    def test_round_trip(self):
        rng = np.random.default_rng(5)
        infos = [("a.weight", [64, 3], "q4_0"), ("b.weight", [7], "f32"), ("c.weight", [32, 2], "q8_0")]
        data = {name: rng.integers(0, 256, gguf_file.size_of(dims, kind), np.uint8) for name, dims, kind in infos}
        metadata = {"general.name": gguf_file.value("näme"), "x.count": gguf_file.value(7),
                    "x.rate": gguf_file.value(0.5)}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.gguf")
            gguf_file.write(path, metadata, infos, lambda info: data[info[0]])
            self.assertEqual([p.name for p in pathlib.Path(folder).iterdir()], ["x.gguf"])
            read_metadata, tensors = gguf_file.read(path)
            self.assertEqual(read_metadata, metadata)
            self.assertEqual([(t.name, t.dims, t.type) for t in tensors], infos)
            for tensor in tensors:
                self.assertEqual(tensor.data.tolist(), data[tensor.name].tolist())

    def test_failed_write_leaves_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaises(AssertionError):
                gguf_file.write(pathlib.Path(folder, "x.gguf"), {}, [("a", [4], "f32")],
                                lambda info: np.zeros(3, np.uint8))
            self.assertEqual(list(pathlib.Path(folder).iterdir()), [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
