"""Models in directories: shards, one budget, runs that are cut off and go on."""
import glob
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import support
from support import CliTest, array_of, bf16_bits, normal, np, read_safetensors, write_safetensors

for packages in glob.glob(os.path.join(os.environ.get("QEM_BUILD", "build"), "python", "lib", "python3*", "site-packages")):
    sys.path.append(packages)
try:
    import safetensors
except ImportError:
    safetensors = None

LINEAR = ["layers.0.q.weight", "layers.0.up.weight", "layers.1.q.weight", "layers.1.up.weight", "lm_head.weight"]


def shard(number):
    return f"model-{number:05d}-of-00003.safetensors"


class Directory(CliTest):
    def setUp(self):
        super().setUp()
        self.shards = [
            {"model.embed_tokens.weight": normal(200, 64, 1), "layers.0.q.weight": normal(64, 64, 2),
             "layers.0.q.bias": normal(1, 64, 3)[0]},
            {"layers.0.up.weight": normal(96, 64, 4, 0.1).astype(np.float16), "layers.0.norm.weight": normal(1, 64, 5)[0],
             "layers.1.q.weight": ("BF16", bf16_bits(normal(64, 64, 6, 3.0))), "step": np.arange(3, dtype=np.int64)},
            {"layers.1.up.weight": normal(96, 64, 7), "lm_head.weight": normal(200, 64, 8), "tiny.weight": normal(8, 8, 9)},
        ]
        os.mkdir(self.path("model"))
        weight_map = {}
        for i, tensors in enumerate(self.shards):
            write_safetensors(self.path("model/" + shard(i + 1)), tensors)
            weight_map.update((name, shard(i + 1)) for name in tensors)
        self.write_json("model/model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": weight_map})
        self.write_json("model/config.json", {"hidden_size": 64})
        self.write("model/tokenizer.model", bytes(range(200)))
        self.write("model/pytorch_model.bin", b"other weights")

    def write_json(self, name, value):
        self.write(name, json.dumps(value).encode())

    def quantize(self, out="out", *more, source="model"):
        return self.report("quantize", source, "-o", out, "--method", "lloydmax", "--standardize", "row", "--bits", "4.5", *more)

    def contents(self, directory):
        return {name: self.read(f"{directory}/{name}") for name in sorted(os.listdir(self.path(directory)))}

    def tensors(self, directory):
        result = {}
        for i in range(3):
            result.update(read_safetensors(self.path(f"{directory}/{shard(i + 1)}"))[0])
        return result


class Quantize(Directory):
    def test_linear_weights(self):
        report = self.quantize()
        self.assertEqual([t["tensor"] for t in report["tensors"]], LINEAR)
        self.assertEqual((report["shards"], report["shards_kept"]), (3, 0))
        self.assertLessEqual(report["bits_per_element"], 4.5)
        for tensor in report["tensors"]:
            self.assert_keys(tensor)
            self.assertGreater(tensor["nmse"], 0)
        self.assertEqual(sorted(os.listdir(self.path("out"))), sorted(
            ["qem.json", "config.json", "tokenizer.model", "model.safetensors.index.json"] + [shard(i) for i in (1, 2, 3)]))
        self.assertEqual(self.read("out/tokenizer.model"), bytes(range(200)))
        before, after = self.tensors("model"), self.tensors("out")
        for name in before:
            if name in LINEAR:
                self.assertIn(name + ".codes", after)
            else:
                self.assertEqual(before[name], after[name])
        index = json.loads(self.read("out/model.safetensors.index.json"))
        self.assertEqual(sorted(index["weight_map"]), sorted(after))
        self.assertEqual(sorted(index["quantized_map"]), sorted(LINEAR))
        self.assertEqual(index["metadata"]["total_size"], sum(len(t[2]) for t in after.values()))
        self.assertEqual(report["stored_bytes"], sum(len(after[name][2]) for name in after
                                                     if any(name.startswith(w + ".") for w in LINEAR)))
        self.assertTrue(json.loads(self.read("out/qem.json"))["complete"])

    def test_the_index_names_the_model(self):
        self.quantize("a")
        self.quantize("b", source="model/model.safetensors.index.json")
        self.assertEqual(self.contents("a"), self.contents("b"))

    def test_one_file_without_an_index(self):
        os.mkdir(self.path("single"))
        shutil.copy(self.path("model/" + shard(1)), self.path("single/model.safetensors"))
        report = self.quantize(source="single")
        self.assertEqual(report["tensor"], "layers.0.q.weight")
        self.assertEqual(sorted(os.listdir(self.path("out"))), ["model.safetensors", "qem.json"])

    def test_patterns(self):
        chosen = lambda *more: [t["tensor"] for t in self.quantize("never", "--dry-run", *more)["tensors"]]
        self.assertEqual(chosen("--exclude", "lm_head*"), LINEAR[:4])
        self.assertEqual(chosen("--include", "*.up.weight", "--include", "*embed*"),
                         ["model.embed_tokens.weight", "layers.0.up.weight", "layers.1.up.weight"])
        self.assertEqual(chosen("--include", "*.weight", "--exclude", "tiny*", "--exclude", "*1*"),
                         ["model.embed_tokens.weight", "layers.0.q.weight", "layers.0.up.weight", "lm_head.weight"])
        self.refused(1, "--include", "quantize", "model", "-o", "x", "--method", "pq", "--k", "4", "--include", "nothing*")
        self.refused(2, "--tensor", "quantize", "model", "-o", "x", "--method", "pq", "--k", "4", "--include", "*", "--tensor", "a")
        file = self.report("quantize", "model/" + shard(3), "-o", "x.safetensors", "--method", "pq", "--k", "4", "--dry-run",
                           "--exclude", "lm_head*")
        self.assertEqual([t["tensor"] for t in file["tensors"]], ["layers.1.up.weight", "tiny.weight"])

    def test_budget(self):
        """All tensors together keep it; a price for all bits leaves less relative error than the same rate for each."""
        for bits in (2.5, 3.7, 6):
            options = ("--method", "pq", "--dim", "2", "--codebook", "f16", "--bits", bits, "--standardize", "row")
            spread = self.report("quantize", "model", "-o", f"s{bits}", *options)
            same = self.report("quantize", "model", "-o", f"u{bits}", *options, "--uniform")
            self.assertLessEqual(spread["bits_per_element"], bits)
            for tensor in same["tensors"]:
                self.assertLessEqual(tensor["bits_per_element"], bits)
            cost = lambda report: sum(t["nmse"] * t["rows"] * t["cols"] for t in report["tensors"])
            self.assertLess(cost(spread), cost(same) * 1.0001)
            self.assertGreater(len({round(t["bits_per_element"], 2) for t in spread["tensors"]}), 1)
        self.refused(1, "too few", "quantize", "model", "-o", "x", "--method", "nf", "--bits", "1.5")

    def test_dry_run(self):
        plan = self.quantize("never", "--dry-run")
        made = self.quantize()
        self.assertFalse(os.path.exists(self.path("never")))
        self.assertEqual([t["stored_bytes"] for t in plan["tensors"]], [t["stored_bytes"] for t in made["tensors"]])
        auto = self.report("quantize", "model", "--method", "auto", "--bits", "4", "--dry-run")
        self.assertAlmostEqual(auto["bits_per_element"], 4, places=2)

    def test_importance(self):
        weights = {name: np.ones(64, np.float32) for name in LINEAR}
        weights["lm_head.weight"] = np.full(64, 1000, np.float32)
        weights["layers.1.up.weight"] = normal(96, 64, 3) ** 2
        write_safetensors(self.path("weights.safetensors"), weights)
        plain, weighted = (self.quantize(out, *more) for out, more in (("a", ()), ("b", ("--importance", "weights.safetensors"))))
        bits = lambda report: {t["tensor"]: t["bits_per_element"] for t in report["tensors"]}
        self.assertGreater(bits(weighted)["lm_head.weight"], bits(plain)["lm_head.weight"])
        self.assertLessEqual(weighted["bits_per_element"], 4.5)
        weights["layers.0.q.weight"] = np.zeros(64, np.float32)
        weights["layers.0.q.weight"][0] = 1
        write_safetensors(self.path("weights.safetensors"), weights)
        self.quantize("some", "--importance", "weights.safetensors")
        del weights["lm_head.weight"]
        write_safetensors(self.path("weights.safetensors"), weights)
        self.refused(1, "lm_head", "quantize", "model", "-o", "c", "--method", "pq", "--bits", "4", "--importance",
                     "weights.safetensors", "--dry-run")

    def test_bytes_do_not_depend_on_threads(self):
        self.quantize("a", "--threads", "1")
        self.quantize("b", "--threads", "3", "--isa", "scalar")
        self.assertEqual(self.contents("a"), self.contents("b"))

    def test_package(self):
        """Files open in the package `safetensors`, and decode by numpy as the format says."""
        if safetensors is None:
            self.skipTest("the Python package safetensors is not there")
        self.report("quantize", "model", "-o", "out", "--method", "pq", "--dim", "4", "--k", "16", "--include", "layers.1.up*")
        self.qem("dequantize", "out", "-o", "back")
        with safetensors.safe_open(self.path("out/" + shard(3)), "np") as file:
            text = json.loads(file.metadata()["qem.artifact.layers.1.up.weight"])
            codes, books = (file.get_tensor("layers.1.up.weight." + part) for part in ("codes", "codebook"))
            self.assertEqual(file.get_tensor("lm_head.weight").shape, (200, 64))
        self.assertEqual((text["rows"], text["cols"], books.shape), (96, 64, (16, 16, 4)))
        bits = np.unpackbits(codes, count=96 * 16 * 4, bitorder="little").reshape(96, 16, 4)
        decoded = books[np.arange(16), (bits << np.arange(4)).sum(2)].reshape(96, 64)
        with safetensors.safe_open(self.path("back/" + shard(3)), "np") as file:
            self.assertTrue((file.get_tensor("layers.1.up.weight") == decoded).all())


class Resume(Directory):
    def setUp(self):
        super().setUp()
        self.quantize("whole")
        self.whole = self.contents("whole")

    def cut(self, finished):
        """The directory of a run that was killed after some shards."""
        shutil.copytree(self.path("whole"), self.path("out"))
        for name in self.whole:
            if name not in finished + ["qem.json"]:
                os.remove(self.path("out/" + name))
        manifest = json.loads(self.whole["qem.json"])
        manifest["finished"] = finished
        del manifest["complete"]
        self.write_json("out/qem.json", manifest)

    def test_goes_on(self):
        self.cut([shard(1), shard(2)])
        self.write("out/.qem-12-34-0.tmp", b"half a shard")
        changed = os.stat(self.path("out/" + shard(1))).st_mtime_ns
        report = self.quantize()
        self.assertEqual(report["shards_kept"], 2)
        self.assertEqual(os.stat(self.path("out/" + shard(1))).st_mtime_ns, changed)
        self.assertEqual(self.contents("out"), self.whole)
        self.assertEqual([t["tensor"] for t in report["tensors"]], LINEAR)
        self.assertEqual([t["quantize_seconds"] is None for t in report["tensors"]], [True, True, True, False, False])
        self.assertEqual(self.quantize()["shards_kept"], 3)
        self.assertEqual(self.contents("out"), self.whole)

    def test_killed(self):
        command = [support.QEM, "quantize", "model", "-o", "out", "--method", "lloydmax", "--standardize", "row", "--bits", "4.5"]
        started = time.monotonic()
        self.quantize("again")
        duration, killed = time.monotonic() - started, 0
        for step in range(12):
            process = subprocess.Popen(command, cwd=self.dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(duration * (step % 6) / 5)
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        self.assertGreater(killed, 0)
        self.quantize()
        self.assertEqual(self.contents("out"), self.whole)

    def test_a_damaged_shard_is_made_again(self):
        for damaged in (shard(1), shard(2)):
            self.cut([shard(1), shard(2)])
            data = bytearray(self.read("out/" + damaged))
            data[-5] ^= 1
            self.write("out/" + damaged, bytes(data))
            done = self.run_qem("quantize", "model", "-o", "out", "--method", "lloydmax", "--standardize", "row", "--bits", "4.5")
            self.assertEqual(done.returncode, 0)
            self.assertIn(damaged, done.stderr.decode())
            self.assertEqual(self.contents("out"), self.whole)
            shutil.rmtree(self.path("out"))

    def test_another_run(self):
        base = ["quantize", "model", "-o", "whole", "--method", "lloydmax", "--standardize", "row"]
        self.refused(1, ["whole", "recipe"], *base, "--bits", "5")
        self.refused(1, "uniform", *base, "--bits", "4.5", "--uniform")
        self.refused(1, "exclude", *base, "--bits", "4.5", "--exclude", "x")
        os.utime(self.path("model/" + shard(2)))
        self.refused(1, "shards", *base, "--bits", "4.5")
        self.assertEqual(self.contents("whole"), self.whole)

    def test_a_shard_of_another_run(self):
        self.report("quantize", "model", "-o", "other", "--method", "lloydmax", "--standardize", "row", "--bits", "3")
        self.cut([shard(1), shard(2)])
        shutil.copy(self.path("other/" + shard(2)), self.path("out/" + shard(2)))
        done = self.run_qem("quantize", "model", "-o", "out", "--method", "lloydmax", "--standardize", "row", "--bits", "4.5")
        self.assertIn(shard(2), done.stderr.decode())
        self.assertEqual(self.contents("out"), self.whole)

    def test_auto_goes_on(self):
        options = ("--method", "auto", "--effort", "0", "--bits", "4.5", "--include", "*q.weight")
        self.report("quantize", "model", "-o", "a", *options)
        expected = self.contents("a")
        manifest = json.loads(expected["qem.json"])
        manifest["finished"] = [shard(1)]
        self.write_json("a/qem.json", manifest)
        self.assertEqual(self.report("quantize", "model", "-o", "a", *options)["shards_kept"], 1)
        self.assertEqual(self.contents("a"), expected)

    def test_other_weights(self):
        """A file of weights that changed is another run."""
        write_safetensors(self.path("w.safetensors"), {name: np.ones(64, np.float32) for name in LINEAR})
        options = ("--importance", "w.safetensors")
        self.quantize("b", *options)
        self.assertEqual(self.quantize("b", *options)["shards_kept"], 3)
        os.utime(self.path("w.safetensors"))
        self.refused(1, "importance", "quantize", "model", "-o", "b", "--method", "lloydmax", "--standardize", "row", "--bits", "4.5",
                     *options)

    def test_unfinished_is_no_model(self):
        self.cut([shard(1)])
        for command in (["dequantize", "out", "-o", "back"], ["inspect", "out"]):
            self.refused(1, "not finished", *command)
        self.write("out/qem.json", b'{"run": 3}')
        self.refused(1, "damaged", "quantize", "model", "-o", "out", "--method", "lloydmax", "--standardize", "row", "--bits", "4.5")

    def test_temporary_files_of_others(self):
        """A directory that is not ours is left as it is, temporary files too."""
        os.mkdir(self.path("busy"))
        self.write("busy/.qem-1-2-0.tmp", b"somebody writes here")
        self.write("busy/notes.txt", b"mine")
        for command in (["quantize", "model", "-o", "busy", "--method", "rtn", "--bits", "4.5"], ["dequantize", "whole", "-o", "busy"]):
            self.refused(1, "not empty", *command)
        self.assertEqual(sorted(os.listdir(self.path("busy"))), [".qem-1-2-0.tmp", "notes.txt"])

    def test_two_runs_at_once(self):
        import fcntl
        directory = os.open(self.path("whole"), os.O_RDONLY)
        fcntl.flock(directory, fcntl.LOCK_EX)
        self.refused(1, "another run", "quantize", "model", "-o", "whole", "--method", "lloydmax", "--standardize", "row", "--bits", "4.5")
        os.close(directory)


class Errors(Directory):
    def bad(self, words, *more):
        before = self.contents("model") if os.path.isdir(self.path("model")) else None
        self.refused(1, words, "quantize", "model", "-o", "out", "--method", "rtn", "--bits", "4.5", *more)
        if before is not None:
            self.assertEqual(self.contents("model"), before)

    def test_missing_shard(self):
        os.remove(self.path("model/" + shard(2)))
        self.bad(shard(2))

    def test_truncated_shard(self):
        self.write("model/" + shard(2), self.read("model/" + shard(2))[:-10])
        self.bad(shard(2))

    def test_index(self):
        index = json.loads(self.read("model/model.safetensors.index.json"))
        name = "model/model.safetensors.index.json"
        self.write_json(name, {"weight_map": dict(index["weight_map"], more=shard(1))})
        self.bad(["'more'", shard(1)])
        self.write_json(name, {"weight_map": dict(index["weight_map"], step="../x.safetensors")})
        self.bad("step")
        self.write_json(name, {"weight_map": index["weight_map"], "quantized_map": {"step": 5}})
        self.bad("step")
        self.write_json(name, {})
        self.bad("weight_map")
        self.write(name, b"{")
        self.bad("index.json")

    def test_tensor_in_two_shards(self):
        write_safetensors(self.path("model/" + shard(3)), dict(self.shards[2], step=np.arange(3, dtype=np.int64)))
        self.bad(["'step'", "two shards"])

    def test_output(self):
        os.mkdir(self.path("full"))
        self.write("full/notes.txt", b"mine")
        self.refused(1, "not empty", "quantize", "model", "-o", "full", "--method", "rtn", "--bits", "4.5")
        self.refused(1, "model itself", "quantize", "model", "-o", "model", "--method", "rtn", "--bits", "4.5")
        self.refused(2, "directory", "quantize", "model", "-o", "x.safetensors", "--method", "rtn", "--bits", "4.5")
        self.refused(1, "missing", "quantize", "model", "-o", "missing/out", "--method", "rtn", "--bits", "4.5")
        os.mkdir(self.path("empty"))
        self.refused(2, "--k", "quantize", "model", "--method", "auto", "--k", "4", "--dry-run")
        self.refused(1, "no .safetensors", "quantize", "empty", "-o", "out", "--method", "rtn", "--bits", "4.5")

    def test_bad_data_keeps_finished_shards(self):
        tensors = dict(self.shards[2])
        tensors["lm_head.weight"] = np.full((200, 64), np.nan, np.float32)
        write_safetensors(self.path("model/" + shard(3)), tensors)
        done = self.run_qem("quantize", "model", "-o", "out", "--method", "lloydmax", "--bits", "4.5", "--uniform")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"lm_head.weight", done.stderr)
        self.assertEqual(sorted(os.listdir(self.path("out"))), [shard(1), shard(2), "qem.json"])

    def test_full_disk(self):
        def no_room():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
        done = self.run_qem("quantize", "model", "-o", "out", "--method", "rtn", "--bits", "8.5", "--uniform", preexec_fn=no_room)
        self.assertEqual(done.returncode, 1)
        self.assertIn(shard(1), done.stderr.decode()) # the embedding alone is 51200 bytes
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertEqual(self.report("quantize", "model", "-o", "out", "--method", "rtn", "--bits", "8.5", "--uniform")["shards"], 3)


class Dequantize(Directory):
    def test_back(self):
        self.quantize()
        report = self.report("dequantize", "out", "-o", "back")
        self.assertEqual([t["tensor"] for t in report["tensors"]], LINEAR)
        before, back = self.tensors("model"), self.tensors("back")
        self.assertEqual({name: t[:2] for name, t in before.items()}, {name: t[:2] for name, t in back.items()})
        for name in before:
            if name not in LINEAR:
                self.assertEqual(before[name], back[name])
        original, decoded = (array_of(t["layers.1.up.weight"]) for t in (before, back))
        self.assertLess(((original - decoded) ** 2).mean(), 0.02)
        index = json.loads(self.read("back/model.safetensors.index.json"))
        self.assertEqual(index["weight_map"], json.loads(self.read("model/model.safetensors.index.json"))["weight_map"])
        self.assertEqual(self.read("back/config.json"), self.read("model/config.json"))
        self.assertFalse(os.path.exists(self.path("back/qem.json")))
        self.qem("dequantize", "out", "-o", "wide", "--dtype", "f32")
        self.assertEqual(self.tensors("wide")["layers.0.up.weight"][0], "F32")

    def test_errors(self):
        self.quantize()
        self.refused(1, "not empty", "dequantize", "out", "-o", "model")
        self.refused(2, "directory", "dequantize", "out", "-o", "x.safetensors")
        self.refused(1, "no quantized", "dequantize", "model", "-o", "x")

    def test_inspect(self):
        self.quantize()
        report = self.report("inspect", "out")
        found = {t["tensor"]: t for t in report["tensors"]}
        self.assertEqual(sorted(found), sorted(self.tensors("model")))
        self.assertEqual(found["lm_head.weight"]["shard"], shard(3))
        self.assertEqual(report["shards"], 3)
        self.assertIn("lm_head.weight", self.qem("inspect", "out"))


if __name__ == "__main__":
    support.main()
