"""Models: many tensors in one safetensors file."""
import support
from support import CliTest, array_of, bf16_bits, normal, np, read_safetensors, write_safetensors


class Model(CliTest):
    def setUp(self):
        super().setUp()
        self.wide = normal(48, 16, 1)
        self.half = normal(32, 8, 2).astype(np.float16)
        self.brain = normal(40, 8, 3)
        self.tensors = {
            "layer.0.weight": self.wide,
            "layer.0.bias": normal(1, 16, 4)[0],
            "layer.1.weight": self.half,
            "layer.2.weight": ("BF16", bf16_bits(self.brain)),
            "ids": np.arange(12, dtype=np.int64).reshape(3, 4),
            "mask": np.array([[True, False]]),
            "scalar": np.array(2.5, np.float32),
            "empty": np.zeros((0, 4), np.float32),
        }
        write_safetensors(self.path("model.safetensors"), self.tensors)
        self.quantized = ["layer.0.weight", "layer.1.weight", "layer.2.weight"]
        self.original, _ = read_safetensors(self.path("model.safetensors"))

    def quantize(self, source="model.safetensors", out="small.safetensors", *more):
        return self.report("quantize", source, "-o", out, "--method", "pq", "--k", "8", *more)

    def test_all_matrices(self):
        report = self.quantize()
        self.assertEqual([t["tensor"] for t in report["tensors"]], self.quantized)
        for tensor in report["tensors"]:
            self.assert_keys(tensor)
        self.assertEqual([t["source_dtype"] for t in report["tensors"]], ["f32", "f16", "bf16"])
        self.assertEqual(report["stored_bytes"], sum(t["stored_bytes"] for t in report["tensors"]))
        stored, _ = read_safetensors(self.path("small.safetensors"))
        for name in self.tensors:
            if name in self.quantized:
                self.assertNotIn(name, stored)
                self.assertIn(name + ".codes", stored)
            else:
                self.assertEqual(stored[name], self.original[name])
        text = self.qem("quantize", "model.safetensors", "-o", "t.safetensors", "--method", "pq", "--k", "8")
        self.assertIn("total: 3 tensors", text)

    def test_dry_run(self):
        report = self.quantize("model.safetensors", "no.safetensors", "--dry-run")
        self.assertEqual(len(report["tensors"]), 3)
        self.assertRaises(FileNotFoundError, self.read, "no.safetensors")

    def test_one_tensor_after_the_other(self):
        report = self.quantize("model.safetensors", "one.safetensors", "--tensor", "layer.1.weight")
        self.assertEqual((report["tensor"], report["rows"]), ("layer.1.weight", 32))
        stored, _ = read_safetensors(self.path("one.safetensors"))
        self.assertEqual(stored["layer.0.weight"], self.original["layer.0.weight"])
        self.quantize("one.safetensors", "all.safetensors")
        self.quantize()
        step, _ = read_safetensors(self.path("all.safetensors"))
        once, _ = read_safetensors(self.path("small.safetensors"))
        self.assertEqual(step, once)
        self.refused(1, "already", "quantize", "one.safetensors", "-o", "x.safetensors", "--method", "pq", "--k", "8",
                     "--tensor", "layer.1.weight")
        self.refused(1, "nothere", "quantize", "one.safetensors", "-o", "x.safetensors", "--method", "pq", "--k", "8",
                     "--tensor", "nothere")
        self.refused(1, "ids", "quantize", "one.safetensors", "-o", "x.safetensors", "--method", "pq", "--k", "8",
                     "--tensor", "ids")
        self.refused(1, "no 2-D", "quantize", "small.safetensors", "-o", "x.safetensors", "--method", "pq", "--k", "8")

    def test_in_place(self):
        self.quantize()
        expected = self.read("small.safetensors")
        self.quantize("model.safetensors", "model.safetensors")
        self.assertEqual(self.read("model.safetensors"), expected)

    def test_failure_leaves_the_input_alone(self):
        before = self.read("model.safetensors")
        self.refused(1, "layer", "quantize", "model.safetensors", "-o", "model.safetensors", "--method", "pq",
                     "--ratio", "5000", "--uniform")
        self.refused(1, "too few", "quantize", "model.safetensors", "-o", "model.safetensors", "--method", "pq",
                     "--ratio", "5000")
        self.assertEqual(self.read("model.safetensors"), before)

    def test_name_clash(self):
        write_safetensors(self.path("clash.safetensors"), {"a": self.wide, "a.codes": np.zeros(3, np.float32)})
        self.refused(1, "a.codes", "quantize", "clash.safetensors", "-o", "x.safetensors", "--method", "pq", "--k", "4")

    def test_dequantize_all(self):
        self.quantize()
        report = self.report("dequantize", "small.safetensors", "-o", "back.safetensors")
        self.assertEqual([t["tensor"] for t in report["tensors"]], self.quantized)
        back, _ = read_safetensors(self.path("back.safetensors"))
        self.assertEqual(sorted(back), sorted(self.tensors))
        for name in self.tensors:
            if name in self.quantized:
                self.assertEqual((back[name][0], back[name][1]), ("F32", self.original[name][1]))
            else:
                self.assertEqual(back[name], self.original[name])
        self.qem("dequantize", "small.safetensors", "-o", "one.npy", "--tensor", "layer.0.weight")
        self.assertTrue((np.load(self.path("one.npy")) == array_of(back["layer.0.weight"])).all())

    def test_dequantize_one(self):
        self.quantize()
        self.qem("dequantize", "small.safetensors", "-o", "one.safetensors", "--tensor", "layer.1.weight", "--dtype",
                 "f16")
        one, _ = read_safetensors(self.path("one.safetensors"))
        self.assertEqual([(name, t[0], t[1]) for name, t in one.items()], [("layer.1.weight", "F16", [32, 8])])
        self.refused(1, "--tensor", "dequantize", "small.safetensors", "-o", "one.npy")
        self.refused(1, "'ids'", "dequantize", "small.safetensors", "-o", "one.npy", "--tensor", "ids")
        self.refused(1, "--rows", "dequantize", "small.safetensors", "-o", "b.safetensors", "--rows", "0:2")

    def test_evaluate(self):
        made = {t["tensor"]: t for t in self.quantize()["tensors"]}
        self.qem("dequantize", "small.safetensors", "-o", "back.safetensors")
        for second in ["small.safetensors", "back.safetensors"]:
            for t in self.report("evaluate", "model.safetensors", second)["tensors"]:
                self.assertEqual([t[key] for key in support.ERRORS], [made[t["tensor"]][key] for key in support.ERRORS])
            one = self.report("evaluate", "model.safetensors", second, "--tensor", "layer.2.weight")
            self.assertEqual(one["mse"], made["layer.2.weight"]["mse"])
        self.save("wide.npy", self.wide)
        one = self.report("evaluate", "wide.npy", "small.safetensors", "--tensor", "layer.0.weight")
        self.assertEqual(one["mse"], made["layer.0.weight"]["mse"])
        self.refused(1, "nothere", "evaluate", "model.safetensors", "small.safetensors", "--tensor", "nothere")

    def test_inspect(self):
        self.quantize()
        report = self.report("inspect", "small.safetensors")
        found = {t["tensor"]: t for t in report["tensors"]}
        self.assertEqual(sorted(found), sorted(self.tensors))
        for name, tensor in found.items():
            self.assert_keys(tensor)
            self.assertEqual(tensor["quantized"], name in self.quantized)
            self.assertEqual(tensor["method"], "pq" if name in self.quantized else None)
        self.assertEqual(found["ids"]["shape"], [3, 4])
        self.assertIn("ids: 3 x 4 i64", self.qem("inspect", "small.safetensors"))
        plain = self.report("inspect", "model.safetensors")
        self.assertEqual(len(plain["tensors"]), len(self.tensors))


if __name__ == "__main__":
    support.main()
