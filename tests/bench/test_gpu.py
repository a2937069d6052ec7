"""tools/gpu-check where there is no GPU, its order of stages, and its benchmark on a GPU that is played by the CPU."""
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["QEM_SOURCE"])
SCRIPT = SOURCE / "tools" / "gpu-check"
HOST = os.environ.get("QEM_GPU_BENCH_HOST", "")
GPU = {"name": "none at all", "architecture": 75, "driver_cuda": 13000}


def load_script():
    loader = importlib.machinery.SourceFileLoader("gpu_check", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check", loader))
    loader.exec_module(module)
    return module


class WithoutGpu(unittest.TestCase):
    def test_says_so_and_builds_nothing(self):
        with tempfile.TemporaryDirectory() as place:
            directory = os.path.join(place, "build")
            done = subprocess.run([sys.executable, SCRIPT, "--dir", directory], capture_output=True, text=True,
                                  env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, stdin=subprocess.DEVNULL, timeout=60)
            self.assertEqual(done.returncode, 3, done.stderr)
            self.assertEqual(done.stdout, "")
            self.assertRegex(done.stderr, r"\Agpu-check: no GPU can be used here, so nothing was built: .+\n\Z")
            self.assertFalse(os.path.exists(directory))

    def test_refuses_other_words(self):
        done = subprocess.run([sys.executable, SCRIPT, "--stage", "nonsense"], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60)
        self.assertEqual(done.returncode, 2)


class Stages(unittest.TestCase):
    """The order of stages, with two of our own whose sources are a file."""

    def setUp(self):
        place = tempfile.TemporaryDirectory(prefix="qem-gpu-")
        self.addCleanup(place.cleanup)
        self.place = pathlib.Path(place.name)
        self.script = load_script()
        self.script.ROOT = self.place
        self.source = self.place / "source"
        self.source.write_text("one")
        self.ran, self.fails = [], {}
        self.script.STAGES = {name: (self.stage(name), ["source"]) for name in ("build", "tests")}
        self.state = {"gpu": GPU, "stages": {}}

    def stage(self, name):
        def work(_):
            self.ran.append(name)
            if name in self.fails:
                raise self.script.Stop(self.fails[name], "for a reason")
        return work

    def go(self, *names, again=False):
        """-> the stages that were run"""
        self.ran = []
        with contextlib.redirect_stdout(io.StringIO()):
            self.script.run_stages(names or ["build", "tests"], self.place, self.state, lambda: None, again)
        return self.ran

    def status(self, name):
        return self.state["stages"][name]["status"]

    def test_what_is_done_is_not_done_again(self):
        self.assertEqual(self.go(), ["build", "tests"])
        self.assertEqual(self.go(), [])
        self.assertEqual(self.go("tests", again=True), ["tests"])

    def test_changed_sources_are_done_again(self):
        self.go()
        self.source.write_text("two")
        self.assertEqual(self.go("tests"), [], "before they are built")
        self.assertEqual(self.status("tests"), "skipped")
        self.assertEqual(self.go(), ["build", "tests"])

    def test_nothing_follows_a_build_that_failed(self):
        for status in ("failed", "skipped", "unfinished"):
            self.fails = {"build": status}
            self.assertEqual(self.go(), ["build"])
            self.assertEqual((self.status("build"), self.status("tests")), (status, "skipped"))
            self.assertIn("for a reason", self.state["stages"]["tests"]["why"])
        self.fails = {}
        self.assertEqual(self.go(), ["build", "tests"])

    def test_what_failed_is_done_again(self):
        self.fails = {"tests": "failed"}
        self.go()
        self.assertEqual(self.go(), ["tests"])

    def run_pieces(self, record, names, code):
        run = self.script.Run(self.place, GPU, record, lambda: None)
        with contextlib.redirect_stdout(io.StringIO()):
            self.script.pieces(run, names, lambda name: [sys.executable, "-c", code, name])

    def test_pieces_go_on_where_they_were(self):
        code = ("import sys; print('[       OK ] A.B (0 ms)'); print('[  SKIPPED ] A.C (0 ms)'); "
                "sys.exit(sys.argv[1] == 'b')")
        record = {}
        with self.assertRaisesRegex(self.script.Stop, "failed: b"):
            self.run_pieces(record, ["a", "b"], code)
        self.assertEqual(record["pieces"]["a"], {"passed": True, "status": 0, "ok": 1, "skipped": 1, "failed": 0})
        with self.assertRaisesRegex(self.script.Stop, "failed: b"):  # a is not run again: this code would fail
            self.run_pieces(record, ["a", "b"], "import sys; sys.exit(1)")
        with self.assertRaisesRegex(self.script.Stop, "no test was run"):
            self.run_pieces({}, ["a"], "pass")

    def test_time_ends_a_command_and_what_it_started(self):
        run = self.script.Run(self.place, GPU, {}, lambda: None)
        run.end = 0.0
        with self.assertRaisesRegex(self.script.Stop, "did not end"):
            run.command([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"], keep=True)

    def test_what_was_measured_before_time_was_up_stays(self):
        (self.place / "bin").mkdir()
        program = self.place / "bin" / "gpu_bench"
        program.write_text("#!/bin/sh\necho '{\"what\":\"copy\"}'\nprintf '{\"what\":'\nexec sleep 60\n")
        program.chmod(0o755)
        record = {}
        run = self.script.Run(self.place, GPU, record, lambda: None)
        run.end = 0.0
        with contextlib.redirect_stdout(io.StringIO()), self.assertRaisesRegex(self.script.Stop, "did not end"):
            self.script.bench("decode")(run)
        self.assertEqual(record["lines"], [{"what": "copy"}])

    def test_state_of_another_gpu_is_not_taken(self):
        path = self.place / "state.json"
        path.write_text(json.dumps({"gpu": GPU, "stages": {"build": {"status": "done"}}}))
        self.assertIn("build", self.script.load(path, GPU)["stages"])
        self.assertEqual(self.script.load(path, {**GPU, "architecture": 90})["stages"], {})
        path.write_text("[1")
        self.assertEqual(self.script.load(path, GPU)["stages"], {})


class Sources(unittest.TestCase):
    def test_checked_tests_exist(self):
        text = "".join(path.read_text() for path in (SOURCE / "tests" / "cuda").glob("*_test.cpp"))
        names = {".".join(pair) for pair in re.findall(r"^TEST(?:_F)?\((\w+), (\w+)\)", text, re.MULTILINE)}
        self.assertEqual([name for name in load_script().CHECKED if name not in names], [])

    def test_sources_exist(self):
        for _, sources in load_script().STAGES.values():
            for path in sources:
                self.assertTrue((SOURCE / path).exists(), path)


@unittest.skipUnless(os.path.exists(HOST), "the CUDA headers that the kernels' runner needs are not here")
class Benchmark(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        done = subprocess.run([HOST, "--tiny", "--turns", "2"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=300)
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)
        cls.lines = [json.loads(line) for line in done.stdout.splitlines()]

    def of(self, what):
        return [line for line in self.lines if line["what"] == what]

    def test_every_case_has_a_line(self):
        self.assertEqual(len(self.of("copy")), 1)
        self.assertEqual(len(self.of("dequantize")), 2 * 5)
        self.assertEqual(len(self.of("matmul")), 2 * 5 * 3)
        self.assertEqual({line["case"] for line in self.of("quantize")},
                         {"vq", "pq", "qet", "hyperchr", "lloydmax4", "grid8"})
        self.assertEqual(self.of("skipped"), [])

    def test_figures(self):
        for line in self.of("dequantize"):
            least = line["rows"] * line["cols"] * (2 + line["bits"] / 8)
            self.assertGreaterEqual(line["bytes"], least)
            self.assertGreater(line["us"], 0)  # the runner's time: a millisecond for each piece of work
            copy = self.of("copy")[0]
            share = line["bytes"] / line["us"] / (copy["bytes"] / copy["us"])
            self.assertAlmostEqual(line["percent_of_copy"], 100 * share, delta=0.1)
        for line in self.of("matmul"):
            self.assertAlmostEqual(line["times_cublas"], line["cublas_us"] / line["us"], delta=0.001)
        self.assertTrue(all(line["same"] for line in self.of("quantize")))

    def test_tables(self):
        state = {"gpu": GPU, "stages": {"decode": {"status": "done", "seconds": 1.0, "lines": self.lines}}}
        text = load_script().tables(state)
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        self.assertEqual(len(rows), 4 * 2 + 7 + 10 + 30 + 6)  # heads with their rules, stages, cases
        self.assertIn("| vq | 264 x 64 | 2 |", text)
        self.assertNotIn("NO |", text)

    def test_parts_and_time(self):
        done = subprocess.run([HOST, "--tiny", "--part", "decode", "--seconds", "0.000001"], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([line["what"] for line in lines], ["device", "copy"] + ["skipped"] * 10)
        for words in (["--part", "all"], ["--turns"], ["--turns", "0"], ["--what", "1"]):
            self.assertEqual(subprocess.run([HOST, *words], capture_output=True, check=False, stdin=subprocess.DEVNULL,
                                            timeout=60).returncode, 2, words)


if __name__ == "__main__":
    unittest.main()
