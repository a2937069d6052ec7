"""The command line on a GPU, or on the kernels' runner: the CPU's bytes, and both devices beside each other."""
import json
import os
import subprocess
import unittest

import support
from support import CliTest, normal

HOST = os.environ.get("QEM_HOST", "")


@unittest.skipUnless(os.path.exists(HOST), "the command line on the kernels' runner was not built")
class Devices(CliTest):
    def host(self, *arguments):
        done = subprocess.run([HOST, *map(str, arguments)], cwd=self.dir, capture_output=True, timeout=300, stdin=subprocess.DEVNULL)
        self.assertEqual((done.returncode, done.stderr.decode()), (0, ""), arguments)
        return done.stdout.decode()

    def setUp(self):
        super().setUp()
        self.save("x.npy", normal(40, 22, 1))

    def test_compare(self):
        methods = ["rtn", "lloydmax", "vq", "pq", "hyperchr", "qet", "grid", "nf", "opq", "lopq"]
        fit = ("--ratios", "4,6", "--methods", ",".join(methods), "--iterations", "2", "--dim", "2", "--codebook", "f16")
        report = json.loads(self.host("compare", "x.npy", "--devices", "cpu,cuda", "--json", *fit))
        self.assertEqual(len(report["results"]), 2 * 2 * len(methods))
        feasible = 0
        for cpu, cuda in zip(report["results"][::2], report["results"][1::2]):
            self.assertEqual((cpu["device"], cuda["device"]), ("cpu", "cuda"))
            self.assertEqual((cpu["method"], cpu["theta"], cpu["status"]), (cuda["method"], cuda["theta"], cuda["status"]))
            if cpu["status"] != "ok":
                continue
            feasible += 1
            self.assertTrue(cuda["codes_equal"], cuda)
            self.assertEqual(cuda["max_device_difference"], 0)
            self.assertNotIn("codes_equal", cpu)
            for key in support.ERRORS + ["stored_bytes", "k", "parts"]:
                self.assertEqual(cpu[key], cuda[key])
            self.assertGreater(cuda["quantize_seconds"], 0)
        self.assertGreaterEqual(feasible, len(methods))
        table = self.host("compare", "x.npy", "--devices", "cpu,cuda", "--methods", "pq", "--ratios", "4", "--csv", "t.csv")
        self.assertIn("largest difference", table)
        self.assertIn("equal", table)
        self.assertIn(",cuda,", self.read("t.csv").decode())

    def test_files(self):
        for method in ["qet", "hyperchr"]:
            for device in ["cpu", "cuda"]:
                self.host("quantize", "x.npy", "-o", device + ".safetensors", "--method", method, "--k", "8", "--device", device)
                self.host("dequantize", "cpu.safetensors", "-o", device + ".npy", "--device", device)
            self.assertEqual(self.read("cpu.safetensors"), self.read("cuda.safetensors"))
            self.assertEqual(self.read("cpu.npy"), self.read("cuda.npy"))


class NoDevice(CliTest):
    def test_an_error_never_the_cpu(self):
        self.save("x.npy", normal(8, 8, 1))
        if self.report("device")["gpus"]:
            self.skipTest("there is a GPU")
        self.refused(1, "cuda", "compare", "x.npy", "--devices", "cpu,cuda")
        self.refused(1, "cuda", "quantize", "x.npy", "-o", "y.safetensors", "--method", "rtn", "--bits", "8", "--device", "cuda")


if __name__ == "__main__":
    support.main()
