"""Every block through the command line: quantize -> inspect -> dequantize -> evaluate, and the codebooks used again."""
import json
import math
import os
import subprocess
import sys

import support
from support import CliTest, ERRORS, np, read_safetensors

DECODER = os.path.join(support.SOURCE, "tests", "io", "decode_reference.py")

# Words that make an artifact of 120 x 48, the kinds of its stages, and parts that it must have beside its codes.
CASES = {
    "grid": ("--method grid --grid block:32 --bits 5", ["table"], ["scale", "mean"]),
    "grid of rows": ("--method grid --grid row --params u8 --k 16", ["table"], ["scale", "mean"]),
    "nf": ("--method nf --grid block:32 --k 16", ["table"], ["scale"]),
    "nf of columns": ("--method nf --grid column --params f32 --bits 4", ["table"], ["scale"]),
    "lloydmax": ("--method lloydmax --standardize column+block:16 --params u6 --bits 4.5", ["shared"],
                 ["codebook", "scale"]),
    "mixed": ("--method vq --dim 2 --standardize both --params u8 --codebook u8 --mixed on --bits 3.3", ["shared"] * 2,
              ["codebook", "codebook_scale", "scale"]),
    "outliers": ("--method pq --outliers 0.001 --k 8", ["per_group"], ["codebook", "outlier_index", "outlier_value"]),
    "outliers beyond": ("--method rtn --outliers sigma:2.5 --bits 6", ["uniform"], ["outlier_index", "outlier_value"]),
    "opq": ("--method opq --bits 30 --rotation-start pca", ["per_group"], ["codebook", "rotation"]),
    "lopq": ("--method lopq --cells 3 --bits 60 --codebook f16", ["per_group"], ["codebook", "rotation", "coarse"]),
    "residual": ("--method pq --residual qet:0.3 --codebook u6 --bits 7", ["per_group"] * 2,
                 ["codebook", "codebook_scale", "swap_map"]),
    "hyperchr": ("--method hyperchr --intervals 2 --allocation variance --standardize column --means always --bits 5",
                 ["shared"], ["codebook", "scale", "mean"]),
    "widths": ("--method pq --allocation variance --codebook u8 --bits 8", ["per_group"], ["codebook", "group_bits"]),
    "widths of opq": ("--method opq --allocation variance --standardize row --bits 30", ["per_group"],
                      ["rotation", "group_bits", "scale"]),
    "all": ("--method lloydmax --standardize column+block:8 --params u6 --outliers 0.01 --residual vq:0.3 --mixed on "
            "--bits 6.1", None, ["codebook", "scale", "outlier_index", "outlier_value"]),
    "auto": ("--method auto --effort 0 --bits 4", None, []),
}


def cases():
    return [(name, words.split(), kinds, parts) for name, (words, kinds, parts) in CASES.items()]


def columns(rows=120, cols=48, seed=5):
    """Columns of different scale and mean that depend on each other, some elements far out."""
    draw = np.random.default_rng(seed)
    data = draw.standard_normal((rows, cols)) + 0.7 * draw.standard_normal((rows, 4)) @ draw.standard_normal((4, cols))
    data = data * np.exp(0.5 * draw.standard_normal(cols)) + draw.standard_normal(cols)
    data[draw.random((rows, cols)) < 0.005] *= 12
    return data.astype(np.float32)


class Blocks(CliTest):
    def setUp(self):
        super().setUp()
        self.data = columns()
        self.save("x.npy", self.data)

    def make(self, words, name="a.safetensors"):
        return self.report("quantize", "x.npy", "-o", name, *words)

    def mse_of(self, name, data=None):
        data = self.data if data is None else data
        return float(((data.astype(np.float64) - np.load(self.path(name)).astype(np.float64)) ** 2).mean())

    def check_parts(self, made, parts):
        tensors, _ = read_safetensors(self.path("a.safetensors"))
        self.assertEqual(sum(len(data) for _, _, data in tensors.values()), made["stored_bytes"])
        self.assertEqual(sum(made["parts"].values()), made["stored_bytes"])
        if made["recipe"]["bits"]:
            self.assertLessEqual(8 * made["stored_bytes"], self.data.size * made["recipe"]["bits"])
        for part in parts:
            self.assertGreater(made["parts"][part], 0, part)

    def check_decoded(self, made):
        """The errors are the same from fit, artifact, decoded matrix and numpy; a decoder of the format decodes the same."""
        self.qem("dequantize", "a.safetensors", "-o", "back.npy")
        self.assertTrue(math.isclose(self.mse_of("back.npy"), made["mse"], rel_tol=1e-9))
        for other in ["a.safetensors", "back.npy"]:
            found = self.report("evaluate", "x.npy", other)
            self.assertEqual([found[key] for key in ERRORS], [made[key] for key in ERRORS], other)
        subprocess.run([sys.executable, DECODER, self.path("a.safetensors"), self.path("reference.npy")], check=True,
                       stdin=subprocess.DEVNULL, timeout=120)
        self.assertEqual(np.load(self.path("back.npy")).tobytes(), np.load(self.path("reference.npy")).tobytes())

    def test_there_and_back(self):
        for name, words, kinds, parts in cases():
            with self.subTest(name):
                made = self.make(words)
                self.assertLess(made["nmse"], 0.25)
                self.check_parts(made, parts)
                shown = self.report("inspect", "a.safetensors")
                self.assertEqual([shown[key] for key in ["recipe", "stored_bytes", "parts", "mse"]],
                                 [made[key] for key in ["recipe", "stored_bytes", "parts", "mse"]])
                if kinds:
                    self.assertEqual([stage["kind"] for stage in shown["stages"]], kinds)
                self.qem("inspect", "a.safetensors")
                self.check_decoded(made)

    def test_the_plan_is_what_is_stored(self):
        for name, words, _, _ in cases():
            if "--residual" in words or "auto" in words:
                continue  # residual layers are planned by their shape; auto's search ends in a plan of its own
            with self.subTest(name):
                made, plan = self.make(words), self.report("quantize", "x.npy", "--dry-run", *words)
                self.assertEqual([plan[key] for key in ["k", "stored_bytes", "parts"]],
                                 [made[key] for key in ["k", "stored_bytes", "parts"]])

    def test_the_recipe_makes_the_same_file_again(self):
        for name, words, _, _ in cases():
            with self.subTest(name):
                made = self.make(words)
                self.write("r.json", json.dumps(self.report("inspect", "a.safetensors")["recipe"]).encode())
                again = self.report("quantize", "x.npy", "-o", "b.safetensors", "--recipe", "r.json")
                self.assertEqual([again[key] for key in ["recipe", "mse"]], [made[key] for key in ["recipe", "mse"]])
                self.assertEqual(*[read_safetensors(self.path(file))[0] for file in ["a.safetensors", "b.safetensors"]])

    def test_threads_and_instruction_sets_change_nothing(self):
        for name, words, _, _ in cases():
            with self.subTest(name):
                files = set()
                for more in ["--threads 1 --isa scalar", "--threads 3", "--threads 2 --isa scalar"]:
                    self.make(words + more.split())
                    files.add(self.read("a.safetensors"))
                self.assertEqual(len(files), 1)

    def test_codebooks_used_again(self):
        """The rows of the fit come out as well, though scales of blocks may settle elsewhere, and new rows not much worse."""
        self.save("more.npy", columns()[::-3])
        for name, words, _, _ in cases():
            with self.subTest(name):
                made = self.make(words)
                again = self.report("quantize", "x.npy", "-o", "b.safetensors", "--reuse", "a.safetensors")
                loss = 1.1 if "--mixed" in words else 1.02  # of mixed rates the codebook of the first rows serves all
                self.assertLessEqual(again["mse"], loss * made["mse"])
                self.qem("dequantize", "b.safetensors", "-o", "back.npy")
                self.assertTrue(math.isclose(self.mse_of("back.npy"), again["mse"], rel_tol=1e-9))
                more = self.report("quantize", "more.npy", "-o", "c.safetensors", "--reuse", "a.safetensors")
                self.assertEqual(more["rows"], 40)
                self.qem("dequantize", "c.safetensors", "-o", "back.npy")
                self.assertTrue(math.isclose(self.mse_of("back.npy", columns()[::-3]), more["mse"], rel_tol=1e-9))
                self.assertLess(more["nmse"], 0.3)

    def test_importance(self):
        """What weighs more comes out better, what weighs nothing worse; weights are not stored."""
        weight = np.full((1, 48), 1, np.float32)
        weight[0, ::3], weight[0, 1::3] = 100, 0
        self.save("w.npy", weight)
        self.save("each.npy", np.repeat(weight, 120, 0))
        for text in ["vq --dim 2 --k 24", "lloydmax --k 7 --standardize row", "hyperchr --intervals 1 --k 30",
                     "qet --codebook u6 --k 9"]:
            with self.subTest(text):
                words = ["--method", *text.split()]
                errors = {}
                for file in [None, "w.npy", "each.npy"]:
                    made = self.make(words + (["--importance", file] if file else []))
                    self.qem("dequantize", "a.safetensors", "-o", "back.npy")
                    square = (self.data.astype(np.float64) - np.load(self.path("back.npy"))) ** 2
                    self.assertTrue(math.isclose(square.mean(), made["mse"], rel_tol=1e-9))
                    errors[file] = (square * weight).mean()
                self.assertLess(errors["w.npy"], errors[None])
                self.assertEqual(errors["w.npy"], errors["each.npy"])

    def test_importance_that_cannot_be(self):
        for name, shape, value in [("good", (1, 48), 1), ("short", (1, 47), 1), ("rows", (2, 48), 1), ("negative", (1, 48), -1),
                                   ("none", (1, 48), 0)]:
            self.save(name + ".npy", np.full(shape, value, np.float32))
        for method, file, words in [("vq", "short", ["importance", "1 x 48"]), ("vq", "rows", ["importance", "120 x 48"]),
                                    ("vq", "negative", ["importance", "negative"]), ("vq", "none", ["importance", "all 0"]),
                                    ("opq", "good", ["importance", "opq"]), ("vq", "gone", "gone.npy")]:
            self.refused(1, words, "quantize", "x.npy", "-o", "b.safetensors", "--method", method, "--k", "4", "--importance",
                         file + ".npy")


if __name__ == "__main__":
    support.main()
