"""--method auto: the recipe found, what was tried, and that the file is what that recipe makes."""
import json

import support
from support import CliTest, np, normal, read_safetensors

FIT = ["--threads", "2", "--iterations", "5"]


def uneven(rows, cols, seed):
    """Columns and rows of different scales, and a few large elements."""
    data = normal(rows, cols, seed) * np.logspace(-1, 1, cols, dtype=np.float32)
    data[::7] *= 5
    data[3, 1] = 900
    return data


class Auto(CliTest):
    def setUp(self):
        super().setUp()
        self.save("x.npy", uneven(160, 24, 1))

    def check_trials(self, report, effort):
        trials = report["trials"]
        self.assertGreater(len(trials), 2)
        first = trials[0]
        self.assertEqual(first["status"], "ok")
        for key, value in first["recipe"].items():
            self.assertEqual(report["recipe"][key], value, key)
        self.assertNotIn("tolerance", first["recipe"])  # what is at its default is not there
        finals = [t["final_mse"] for t in trials if t["final_mse"] is not None]
        samples = [t["mse"] for t in trials if t["final_mse"] is None and t["status"] == "ok"]
        self.assertEqual(finals, sorted(finals))
        self.assertEqual(samples, sorted(samples))
        self.assertEqual([t["final_mse"] is not None for t in trials[:len(finals)]], [True] * len(finals))
        self.assertGreaterEqual(len(finals), min(3, len(trials)) if effort >= 2 else 0)
        for trial in trials:
            self.assertEqual(sorted(trial), ["final_mse", "mse", "recipe", "seconds", "status"])
            self.assertEqual(trial["status"] == "ok", trial["mse"] is not None)
            self.assertIn("method", trial["recipe"])

    def test_goes_on_from_the_leader(self):
        # columns of one scale, so few centroids of 3 or more elements that fit exactly: the first candidates have 2, 4 and 8
        corners = np.random.default_rng(5).choice([-1.0, 1.0], (400, 30)).astype(np.float32)
        self.save("y.npy", corners + 0.05 * normal(400, 30, 6))
        first, more = (self.report("quantize", "y.npy", "-o", "a.safetensors", "--method", "auto", "--bits", "2.7", "--effort",
                                   effort, *FIT) for effort in (0, 2))
        recipes = [json.dumps(t["recipe"], sort_keys=True) for t in more["trials"]]
        self.assertEqual(len(recipes), len(set(recipes)))
        self.assertLess(more["mse"], first["mse"])
        best = more["trials"][0]["recipe"]
        beside = [t["recipe"] for t in more["trials"]
                  if sum(t["recipe"].get(key) != best.get(key) for key in set(best) | set(t["recipe"])) == 1]
        self.assertGreater(len(beside), 3)
        self.assertTrue({t["recipe"].get("dim") for t in more["trials"]} & {3, 5, 6, 7, 9})

    def test_report_and_file(self):
        counts = []
        for effort in range(4):
            report = self.report("quantize", "x.npy", "-o", "a.safetensors", "--method", "auto", "--bits", "4", "--effort",
                                 effort, *FIT)
            self.assert_keys(report)
            self.assertEqual(report["method"], "auto")
            self.assertNotEqual(report["recipe"]["method"], "auto")
            self.assertLessEqual(report["stored_bytes"], 160 * 24 * 4 // 8)
            self.check_trials(report, effort)
            self.assertEqual(report["trials"][0]["final_mse"], report["mse"])
            counts.append(len(report["trials"]))
            # the recipe found makes the same file by itself
            self.write("r.json", json.dumps(report["recipe"]).encode())
            self.report("quantize", "x.npy", "-o", "b.safetensors", "--recipe", "r.json", "--threads", "1")
            self.assertEqual(read_safetensors(self.path("a.safetensors"))[0], read_safetensors(self.path("b.safetensors"))[0])
            measured = self.report("evaluate", "x.npy", "a.safetensors")
            self.assertEqual(measured["mse"], report["mse"])
        self.assertLess(counts[0], counts[1])

    def test_no_worse_than_the_methods_by_themselves(self):
        best = self.report("quantize", "x.npy", "-o", "a.safetensors", "--method", "auto", "--bits", "4", "--effort", "2")
        for method in support.METHODS + ["grid"]:
            one = self.report("quantize", "x.npy", "-o", "b.safetensors", "--method", method, "--bits", "4")
            self.assertLessEqual(best["mse"], one["mse"] * 1.02, method)

    def test_text(self):
        text = self.qem("quantize", "x.npy", "-o", "a.safetensors", "--method", "auto", "--bits", "4", *FIT)
        lines = text.splitlines()
        (picked,) = [line for line in lines if line.startswith("  auto     picked ")]
        words = picked[len("  auto     picked "):].split(", the best of ")[0].split()
        self.assertRegex(picked, r"the best of \d+ tried$")
        first = lines[lines.index(picked) + 2]
        self.assertTrue(first.endswith(" ".join(words)), (first, words))
        self.assertLess(len(lines), 20)
        # the words are options that ask for the same
        self.qem("quantize", "x.npy", "-o", "b.safetensors", "--method", *words, "--bits", "4", *FIT)
        self.assertEqual(read_safetensors(self.path("a.safetensors"))[0], read_safetensors(self.path("b.safetensors"))[0])

    def test_dry_run(self):
        report = self.report("quantize", "x.npy", "--dry-run", "--method", "auto", "--ratio", "8", *FIT)
        self.assertEqual((report["method"], report["dry_run"], report["mse"]), ("auto", True, None))
        self.check_trials(report, 1)
        self.assertEqual(report["stored_bytes"], sum(report["parts"].values()))
        self.write("r.json", json.dumps(report["recipe"]).encode())
        made = self.report("quantize", "x.npy", "-o", "a.safetensors", "--recipe", "r.json")
        for key in ["k", "stage_count", "stored_bytes", "parts"]:
            self.assertEqual(made[key], report[key], key)
        self.assertIn("nothing was written", self.qem("quantize", "x.npy", "--dry-run", "--method", "auto", "--ratio", "8", *FIT))

    def test_a_model(self):
        support.write_safetensors(self.path("m.safetensors"), {"a": uneven(64, 16, 2), "b": normal(96, 8, 3),
                                                               "c": np.arange(4, dtype=np.float32)})
        report = self.report("quantize", "m.safetensors", "-o", "a.safetensors", "--method", "auto", "--bits", "5", *FIT)
        self.assertEqual([(t["tensor"], t["method"]) for t in report["tensors"]], [("a", "auto"), ("b", "auto")])
        for tensor in report["tensors"]:
            self.check_trials(tensor, 1)
        self.assertLessEqual(report["bits_per_element"], 5)
        report = self.report("quantize", "m.safetensors", "-o", "a.safetensors", "--method", "auto", "--bits", "5", "--uniform", *FIT)
        for tensor in report["tensors"]:
            self.assertLessEqual(tensor["bits_per_element"], 5)
        self.qem("dequantize", "a.safetensors", "-o", "b.safetensors")

    def test_importance(self):
        self.save("w.npy", np.abs(normal(1, 24, 4)) + 0.1)
        report = self.report("quantize", "x.npy", "-o", "a.safetensors", "--method", "auto", "--bits", "4", "--importance", "w.npy",
                             *FIT)
        self.check_trials(report, 1)
        self.assertNotIn("opq", [t["recipe"]["method"] for t in report["trials"]])

    def test_compare(self):
        report = self.report("compare", "x.npy", "--methods", "rtn,auto", "--ratios", "8,100000", *FIT)
        self.assertEqual([r["method"] for r in report["results"]], ["rtn", "auto"] * 2)
        rtn, found, _, none = report["results"]
        self.assertLess(found["mse"], rtn["mse"])
        self.assertNotEqual(found["recipe"]["method"], "auto")
        self.assertEqual((none["status"], none["mse"]), ("infeasible", None))
        self.assertIn("largest ratio that fits", none["reason"])
        one = self.report("quantize", "x.npy", "-o", "a.safetensors", "--method", "auto", "--ratio", "8", *FIT)
        self.assertEqual((one["mse"], one["recipe"]), (found["mse"], found["recipe"]))
        text = self.qem("compare", "x.npy", "--methods", "rtn,auto", "--ratios", "8", *FIT)
        self.assertEqual(len(text.splitlines()), 4)
        self.assertRegex(text.splitlines()[-1], r"^ +picked " + found["recipe"]["method"])
        # what the search finds by itself is left out for auto alone
        self.report("compare", "x.npy", "--methods", "pq,auto", "--ratios", "8", "--dim", "2", "--residual", "rtn", *FIT)
        self.qem("compare", "x.npy", "--methods", "auto,pq", "--ratios", "8", "--csv", "t.csv", *FIT)
        self.assertTrue(self.read("t.csv").decode().splitlines()[1].startswith("auto,8,ok,"))

    def test_refusals(self):
        words = ["quantize", "x.npy", "-o", "a.safetensors", "--method", "auto"]
        self.refused(1, ["auto", "ratio or bits"], *words, "--k", "4")
        self.refused(2, "budget", *words)
        self.refused(1, ["x", "largest ratio that fits"], *words, "--ratio", "100000")
        for block in [["--dim", "2"], ["--standardize", "row"], ["--residual", "rtn"], ["--mixed", "on"]]:
            self.refused(1, "by itself", *words, "--bits", "4", *block)
        self.refused(2, "--effort", *words, "--bits", "4", "--effort", "4")


if __name__ == "__main__":
    support.main()
