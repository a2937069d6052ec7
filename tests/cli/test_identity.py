"""The same bytes for any number of threads and any instruction set."""
import support
from support import CliTest, METHODS, normal


class Identity(CliTest):
    def setUp(self):
        super().setUp()
        self.save("x.npy", normal(301, 22, 1))

    def bytes_of(self, *options):
        self.qem("quantize", "x.npy", "-o", "a.safetensors", *options)
        return self.read("a.safetensors")

    def settings(self):
        return [["--threads", t, "--isa", isa] for isa in self.isa_levels() for t in (1, 2)]

    def test_quantize(self):
        for method in METHODS:
            for more in [["--ratio", "4"], ["--k", "16", "--codebook", "f16", "--seed", "3"]]:
                wanted = self.bytes_of("--method", method, *more)
                for setting in self.settings():
                    got = self.bytes_of("--method", method, *more, *setting)
                    self.assertEqual(got, wanted, (method, more, setting))

    def test_blocks(self):
        for more in [["--method", "pq", "--dim", "7", "--k", "11"], ["--method", "qet", "--levels", "3", "--k", "9"],
                     ["--method", "hyperchr", "--intervals", "3", "--k", "100"],
                     ["--method", "vq", "--dim", "5", "--k", "300", "--restarts", "2"]]:
            wanted = self.bytes_of(*more)
            for setting in self.settings():
                self.assertEqual(self.bytes_of(*more, *setting), wanted, (more, setting))

    def test_seed_decides(self):
        base = ["--method", "pq", "--ratio", "4"]
        self.assertEqual(self.bytes_of(*base), self.bytes_of(*base, "--seed", "0"))
        self.assertNotEqual(self.bytes_of(*base), self.bytes_of(*base, "--seed", "1"))

    def test_dequantize_and_evaluate(self):
        for method in METHODS:
            self.bytes_of("--method", method, "--ratio", "4")
            self.qem("dequantize", "a.safetensors", "-o", "wanted.npy")
            errors = [self.report("evaluate", "x.npy", "a.safetensors")[key] for key in support.ERRORS]
            for setting in self.settings():
                self.qem("dequantize", "a.safetensors", "-o", "back.npy", *setting)
                self.assertEqual(self.read("back.npy"), self.read("wanted.npy"), (method, setting))
                report = self.report("evaluate", "x.npy", "a.safetensors", *setting)
                self.assertEqual([report[key] for key in support.ERRORS], errors, (method, setting))


if __name__ == "__main__":
    support.main()
