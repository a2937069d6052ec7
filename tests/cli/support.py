"""What the tests of the command line share: running qem, small matrices, a reader and writer of safetensors."""
import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
except ImportError:
    sys.exit("FAILED: these tests need numpy (Debian: apt-get install python3-numpy), not found by " + sys.executable)

SOURCE = os.environ.get("QEM_SOURCE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
QEM = os.environ.get("QEM_BIN", os.path.join(SOURCE, "build", "bin", "qem"))
METHODS = ["rtn", "lloydmax", "vq", "pq", "hyperchr", "qet"]
# Keys of every JSON report, as the command line's contract names them.
KEYS = ["method", "rows", "cols", "recipe", "k", "stored_bytes", "bits_per_element", "ratio", "parts", "mae", "mse",
        "mre", "nmse", "max_error", "quantize_seconds", "dequantize_seconds", "device", "threads", "isa"]
ERRORS = ["mae", "mse", "mre", "nmse", "max_error"]
DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "U8": np.uint8, "I64": np.int64, "BOOL": np.bool_,
          "I32": np.int32, "BF16": np.uint16}


def normal(rows, cols, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal((rows, cols)) * scale).astype(np.float32)


def read_safetensors(path):
    """-> (name -> (dtype, shape, bytes)), metadata"""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__", {})
    start = 8 + length
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], data[start + begin:start + end])
    return tensors, metadata


def array_of(tensor):
    dtype, shape, data = tensor
    return np.frombuffer(data, DTYPES[dtype]).reshape(shape)


def bf16_bits(values):
    """float32 -> bf16 as uint16, to nearest even"""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path, tensors, metadata=None):
    """tensors: name -> array, or (dtype, array of the same size in bytes)"""
    names = {np.dtype(v): k for k, v in DTYPES.items() if k != "BF16"}
    header, blobs, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = metadata
    for name, value in tensors.items():
        dtype, array = value if isinstance(value, tuple) else (names[value.dtype], value)
        blob = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


class CliTest(unittest.TestCase):
    """A directory of its own for each test; qem runs in it."""

    maxDiff = None

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="qem-cli-")
        self.addCleanup(directory.cleanup)
        self.dir = directory.name

    def path(self, name):
        return os.path.join(self.dir, name)

    def save(self, name, array):
        np.save(self.path(name), array)
        return name

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)
        return name

    def run_qem(self, *arguments, **keywords):
        keywords.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([QEM, *map(str, arguments)], cwd=self.dir, capture_output=True, timeout=300, **keywords)

    def qem(self, *arguments, **keywords):
        """Runs qem, which must succeed without a word on stderr; returns its stdout."""
        done = self.run_qem(*arguments, **keywords)
        self.assertEqual((done.returncode, done.stderr.decode()), (0, ""), (arguments, done.stderr))
        return done.stdout.decode()

    def report(self, *arguments, **keywords):
        """The same with --json; returns the object."""
        def no_constant(text):
            self.fail("not JSON: " + text)
        return json.loads(self.qem(*arguments, "--json", **keywords), parse_constant=no_constant)

    def refused(self, code, words, *arguments, **keywords):
        """qem must end with `code`, one line on stderr that holds all `words`, nothing on stdout, and no new file."""
        before = sorted(os.listdir(self.dir))
        done = self.run_qem(*arguments, **keywords)
        error = done.stderr.decode(errors="replace")
        context = (arguments, error)
        self.assertEqual(done.returncode, code, context)
        self.assertTrue(error.startswith("qem: ") and error.endswith("\n") and error.count("\n") == 1, context)
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, error, context)
        self.assertEqual(done.stdout, b"", context)
        self.assertEqual(sorted(os.listdir(self.dir)), before, context)

    def assert_keys(self, report):
        self.assertEqual([key for key in KEYS if key not in report], [], report)
        self.assertGreaterEqual(report["threads"], 1)
        self.assertIn(report["isa"], ["scalar", "avx2", "avx512"])

    def isa_levels(self):
        return self.report("device")["isa_levels"]


def main():
    unittest.main(verbosity=1)
