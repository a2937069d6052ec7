"""qem compare: table, JSON, CSV, picture, infeasible budgets."""
import csv
import os
import shutil
import unittest
import xml.etree.ElementTree

import support
from support import CliTest, METHODS, normal


class Compare(CliTest):
    def setUp(self):
        super().setUp()
        self.save("x.npy", normal(64, 16, 1))

    def test_json(self):
        report = self.report("compare", "x.npy", "--methods", "pq,rtn,qet", "--ratios", "2,1000", "--repeat", "3",
                             "--threads", "2", "--isa", "scalar")
        results = report["results"]
        self.assertEqual([(r["theta"], r["method"]) for r in results],
                         [(t, m) for t in (2, 1000) for m in ("pq", "rtn", "qet")])
        for result in results:
            self.assert_keys(result)
            self.assertEqual((result["device"], result["threads"], result["isa"]), ("cpu", 2, "scalar"))
            if result["theta"] == 2:
                self.assertEqual((result["status"], result["reason"]), ("ok", None))
                self.assertGreater(result["mse"], 0)
                self.assertGreater(result["dequantize_seconds"], 0)
                self.assertGreater(result["quantize_ratio"], 0)
                self.assertLessEqual(result["bits_per_element"], 16)
            else:
                self.assertEqual(result["status"], "infeasible")
                self.assertTrue(result["reason"])
                self.assertIsNone(result["mse"])
                self.assertIsNone(result["stored_bytes"])
        self.assertEqual((results[0]["quantize_ratio"], results[0]["dequantize_ratio"]), (1, 1))

    def test_same_as_quantize(self):
        for method in METHODS:
            one = self.report("compare", "x.npy", "--methods", method, "--ratios", "4")["results"][0]
            two = self.report("quantize", "x.npy", "-o", "a.safetensors", "--method", method, "--ratio", "4")
            for key in support.ERRORS + ["k", "stored_bytes"]:
                self.assertEqual(one[key], two[key], (method, key))

    def test_all_methods_by_default(self):
        results = self.report("compare", "x.npy", "--iterations", "2")["results"]
        self.assertEqual(len(results), len(METHODS) * 8)

    def test_options_reach_their_methods(self):
        results = self.report("compare", "x.npy", "--ratios", "3", "--dim", "2", "--intervals", "2", "--levels", "2",
                              "--codebook", "f16")["results"]
        recipes = {r["method"]: r["recipe"] for r in results}
        self.assertEqual([recipes[m]["dim"] for m in METHODS], [1, 1, 2, 2, 2, 2])
        self.assertEqual(recipes["hyperchr"]["intervals"], 2)
        self.assertEqual((recipes["qet"]["levels"], recipes["pq"]["levels"]), (2, 0))

    def test_table(self):
        text = self.qem("compare", "x.npy", "--methods", "pq,qet", "--ratios", "2,1000")
        self.assertEqual(len(text.splitlines()), 5)
        self.assertEqual(text.count("infeasible: "), 2)

    def test_csv(self):
        self.qem("compare", "x.npy", "--methods", "pq,rtn", "--ratios", "2,1000", "--csv", "t.csv")
        with open(self.path("t.csv"), newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([(r["method"], r["theta"], r["status"]) for r in rows],
                         [("pq", "2", "ok"), ("rtn", "2", "ok"), ("pq", "1000", "infeasible"),
                          ("rtn", "1000", "infeasible")])
        report = self.report("compare", "x.npy", "--methods", "pq", "--ratios", "2")
        self.assertEqual(float(rows[0]["mse"]), report["results"][0]["mse"])
        self.assertEqual(rows[2]["mse"], "")
        self.refused(1, "no/such", "compare", "x.npy", "--csv", "no/such/t.csv")

    @unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is not installed")
    def test_plot(self):
        self.qem("compare", "x.npy", "--methods", "pq,rtn,vq", "--ratios", "2,3,4,1000", "--plot", "p.svg")
        text = self.read("p.svg").decode()
        xml.etree.ElementTree.fromstring(text)
        for word in ["pq", "rtn", "vq", "bits per element", "64 x 16"]:
            self.assertIn(word, text)
        self.assertEqual(sorted(os.listdir(self.dir)), ["p.svg", "x.npy"])

    @unittest.skipUnless(shutil.which("gnuplot"), "gnuplot is not installed")
    def test_nothing_to_plot(self):
        done = self.run_qem("compare", "x.npy", "--methods", "pq", "--ratios", "1000", "--plot", "p.svg")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"nothing to plot", done.stderr)
        self.assertEqual(os.listdir(self.dir), ["x.npy"])

    def test_no_gnuplot(self):
        environment = dict(os.environ, PATH=self.dir)
        self.refused(1, "gnuplot", "compare", "x.npy", "--plot", "p.svg", env=environment)

    def test_lists(self):
        for option, value in [("--ratios", "2,,4"), ("--ratios", "2,x"), ("--ratios", ""), ("--methods", "pq,"),
                              ("--methods", "pq rtn"), ("--repeat", "0"), ("--ratios", "0"), ("--ratios", "2," * 80)]:
            self.refused(2, option, "compare", "x.npy", option, value)

    def test_one_tensor_of_a_model(self):
        support.write_safetensors(self.path("m.safetensors"), {"a": normal(16, 8, 2), "b": normal(16, 4, 3)})
        report = self.report("compare", "m.safetensors", "--tensor", "b", "--methods", "pq", "--ratios", "2")
        self.assertEqual((report["tensor"], report["cols"]), ("b", 4))
        self.refused(1, "", "compare", "m.safetensors", "--methods", "pq", "--ratios", "2")


if __name__ == "__main__":
    support.main()
