"""qem dequantize and inspect on one artifact."""
import support
from support import CliTest, METHODS, array_of, bf16_bits, normal, np, read_safetensors


class Dequantize(CliTest):
    def setUp(self):
        super().setUp()
        self.save("x.npy", normal(37, 10, 1))

    def artifact(self, method="pq"):
        return self.report("quantize", "x.npy", "-o", "a.safetensors", "--method", method, "--k", "8")

    def decoded(self, *options):
        self.qem("dequantize", "a.safetensors", "-o", "out.npy", *options)
        return np.load(self.path("out.npy"))

    def test_rows(self):
        for method in METHODS:
            self.artifact(method)
            whole = self.decoded()
            self.assertEqual((whole.shape, whole.dtype), ((37, 10), np.float32))
            for begin, end in [(0, 37), (0, 1), (36, 37), (5, 20)]:
                part = self.decoded("--rows", f"{begin}:{end}")
                self.assertTrue(np.array_equal(part, whole[begin:end]), (method, begin, end))
        self.refused(1, "37", "dequantize", "a.safetensors", "-o", "o.npy", "--rows", "30:38")

    def test_types(self):
        for method in METHODS:
            self.artifact(method)
            whole = self.decoded()
            half = self.decoded("--dtype", "f16")
            self.assertTrue(np.array_equal(half, whole.astype(np.float16)))
            for dtype, wanted in [("f32", whole), ("f16", whole.astype(np.float16)), ("bf16", bf16_bits(whole))]:
                self.qem("dequantize", "a.safetensors", "-o", "o.safetensors", "--dtype", dtype)
                tensors, _ = read_safetensors(self.path("o.safetensors"))
                self.assertEqual((list(tensors), tensors["x"][0]), (["x"], dtype.upper()))
                self.assertTrue(np.array_equal(array_of(tensors["x"]), wanted))
        self.refused(2, "bf16", "dequantize", "a.safetensors", "-o", "o.npy", "--dtype", "bf16")

    def test_f16_overflow(self):
        self.save("x.npy", normal(37, 10, 1, 1e6))
        self.artifact()
        self.refused(1, "", "dequantize", "a.safetensors", "-o", "o.npy", "--dtype", "f16")
        self.refused(1, "", "dequantize", "a.safetensors", "-o", "o.safetensors", "--dtype", "f16")

    def test_report(self):
        made = self.artifact()
        report = self.report("dequantize", "a.safetensors", "-o", "o.npy")
        self.assert_keys(report)
        self.assertEqual((report["mse"], report["stored_bytes"]), (made["mse"], made["stored_bytes"]))
        self.assertIsNone(report["quantize_seconds"])
        self.assertGreaterEqual(report["dequantize_seconds"], 0)
        self.assertEqual(report["output"], "o.npy")

    def test_not_an_artifact(self):
        self.refused(1, "x.npy", "dequantize", "x.npy", "-o", "o.npy")
        self.refused(1, "nothere", "dequantize", "nothere.safetensors", "-o", "o.npy")

    def test_inspect(self):
        for method in METHODS:
            made = self.artifact(method)
            report = self.report("inspect", "a.safetensors")
            self.assert_keys(report)
            for key in ["method", "k", "rows", "cols", "parts", "stored_bytes", "recipe", "mse", "max_error", "cells"]:
                self.assertEqual(report[key], made[key], (method, key))
            self.assertEqual(sum(t["bytes"] for t in report["stored_tensors"]), made["stored_bytes"])
            self.assertEqual(report["kind"], "safetensors")
            self.assertIn(method, self.qem("inspect", "a.safetensors"))
        plain = self.report("inspect", "x.npy")
        self.assert_keys(plain)
        self.assertEqual((plain["kind"], plain["rows"], plain["cols"], plain["method"]), ("npy", 37, 10, None))
        self.assertIn("x: 37 x 10 f32", self.qem("inspect", "x.npy"))

    def test_output_errors(self):
        self.artifact()
        self.refused(1, "no/such", "dequantize", "a.safetensors", "-o", "no/such/o.npy")
        self.refused(1, "no/such", "quantize", "x.npy", "-o", "no/such/o.safetensors", "--method", "pq", "--k", "2")
        self.refused(1, "no/such", "generate", "synthetic", "-o", "no/such/o.npy")


if __name__ == "__main__":
    support.main()
