"""What qem decodes is what a short numpy decoder reads from the same file."""
import os
import subprocess
import sys

import support
from support import CliTest, METHODS, normal, np

DECODER = os.path.join(support.SOURCE, "tests", "io", "decode_reference.py")


GOLDEN = os.path.join(support.SOURCE, "tests", "golden")


class Reference(CliTest):
    def decode(self, name, out):
        subprocess.run([sys.executable, DECODER, name, self.path(out)], check=True, stdin=subprocess.DEVNULL, timeout=120)
        return np.load(self.path(out))

    def check(self, data, method, *options):
        self.save("x.npy", data)
        self.qem("quantize", "x.npy", "-o", "a.safetensors", "--method", method, *options)
        self.qem("dequantize", "a.safetensors", "-o", "ours.npy")
        ours, reference = np.load(self.path("ours.npy")), self.decode(self.path("a.safetensors"), "reference.npy")
        self.assertEqual((ours.shape, ours.dtype), (reference.shape, reference.dtype))
        self.assertEqual(ours.tobytes(), reference.tobytes(), (method, data.shape, options))

    def test_methods_and_shapes(self):
        for method in METHODS:
            for shape, k in [((64, 16), 16), ((19, 7), 5), ((3, 13), 3), ((1, 1), 1)]:
                # The uniform grid has a power of two of levels.
                self.check(normal(*shape, 1), method, "--k", 8 if method == "rtn" and k > 1 else k)

    def test_half_codebooks(self):
        for method in METHODS:
            self.check(normal(40, 10, 2), method, "--k", "8", "--codebook", "f16")

    def test_levels(self):
        for levels, shape in [(1, (11, 9)), (2, (20, 16)), (3, (7, 23)), (8, (5, 11))]:
            self.check(normal(*shape, 3), "qet", "--k", "4", "--levels", levels)
        self.check(normal(30, 10, 3), "hyperchr", "--k", "20", "--levels", "2", "--intervals", "2")
        self.check(normal(30, 10, 3), "lloydmax", "--k", "6", "--levels", "1")

    def test_dims(self):
        for dim in [1, 2, 3, 5, 8, 20]:
            self.check(normal(33, 10, 4), "pq", "--k", "4", "--dim", dim)
            self.check(normal(33, 10, 4), "vq", "--k", "4", "--dim", dim)

    def test_golden_files(self):
        names = sorted(name for name in os.listdir(GOLDEN) if name.endswith(".safetensors"))
        self.assertGreaterEqual(len(names), 24)
        for name in names:
            with self.subTest(name):
                wanted = np.load(os.path.join(GOLDEN, name.replace(".safetensors", ".npy")))
                found = self.decode(os.path.join(GOLDEN, name), "reference.npy")
                self.assertEqual((found.shape, found.tobytes()), (wanted.shape, wanted.tobytes()))


if __name__ == "__main__":
    support.main()
