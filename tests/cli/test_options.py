"""Options: strict numbers, refusals, help, exit codes."""
import support
from support import CliTest, METHODS, normal


class Options(CliTest):
    def setUp(self):
        super().setUp()
        self.save("x.npy", normal(16, 8))
        self.base = ["quantize", "x.npy", "-o", "out.safetensors"]

    def test_commands(self):
        self.refused(2, "command")
        self.refused(2, "'quantise'", "quantise", "x.npy")
        self.refused(2, "--jsn", "inspect", "x.npy", "--jsn")
        self.refused(2, "-q", "inspect", "x.npy", "-q")
        self.refused(2, "takes no value", "inspect", "x.npy", "--json=1")
        self.refused(2, "needs", "inspect")
        self.refused(2, "needs", "inspect", "x.npy", "y.npy")
        self.refused(2, "needs", "evaluate", "x.npy")
        self.refused(2, "no operand", "device", "x")
        self.refused(2, "needs a value", *self.base, "--method")

    def test_abbreviations_are_refused(self):
        self.refused(2, "--method", *self.base, "--meth", "pq", "--ratio", "8")
        self.refused(2, "--ratio", *self.base, "--method", "pq", "--rati=8")

    def test_missing(self):
        self.refused(2, "-o", "quantize", "x.npy", "--method", "pq", "--ratio", "8")
        self.refused(2, "--method", *self.base, "--ratio", "8")
        self.refused(2, "budget", *self.base, "--method", "pq")
        self.refused(2, "exclude", *self.base, "--method", "pq", "--ratio", "8", "--bits", "4")
        self.refused(2, ".safetensors", "quantize", "x.npy", "-o", "out.npy", "--method", "pq", "--ratio", "8")
        self.refused(2, "-o", "dequantize", "x.safetensors")
        self.refused(2, ".npy", "dequantize", "x.safetensors", "-o", "out.bin")
        self.refused(2, "-o", "generate", "synthetic")
        self.refused(2, "'noise'", "generate", "noise", "-o", "a.npy")
        self.refused(2, ".svg", "compare", "x.npy", "--plot", "a.png")

    def test_numbers(self):
        for option, limit, values in [
            ("--ratio", "1e+09", ["", "0", "-1", "abc", "8x", "nan", "inf", "1e999", "0x8", " 8", "+8", "8 ", "1e"]),
            ("--bits", "1e+06", ["0", "-4", "nan", "4,5"]),
            ("--k", "16777216", ["0", "-1", "1.5", "1e3", "16777217", "99999999999999999999", "0x10", ""]),
            ("--dim", "65535", ["0", "-4", "4.0", "65536"]),
            ("--intervals", "255", ["0", "256", "three"]),
            ("--levels", "8", ["9", "-1", "1 2"]),
            ("--iterations", "1000000", ["-1", "many"]),
            ("--tolerance", "1", ["-0.1", "nan", "2", "1e-3x"]),
            ("--restarts", "1000", ["0", "1001"]),
            ("--seed", "9223372036854775807", ["-1", "18446744073709551616", "1.0"]),
            ("--threads", "1024", ["0", "1025", "-2", "two"]),
        ]:
            for value in values:
                self.refused(2, [option, limit, f"'{value}'"], *self.base, "--method", "pq", f"{option}={value}")

    def test_choices(self):
        for option, value in [("--method", "pqq"), ("--method", ""), ("--isa", "sse"),
                              ("--device", "gpu"), ("--accounting", "none")]:
            self.refused(2, [option], *self.base, "--ratio", "8", option, value)
        self.refused(2, "--dtype", "dequantize", "x.safetensors", "-o", "y.npy", "--dtype", "f64")
        for rows in ["3", "3:", ":3", "5:5", "6:5", "a:b", "1:2:3", "-1:3"]:
            self.refused(2, "--rows", "dequantize", "x.safetensors", "-o", "y.npy", "--rows", rows)

    def test_values_of_blocks(self):
        for option, words, values in [
            ("--allocation", ["count", "variance"], ["", "even"]),
            ("--grid", ["tensor", "block:G", "65535"], ["", "rows", "block", "block=4", "column+block:4"]),
            ("--grid", ["2", "65535"], ["block:", "block:1", "block:65536", "block:x", "block:-2"]),
            ("--cells", ["2", "256"], ["0", "1", "257", "two"]),
            ("--rotation-start", ["best", "identity", "pca"], ["random"]),
            ("--residual", ["METHOD:SHARE", "lopq"], ["", "zz", "auto", ":0.3", "none:0.2"]),
            ("--residual", ["1"], ["pq:", "pq:0", "pq:1", "pq:-0.5", "pq:x", "pq:2"]),
            ("--codebook", ["f16", "u4 .. u12"], ["", "f64", "u3", "u13", "u04", "u4x", "8", "u"]),
            ("--outliers", ["0.5"], ["", "-0.1", "0.51", "x", "3%"]),
            ("--outliers", ["above 0"], ["sigma:", "sigma:0", "sigma:-1", "sigma:x"]),
            ("--standardize", ["column+block:G", "65535"], ["", "rows", "row+block:4", "block", "column+"]),
            ("--standardize", ["2", "65535"], ["block:1", "block:65536", "column+block:x", "column+block:"]),
            ("--params", ["f32", "u4 .. u8"], ["", "f64", "u3", "u9", "16"]),
            ("--effort", ["0", "3"], ["4", "-1", "most"]),
            ("--mixed", ["on", "off"], ["yes", "1"]),
            ("--means", ["auto", "always", "never"], ["", "maybe"]),
        ]:
            for value in values:
                with self.subTest(option=option, value=value):
                    self.refused(2, [option, *words], *self.base, "--method", "pq", "--ratio", "2", f"{option}={value}")
        many = ["--residual", "vq"] * 8
        self.refused(2, ["--residual", "8"], *self.base, "--method", "pq", "--ratio", "2", *many)
        for method in ["pq+pq", "vq+"]:
            self.refused(2, [method, "--residual"], *self.base, "--method", method, "--ratio", "2")
            self.refused(2, [method, "--residual"], "compare", "x.npy", "--methods", "pq," + method)
        self.refused(2, ["auto"], *self.base, "--method", "best", "--ratio", "2")

    def test_importance_file(self):
        words = [*self.base, "--method", "pq", "--ratio", "2", "--importance"]
        self.refused(1, "none.npy", *words, "none.npy")
        self.write("bad.npy", b"no array")
        self.refused(1, "bad.npy", *words, "bad.npy")

    def test_cell_options_are_refused_by_methods_without_cells(self):
        for words in [["--assign", "global"], ["--refine", "2"]]:
            self.refused(1, ["pq"], "quantize", "x.npy", "-o", "y.safetensors", "--method", "pq", "--ratio", "2", *words)
        self.refused(2, "--assign", *self.base, "--method", "hyperchr", "--ratio", "2", "--assign", "nearest")

    def test_values_that_mean_as_now(self):
        self.qem(*self.base, "--method", "pq", "--ratio", "2", "--allocation", "count", "--assign", "cell", "--refine",
                 "0", "--grid", "tensor", "--standardize", "none")

    def test_no_gpu(self):
        if self.report("device")["gpus"]:
            self.skipTest("there is one")
        self.refused(1, "cuda", *self.base, "--method", "pq", "--ratio", "2", "--device", "cuda")
        self.refused(1, "cuda", "compare", "x.npy", "--devices", "cpu,cuda")
        self.refused(2, "--devices", "compare", "x.npy", "--devices", "cpu,cpu")

    def test_isa_that_the_cpu_lacks(self):
        levels = self.isa_levels()
        for isa in ["avx2", "avx512"]:
            if isa not in levels:
                self.refused(1, isa, *self.base, "--method", "pq", "--ratio", "2", "--isa", isa)

    def test_help(self):
        text = self.qem("--help")
        for command in ["quantize", "dequantize", "inspect", "evaluate", "compare", "generate", "device"]:
            self.assertIn(command, text)
            detail = self.qem(command, "--help")
            self.assertIn("Usage: qem " + command, detail)
            self.assertIn("Example", detail)
        text = self.qem("quantize", "--help")
        for word in METHODS + ["grid", "nf", "opq", "lopq", "auto"]:
            self.assertRegex(text, r"\b%s\b" % word)
        for command in ["quantize", "compare"]:
            words = set(self.qem(command, "--help").split())
            for block in ["allocation", "grid", "cells", "rotation-start", "residual", "codebook", "outliers", "standardize",
                          "params", "importance", "effort", "mixed", "means", "recipe", "dim", "intervals", "levels", "assign",
                          "refine", "iterations", "tolerance", "restarts", "accounting"]:
                self.assertIn("--" + block, words, command)
        for word in ["--ratio", "--bits", "--k", "--dry-run", "--reuse", "--seed", "--threads", "--isa", "--device", "--json"]:
            self.assertIn(word, text)
        self.assertNotIn("ot in this version", text)
        self.assertRegex(self.qem("--version"), r"^qem \d+\.\d+\.\d+\n$")

    def test_device(self):
        report = self.report("device")
        self.assertIn("scalar", report["isa_levels"])
        self.assertIsInstance(report["gpus"], list)
        for gpu in report["gpus"]:
            self.assertIn(gpu, self.qem("device"))
        self.assertGreaterEqual(report["threads"], 1)
        self.assertIn(report["device_name"], self.qem("device"))

    def test_generate(self):
        report = self.report("generate", "synthetic", "-o", "a.npy", "--rows", "50", "--cols", "40", "--seed", "7",
                             "--outlier-rate", "0.01")
        self.assertEqual((report["rows"], report["cols"], report["seed"]), (50, 40, 7))
        data = support.np.load(self.path("a.npy"))
        self.assertEqual((data.shape, data.dtype), ((50, 40), support.np.float32))
        self.assertTrue(abs(data).max() <= 100)
        self.assertTrue(1 <= (abs(data - 0.5) > 0.5).sum() <= 20)
        self.qem("generate", "synthetic", "-o", "b.npy", "--rows", "50", "--cols", "40", "--seed", "7",
                 "--outlier-rate", "0.01", "--threads", "1", "--isa", "scalar")
        self.assertEqual(self.read("a.npy"), self.read("b.npy"))
        self.qem("generate", "synthetic", "-o", "b.npy", "--rows", "50", "--cols", "40", "--seed", "8")
        self.assertNotEqual(self.read("a.npy"), self.read("b.npy"))
        self.refused(2, "--rows", "generate", "synthetic", "-o", "c.npy", "--rows", "0")
        self.refused(2, "--outlier-rate", "generate", "synthetic", "-o", "c.npy", "--outlier-rate", "1.5")
        self.refused(1, "memory", "generate", "synthetic", "-o", "c.npy", "--rows", "200000000000000", "--cols",
                     "200000000000000")


if __name__ == "__main__":
    support.main()
