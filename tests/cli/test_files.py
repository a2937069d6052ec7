"""Bad input: one clear line, exit code 1, no output file."""
import random
import struct

import support
from support import CliTest, normal, np, read_safetensors, write_safetensors

QUANTIZE = ["-o", "out.safetensors", "--method", "pq", "--k", "2"]


class BadMatrices(CliTest):
    def bad(self, name, *words):
        self.refused(1, list(words), "quantize", name, *QUANTIZE)

    def test_nan_and_infinity(self):
        for value in [np.nan, np.inf, -np.inf]:
            data = normal(9, 8, 1)
            data[5, 3] = value
            self.save("x.npy", data)
            for method in support.METHODS:
                self.refused(1, "", "quantize", "x.npy", "-o", "o.safetensors", "--method", method, "--k", "2")
            self.refused(1, "", "compare", "x.npy", "--methods", "pq", "--ratios", "2")
        data = np.ones((4, 4))
        data[1, 1] = 1e300
        self.save("x.npy", data)
        self.bad("x.npy")

    def test_empty(self):
        self.write("x.npy", b"")
        self.bad("x.npy", "x.npy")
        self.write("x.safetensors", b"")
        self.bad("x.safetensors", "x.safetensors")
        self.write("x.fvecs", b"")
        self.bad("x.fvecs", "x.fvecs")
        for shape in [(0, 4), (4, 0), (0, 0)]:
            self.save("x.npy", np.zeros(shape, np.float32))
            self.bad("x.npy", "x")

    def test_missing_and_odd_paths(self):
        self.bad("gone.npy", "gone.npy")
        self.refused(2, "directory", "quantize", ".", *QUANTIZE)
        self.refused(1, "no .safetensors", "quantize", ".", "-o", "out", *QUANTIZE[2:])
        self.bad("")
        self.bad("two\nlines.npy", "two?lines.npy")

    def test_npy(self):
        whole = self.read(self.save("x.npy", normal(6, 5, 2)))
        for length in list(range(0, len(whole), 7)) + [len(whole) - 1]:
            self.write("t.npy", whole[:length])
            self.bad("t.npy", "t.npy")
        self.save("x.npy", normal(8, 5, 2).reshape(2, 4, 5))
        self.bad("x.npy")
        for dtype in [">f4", np.complex64, np.int64, "U1"]:
            self.save("x.npy", np.zeros((3, 3), dtype))
            self.bad("x.npy", "x")
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }"
        header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
        self.write("big.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
        self.bad("big.npy", "big")
        self.write("junk.npy", bytes(range(256)) * 4)
        self.bad("junk.npy", "junk.npy")

    def test_vecs(self):
        row = struct.pack("<i", 3) + bytes(12)
        for name, data in [("short.fvecs", row[:-1]), ("mixed.fvecs", row + struct.pack("<i", 2) + bytes(8)),
                           ("negative.fvecs", struct.pack("<i", -3) + bytes(12)),
                           ("zero.fvecs", struct.pack("<i", 0) * 4),
                           ("huge.bvecs", struct.pack("<i", 2 ** 31 - 1) + bytes(9))]:
            self.write(name, data)
            self.bad(name, name)

    def header_of(self, text, payload=b""):
        return struct.pack("<Q", len(text)) + text + payload

    def test_safetensors(self):
        cases = {
            "length": struct.pack("<Q", 2 ** 63) + b"{}",
            "past_the_end": struct.pack("<Q", 100) + b"{}",
            "not_json": self.header_of(b"{'a': 1}"),
            "not_object": self.header_of(b"[1, 2]"),
            "no_fields": self.header_of(b'{"a": {"dtype": "F32"}}'),
            "outside": self.header_of(b'{"a": {"dtype":"F32","shape":[4,4],"data_offsets":[0,64]}}', bytes(60)),
            "backwards": self.header_of(b'{"a": {"dtype":"F32","shape":[4,4],"data_offsets":[64,0]}}', bytes(64)),
            "negative": self.header_of(b'{"a": {"dtype":"F32","shape":[-4,4],"data_offsets":[0,64]}}', bytes(64)),
            "wrong_size": self.header_of(b'{"a": {"dtype":"F32","shape":[4,5],"data_offsets":[0,64]}}', bytes(64)),
            "overflow": self.header_of(b'{"a": {"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,64]}}',
                                       bytes(64)),
            "overlap": self.header_of(b'{"a": {"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},'
                                      b'"b": {"dtype":"F32","shape":[2,4],"data_offsets":[16,48]}}', bytes(48)),
        }
        for name, data in cases.items():
            self.write(name + ".safetensors", data)
            self.bad(name + ".safetensors", name)


class BadArtifacts(CliTest):
    def setUp(self):
        super().setUp()
        self.save("x.npy", normal(20, 6, 3))
        self.qem("quantize", "x.npy", "-o", "a.safetensors", "--method", "qet", "--k", "4")
        self.whole = self.read("a.safetensors")
        self.qem("dequantize", "a.safetensors", "-o", "back.npy")
        self.wanted = self.read("back.npy")

    def test_truncated(self):
        for length in range(0, len(self.whole), 1 + len(self.whole) // 40):
            self.write("t.safetensors", self.whole[:length])
            self.refused(1, "t.safetensors", "inspect", "t.safetensors")
            self.refused(1, "t.safetensors", "dequantize", "t.safetensors", "-o", "o.npy")

    def test_flipped_bits(self):
        """Whatever bit is wrong: an error, or (in a byte that carries nothing) the same matrix."""
        draw = random.Random(5)
        start = 8 + struct.unpack("<Q", self.whole[:8])[0]
        places = [draw.randrange(len(self.whole)) for _ in range(60)] + list(range(start, len(self.whole), 29))
        for place in places:
            data = bytearray(self.whole)
            data[place] ^= 1 << draw.randrange(8)
            self.write("f.safetensors", bytes(data))
            done = self.run_qem("dequantize", "f.safetensors", "-o", "o.npy")
            context = (place, done.returncode, done.stderr)
            if done.returncode == 0:
                self.assertLess(place, start, context)
                self.assertEqual(self.read("o.npy"), self.wanted, context)
            else:
                self.assertEqual((done.returncode, done.stderr.count(b"\n")), (1, 1), context)
                self.assertTrue(done.stderr.startswith(b"qem: "), context)

    def test_missing_part(self):
        tensors, metadata = read_safetensors(self.path("a.safetensors"))
        for name in tensors:
            rest = {n: (t[0], support.array_of(t)) for n, t in tensors.items() if n != name}
            write_safetensors(self.path("m.safetensors"), rest, metadata)
            done = self.run_qem("dequantize", "m.safetensors", "-o", "o.npy")
            self.assertEqual((done.returncode, done.stderr.count(b"\n")), (1, 1), (name, done.stderr))

    def test_repacked_by_another_writer(self):
        """The same tensors and metadata in a file that something else wrote."""
        tensors, metadata = read_safetensors(self.path("a.safetensors"))
        order = {n: (tensors[n][0], support.array_of(tensors[n])) for n in sorted(tensors, reverse=True)}
        write_safetensors(self.path("r.safetensors"), order, metadata)
        self.qem("dequantize", "r.safetensors", "-o", "o.npy")
        self.assertEqual(self.read("o.npy"), self.wanted)


if __name__ == "__main__":
    support.main()
