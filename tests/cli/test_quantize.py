"""qem quantize on one matrix: reports, accounting, budgets, shapes."""
import math

import support
from support import CliTest, ERRORS, METHODS, normal, np, read_safetensors


class Quantize(CliTest):
    def check_file(self, name, report):
        """What the file holds is what the report says."""
        tensors, metadata = read_safetensors(self.path(name))
        self.assertEqual(sum(len(data) for _, _, data in tensors.values()), report["stored_bytes"])
        self.assertEqual(sum(report["parts"].values()), report["stored_bytes"])
        self.assertIn("qem.version", metadata)
        for part, size in report["parts"].items():
            full = f"{report['tensor']}.{part}"
            self.assertEqual(len(tensors[full][2]) if full in tensors else 0, size, part)

    def test_every_method(self):
        self.save("x.npy", normal(96, 20, 1))
        for method in METHODS:
            for ratio in [2, 3.5, 5]:
                report = self.report("quantize", "x.npy", "-o", "out.safetensors", "--method", method, "--ratio", ratio)
                self.assert_keys(report)
                self.assertEqual((report["method"], report["rows"], report["cols"]), (method, 96, 20))
                self.assertEqual((report["recipe"]["method"], report["recipe"]["ratio"]), (method, ratio))
                self.assertEqual(report["device"], "cpu")
                self.assertLessEqual(8 * report["stored_bytes"], 96 * 20 * 32 / ratio)
                self.assertAlmostEqual(report["bits_per_element"], 8 * report["stored_bytes"] / (96 * 20))
                self.assertAlmostEqual(report["ratio"], 32 / report["bits_per_element"])
                self.assertGreater(report["quantize_seconds"], 0)
                self.assertIsNone(report["dequantize_seconds"])
                self.check_file("out.safetensors", report)

    def test_budgets_agree(self):
        self.save("x.npy", normal(64, 16, 2))
        a = self.report("quantize", "x.npy", "-o", "a.safetensors", "--method", "pq", "--ratio", "8")
        b = self.report("quantize", "x.npy", "-o", "b.safetensors", "--method", "pq", "--bits", "4")
        c = self.report("quantize", "x.npy", "-o", "c.safetensors", "--method", "pq", "--k", a["k"])
        for other in [b, c]:
            self.assertEqual([a[key] for key in ["k", "stored_bytes", "mse"]],
                             [other[key] for key in ["k", "stored_bytes", "mse"]])

    def test_the_errors_are_true(self):
        data = normal(40, 12, 3)
        data[0, :4] = 0
        self.save("x.npy", data)
        for method in METHODS:
            report = self.report("quantize", "x.npy", "-o", "out.safetensors", "--method", method, "--ratio", "4")
            self.qem("dequantize", "out.safetensors", "-o", "back.npy")
            x, y = data.astype(np.float64), np.load(self.path("back.npy")).astype(np.float64)
            error = x - y
            self.assertEqual(report["zeros"], 4)
            for key, value in [("mse", (error ** 2).mean()), ("mae", abs(error).mean()),
                               ("max_error", abs(error).max()),
                               ("mre", (abs(error[x != 0]) / abs(x[x != 0])).mean()),
                               ("nmse", (error ** 2).mean() / x.var())]:
                self.assertTrue(math.isclose(report[key], value, rel_tol=1e-9), (method, key, report[key], value))

    def test_assignment_and_refining(self):
        data = normal(200, 32, 8)
        self.save("x.npy", data)
        cells = ["quantize", "x.npy", "-o", "out.safetensors", "--method", "hyperchr", "--intervals", "2", "--ratio", "5"]
        last = self.report(*cells)
        self.assertEqual((last["recipe"]["assign"], last["recipe"]["refine"]), ("cell", 0))
        for words in [["--assign", "global"], ["--assign", "global", "--refine", "2"], ["--refine", "10"]]:
            report = self.report(*cells, *words)
            self.assertLess(report["mse"], last["mse"], words)
            self.assertEqual(report["stored_bytes"], last["stored_bytes"])
            self.check_file("out.safetensors", report)
            shown = self.report("inspect", "out.safetensors")
            self.assertEqual(shown["recipe"], report["recipe"])
            again = self.report("quantize", "x.npy", "-o", "again.safetensors", "--reuse", "out.safetensors")
            self.assertAlmostEqual(again["mse"], report["mse"], delta=1e-6 * report["mse"])
            last = report

    def test_shapes(self):
        for shape in [(1, 1), (1, 7), (9, 1), (2, 3), (5, 4), (3, 9), (33, 6)]:
            self.save("x.npy", normal(*shape, 4))
            for method in METHODS:
                report = self.report("quantize", "x.npy", "-o", "out.safetensors", "--method", method, "--k", "1")
                self.assertEqual((report["rows"], report["cols"], report["k"]), (*shape, 1))
                self.check_file("out.safetensors", report)
                self.qem("dequantize", "out.safetensors", "-o", "back.npy")
                self.assertEqual(np.load(self.path("back.npy")).shape, shape)

    def test_constants(self):
        column = np.tile(np.arange(6, dtype=np.float32), (20, 1))
        few = np.where(normal(20, 6, 5) > 0, np.float32(1), np.float32(-2))
        for name, data in [("zero", np.zeros((20, 6), np.float32)), ("same", np.full((20, 6), 3.25, np.float32)),
                           ("columns", column), ("few", few)]:
            self.save("x.npy", data)
            for method in METHODS:
                report = self.report("quantize", "x.npy", "-o", "out.safetensors", "--method", method, "--k", "4")
                if name in ("zero", "same"):
                    self.assertEqual((report["mse"], report["nmse"]), (0, None), (name, method))
                if name == "zero":
                    self.assertIsNone(report["mre"])
                self.qem("dequantize", "out.safetensors", "-o", "back.npy")
                self.assertTrue(np.isfinite(np.load(self.path("back.npy"))).all())

    def test_input_types(self):
        data = normal(24, 8, 6)
        wanted = {}
        for name, array in [("f4", data), ("f8", data.astype(np.float64)), ("fortran", np.asfortranarray(data))]:
            self.save("x.npy", array)
            wanted[name] = self.report("quantize", "x.npy", "-o", "o.safetensors", "--method", "pq", "--ratio", "2")
        self.assertEqual(wanted["f4"]["source_dtype"], "f32")
        self.assertEqual(wanted["f8"]["source_dtype"], "f64")
        for name in ["f8", "fortran"]:
            self.assertEqual([wanted[name][key] for key in ERRORS], [wanted["f4"][key] for key in ERRORS], name)
        for array in [data.astype(np.float16), np.random.default_rng(0).integers(0, 255, (24, 8), np.uint8)]:
            self.save("x.npy", array)
            report = self.report("quantize", "x.npy", "-o", "o.safetensors", "--method", "qet", "--ratio", "2")
            self.assertEqual((report["rows"], report["cols"]), (24, 8))

    def test_vecs(self):
        data = normal(10, 6, 7)
        rows = b"".join(np.int32(6).tobytes() + row.tobytes() for row in data)
        self.write("x.fvecs", rows)
        self.save("x.npy", data)
        a = self.report("quantize", "x.fvecs", "-o", "a.safetensors", "--method", "pq", "--k", "4")
        b = self.report("quantize", "x.npy", "-o", "b.safetensors", "--method", "pq", "--k", "4")
        self.assertEqual(a["mse"], b["mse"])
        small = np.random.default_rng(1).integers(0, 255, (10, 6), np.uint8)
        self.write("x.bvecs", b"".join(np.int32(6).tobytes() + row.tobytes() for row in small))
        report = self.report("quantize", "x.bvecs", "-o", "c.safetensors", "--method", "rtn", "--bits", "8.5")
        self.assertEqual(report["source_dtype"], "u8")

    def test_dry_run(self):
        self.save("x.npy", normal(64, 10, 8))
        for method in METHODS:
            plan = self.report("quantize", "x.npy", "--method", method, "--ratio", "3", "--dry-run")
            self.assert_keys(plan)
            self.assertEqual((plan["dry_run"], plan["mse"], plan["quantize_seconds"]), (True, None, None))
            self.qem("quantize", "x.npy", "-o", "no.safetensors", "--method", method, "--ratio", "3", "--dry-run")
            report = self.report("quantize", "x.npy", "-o", "out.safetensors", "--method", method, "--ratio", "3")
            for key in ["k", "stored_bytes", "parts", "bits_per_element", "ratio", "rows", "cols", "recipe", "cells"]:
                self.assertEqual(plan[key], report[key], (method, key))
        self.assertRaises(FileNotFoundError, self.read, "no.safetensors")

    def test_infeasible(self):
        self.save("x.npy", normal(16, 8, 9))
        for method in METHODS:
            self.refused(1, "", "quantize", "x.npy", "-o", "o.safetensors", "--method", method, "--ratio", "1000")
        self.refused(1, "", "quantize", "x.npy", "--method", "pq", "--ratio", "1000", "--dry-run")
        self.refused(1, "33", "quantize", "x.npy", "-o", "o.safetensors", "--method", "pq", "--k", "33", "--dim", "4")
        self.refused(1, "", "quantize", "x.npy", "-o", "o.safetensors", "--method", "rtn", "--k", "4", "--dim", "4")

    def test_options_have_their_effect(self):
        self.save("x.npy", normal(128, 16, 10))
        base = ["quantize", "x.npy", "-o", "o.safetensors", "--method", "hyperchr", "--ratio", "4"]
        plain = self.report(*base)
        self.assertEqual(plain["recipe"]["dim"], 4)
        half = self.report(*base, "--codebook", "f16")
        self.assertEqual(half["recipe"]["codebook"], "f16")
        self.assertGreaterEqual(half["k"], plain["k"])
        self.assertEqual(self.report(*base, "--intervals", "2")["recipe"]["intervals"], 2)
        self.assertEqual(self.report(*base, "--dim", "2")["recipe"]["dim"], 2)
        self.assertNotEqual(self.report(*base, "--seed", "5")["mse"], plain["mse"])
        self.assertEqual(self.report(*base, "--levels", "2")["recipe"]["levels"], 2)
        self.assertGreater(self.report(*base, "--iterations", "0")["mse"], plain["mse"])
        few = self.report(*base, "--restarts", "1", "--tolerance", "0.5")
        many = self.report(*base, "--restarts", "4")
        self.assertLessEqual(many["mse"], few["mse"])
        paper = self.report(*base, "--accounting", "paper")
        self.assertEqual(paper["recipe"]["accounting"], "paper")
        self.assertIn("as the papers do", self.qem(*base, "--accounting", "paper"))

    def test_codebook_overflow(self):
        self.save("x.npy", normal(32, 8, 11, 1e6))
        self.refused(1, "f16", "quantize", "x.npy", "-o", "o.safetensors", "--method", "pq", "--k", "4", "--codebook",
                     "f16")

    def test_reuse(self):
        self.save("x.npy", normal(128, 12, 12))
        self.save("new.npy", normal(40, 12, 13))
        self.save("narrow.npy", normal(40, 8, 13))
        for method in METHODS:
            base = self.report("quantize", "x.npy", "-o", "base.safetensors", "--method", method, "--k", "16")
            report = self.report("quantize", "new.npy", "-o", "new.safetensors", "--reuse", "base.safetensors")
            self.check_file("new.safetensors", report)
            self.assertEqual((report["method"], report["rows"], report["k"]), (method, 40, base["k"]))
            ours, _ = read_safetensors(self.path("base.safetensors"))
            theirs, _ = read_safetensors(self.path("new.safetensors"))
            if "x.codebook" in ours:
                self.assertEqual(ours["x.codebook"], theirs["new.codebook"])
            again = self.report("quantize", "x.npy", "-o", "again.safetensors", "--reuse", "base.safetensors")
            self.assertLessEqual(again["mse"], base["mse"] * (1 + 1e-9), method)
            self.refused(1, "", "quantize", "narrow.npy", "-o", "n.safetensors", "--reuse", "base.safetensors")
        other = "pq" if METHODS[-1] != "pq" else "vq"
        self.refused(1, other, "quantize", "new.npy", "-o", "n.safetensors", "--reuse", "base.safetensors", "--method",
                     other)
        done = self.run_qem("quantize", "new.npy", "-o", "n.safetensors", "--reuse", "base.safetensors", "--ratio", "8")
        self.assertEqual((done.returncode, done.stderr.count(b"\n")), (0, 1), done.stderr)

    def test_text_report(self):
        self.save("weights.npy", normal(32, 8, 14))
        text = self.qem("quantize", "weights.npy", "-o", "o.safetensors", "--method", "qet", "--ratio", "2")
        for word in ["weights: 32 x 8 f32", "qet", "swap level", "stored", "codes", "MSE", "written to o.safetensors"]:
            self.assertIn(word, text)


if __name__ == "__main__":
    support.main()
