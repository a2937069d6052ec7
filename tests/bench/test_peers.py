"""The benchmarks that are run by hand do run: bench/peers and bench/scaling on small shapes, without a network."""
import ctypes
import csv
import json
import os
import subprocess
import sys
import tempfile
import unittest

try:
    import numpy as np
except ImportError:
    sys.exit("FAILED: these tests need numpy (Debian: apt-get install python3-numpy), not found by " + sys.executable)

SOURCE, BUILD = os.environ["QEM_SOURCE"], os.environ["QEM_BUILD"]
PEERS = os.path.join(SOURCE, "bench", "peers")
sys.path[:0] = [PEERS, os.path.join(SOURCE, "bench", "support")]
import cases  # noqa: E402
import qemlib  # noqa: E402
import report  # noqa: E402

LIBRARY = os.path.join(BUILD, "lib", "libqem.so")


def run(script, *arguments):
    command = [sys.executable, os.path.join(SOURCE, "bench", script, "run"), "--no-build", "--build", BUILD, *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)


def run_peers(*arguments):
    return run("peers", "--python", sys.executable, *arguments)


class Driver(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory(prefix="qem-bench-")
        cls.addClassCleanup(cls.place.cleanup)
        path = os.path.join(cls.place.name, "peers.json")
        cls.done = run_peers("--quick", "--rounds", "2", "--threads", "2", "--json", path)
        if cls.done.returncode != 0:
            raise AssertionError(cls.done.stdout + cls.done.stderr)
        with open(path, encoding="utf-8") as file:
            cls.outcome = json.load(file)
        cls.results = {case["name"]: case for case in cls.outcome["cases"]}

    def ours(self, name, figure):
        return self.results[name]["sides"]["qem"][figure]

    def test_every_case_runs_on_our_side(self):
        self.assertEqual(list(self.results), [case.name for case in cases.all_cases()])
        command = [os.path.join(BUILD, "bin", "qem"), "quantize", "--help"]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        can_assign = "--assign " in usage.partition("Not in this version")[0]
        can_multiply = hasattr(ctypes.CDLL(LIBRARY), "qem_matmul")
        for name, result in self.results.items():
            wanting = name == "hyperchr/global" and not can_assign or name.startswith("gemv/") and not can_multiply
            self.assertEqual("skipped" in result, wanting, result)
            if not wanting:
                self.assertEqual(self.ours(name, "seconds")["count"], 2, name)
                if name != "kmeans/pass":  # a difference of two times: at this size it may be anything
                    self.assertGreater(self.ours(name, "seconds")["least"], 0.0, name)

    def test_machine(self):
        self.assertEqual(self.outcome["about"]["qem"]["threads"], 2)
        self.assertIn(self.outcome["about"]["qem"]["isa"], ["scalar", "avx2", "avx512"])

    def test_errors_are_those_of_the_data(self):
        for name in ("pq-train/100000x128/k256", "encode/k256", "decode/pq/k256/f32", "decode/vq/k4096/f16",
                     "hyperchr/cell"):
            self.assertTrue(0.0 < self.ours(name, "error")["median"] < 1.0, name)  # the variance is 1

    def test_decoding_is_measured_beside_the_fill(self):
        self.assertGreater(self.ours("decode/vq/k256/f32", "fill_seconds")["least"], 0.0)

    def test_memory_of_the_command_is_that_of_a_process(self):
        self.assertGreater(self.ours("hyperchr/cell", "memory")["median"] * 128 * 64 * 4, 1 << 20)

    def test_numpy_takes_part_and_agrees(self):
        sides = self.results["quantiles"]["sides"]
        self.assertEqual(len(sides["qem"]["values"]), 16)
        np.testing.assert_allclose(sides["qem"]["values"], sides["numpy"]["values"], rtol=1e-6, atol=1e-6)
        self.assertEqual(sides["numpy"]["seconds"]["count"], 2)

    def test_absent_peers_are_named(self):
        rows = self.results["encode/k256"]["rows"]
        missing = "missing" in self.outcome["about"]["faiss"]
        self.assertEqual([row["kind"] for row in rows], ["absent" if missing else "versus"])
        if missing:
            self.assertIn("FAISS is not here", self.done.stdout)

    def test_merge_keeps_what_is_not_measured_again(self):
        before, after = os.path.join(self.place.name, "peers.json"), os.path.join(self.place.name, "merged.json")
        arguments = ["--quick", "--rounds", "1", "--threads", "2", "--cases", "quantiles", "--json", after]
        done = run_peers(*arguments, "--merge", before)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(after, encoding="utf-8") as file:
            outcome = json.load(file)
        self.assertEqual([case["name"] for case in outcome["cases"]], list(self.results))
        self.assertEqual(outcome["cases"][0], self.outcome["cases"][0])
        again = next(case for case in outcome["cases"] if case["name"] == "quantiles")
        self.assertEqual(again["sides"]["qem"]["seconds"]["count"], 1)
        done = run_peers(*arguments[:4], "1", *arguments[5:], "--merge", before)
        self.assertEqual(done.returncode, 1)
        self.assertIn("other threads", done.stderr)

    def test_refusals(self):
        for arguments, words in ((["--cases", "nothing"], "no case is called nothing"), (["--rounds", "0"], "at least 1"),
                                 (["--quick", "--readme"], "--readme"),
                                 (["--quick", "--build", "/nowhere"], "libqem.so")):
            done = run_peers(*arguments)
            self.assertNotEqual(done.returncode, 0, arguments)
            self.assertIn(words, done.stderr)
            self.assertNotIn("Traceback", done.stderr)


def side(seconds, error=None):
    figures = {"seconds": {"median": seconds, "least": seconds, "most": seconds, "count": 3}}
    if error is not None:
        figures["error"] = {"median": error, "least": error, "most": error, "count": 3}
    return figures


def case_with(*checks):
    return cases.Case("name", "title", {}, {}, (), checks)


class Report(unittest.TestCase):
    def verdicts(self, sides, *checks):
        return [row["met"] for row in report.rows_of(case_with(*checks), sides, {})]

    def test_ratio_and_target(self):
        sides = {"qem": side(0.5), "peer": side(2.0)}
        (row,) = report.rows_of(case_with(cases.Versus("peer", 4)), sides, {})
        self.assertEqual((row["figure"], row["met"]), (4.0, True))
        self.assertEqual(self.verdicts(sides, cases.Versus("peer", 4.1), cases.Versus("peer")), [False, None])

    def test_speed_at_a_worse_error_does_not_count(self):
        sides = {"qem": side(1.0, 0.11), "peer": side(9.0, 0.1)}
        checks = [cases.Versus("peer", 2, "not above"), cases.Versus("peer", None, "not above"),
                  cases.Versus("peer", 2, "same"), cases.Versus("peer", None, "same"), cases.Versus("peer", 2)]
        self.assertEqual(self.verdicts(sides, *checks), [False, False, False, False, True])
        sides["qem"] = side(1.0, 0.1)
        self.assertEqual(self.verdicts(sides, *checks), [True, True, True, None, True])

    def test_wrong_values_do_not_count(self):
        sides = {"qem": {**side(1.0), "values": [1.0, 2.0]}, "peer": {**side(9.0), "values": [1.0, 2.0]}}
        self.assertEqual(self.verdicts(sides, cases.Versus("peer", 8)), [True])
        sides["peer"]["values"][1] = 2.1
        self.assertEqual(self.verdicts(sides, cases.Versus("peer", 8)), [False])

    def test_shares_and_limits(self):
        ours = {**side(2.0), "fill_seconds": side(1.5)["seconds"]}
        self.assertEqual(self.verdicts({"qem": ours}, cases.Share(0.75), cases.Share(0.8), cases.Share()),
                         [True, False, None])
        self.assertEqual(self.verdicts({"qem": ours}, cases.Most("seconds", 2.0, "s"), cases.Most("seconds", 1.9, "s")),
                         [True, False])

    def test_readme(self):
        rows = report.rows_of(case_with(cases.Versus("peer", 4), cases.Most("seconds", 0.4, "s")),
                              {"qem": side(0.5), "peer": side(2.0)}, {})
        outcome = {"about": {"qem": {"cpu": "a CPU", "threads": 2, "isa": "avx2"}, "faiss": {"version": "FAISS 1"},
                             "sklearn": {"missing": "no module"}, "numpy": {"version": "numpy 2"}},
                   "rounds": 3, "cases": [{"name": "name", "title": "title", "rows": rows}]}
        with tempfile.TemporaryDirectory() as place:
            path = os.path.join(place, "README.md")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
            report.into_readme(path, outcome)
            with open(path, encoding="utf-8") as file:
                text = file.read()
            self.assertTrue(text.startswith("before\n" + report.BEGIN) and text.endswith(report.END + "\nafter\n"))
            self.assertEqual(text.count("title"), 1)
            self.assertIn("| title | 500 ms | peer | 2 s | 4 x | 4 x: met |  |", text)
            self.assertIn("|  | 0.5 s |  |  |  | at most 0.4 s: **missed** |  |", text)
            self.assertNotIn("old", text)
            with open(path, "w", encoding="utf-8") as file:
                file.write("no markers")
            with self.assertRaises(SystemExit):
                report.into_readme(path, outcome)

    def test_readme_of_the_project_has_the_markers(self):
        with open(os.path.join(SOURCE, "README.md"), encoding="utf-8") as file:
            text = file.read()
        self.assertEqual((text.count(report.BEGIN), text.count(report.END)), (1, 1))


class Binding(unittest.TestCase):
    def test_round_trip(self):
        library = qemlib.Library(LIBRARY, 2)
        matrix = np.random.default_rng(5).standard_normal((40, 12)).astype(np.float32)
        artifact = library.quantize(matrix, "pq", k=8, dim=4, iterations=3)
        info = artifact.info()
        self.assertEqual((info.rows, info.cols, info.k, info.groups, info.recipe.iterations), (40, 12, 8, 3, 3))
        self.assertEqual(len(artifact.part("codebook")), info.parts.codebook)
        decoded = np.zeros_like(matrix)
        artifact.dequantize(decoded)
        np.testing.assert_allclose(np.square(decoded - matrix, dtype=np.float64).mean(), info.metrics.mse, rtol=1e-6)
        again = artifact.encode(matrix)
        self.assertEqual(again.part("codes"), artifact.part("codes"))
        for ended in (again, artifact):
            ended.close()
            self.assertIsNone(ended.pointer.value)

    def test_refusals_carry_the_sentence(self):
        library = qemlib.Library(LIBRARY, 1)
        with self.assertRaisesRegex(qemlib.Error, "qem_quantize: .*k"):
            library.quantize(np.zeros((2, 4), np.float32), "vq", k=100)
        with self.assertRaises(qemlib.Missing):
            library.call("qem_no_such_function")


class Scaling(unittest.TestCase):
    def test_quick(self):
        with tempfile.TemporaryDirectory() as place:
            done = run("scaling", "--quick", "--seconds", "0", "--threads", "2", "--output", place)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(os.path.join(place, "scaling.csv"), encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            self.assertEqual([(r["axis"], r["method"]) for r in rows].count(("k", "hyperchr")), 4)
            self.assertTrue(all(float(r["seconds"]) > 0 for r in rows))
            with open(os.path.join(place, "scaling.svg"), encoding="utf-8") as file:
                picture = file.read()
            self.assertTrue(picture.rstrip().endswith("</svg>") and "hyperchr, exponent" in picture)
        self.assertRegex(done.stdout, r"vq +time grows as n\^-?[0-9.]+ and k\^-?[0-9.]+")


if __name__ == "__main__":
    unittest.main(verbosity=1)
