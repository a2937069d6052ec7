"""Recipes as JSON: --recipe reads what --json and the metadata of artifacts hold, and the command line overrides it."""
import json

import support
from support import CliTest, METHODS, normal, read_safetensors

# Every block that has a field of its own in JSON: a method that takes it, options, what they become.
BLOCKS = [
    ("hyperchr", ["--allocation", "variance"], {"allocation": "variance"}),
    ("pq", ["--allocation", "variance"], {"allocation": "variance"}),
    ("grid", ["--grid", "row"], {"grid": "row"}),
    ("nf", ["--grid", "block:6"], {"grid": "block", "grid_block": 6}),
    ("lopq", ["--cells", "5"], {"cells": 5}),
    ("opq", ["--rotation-start", "pca"], {"rotation_start": "pca"}),
    ("pq", ["--codebook", "f16"], {"codebook": "f16"}),
    ("vq", ["--codebook", "u12"], {"codebook": "u12"}),
    ("pq", ["--outliers", "0.01"], {"outliers": 0.01}),
    ("pq", ["--outliers", "sigma:3.5"], {"outlier_sigma": 3.5}),
    ("pq", ["--standardize", "both"], {"standardize": "both"}),
    ("pq", ["--standardize", "column+block:6"], {"standardize": "column+block", "standardize_block": 6}),
    ("pq", ["--standardize", "row", "--params", "u6"], {"standardize": "row", "params": 6}),
    ("pq", ["--standardize", "row", "--params", "f32"], {"standardize": "row", "params": 32}),
    ("pq", ["--standardize", "column", "--means", "never"], {"standardize": "column", "means": "never"}),
    ("pq", ["--mixed", "on"], {"mixed": "on"}),
    ("pq", ["--residual", "rtn"], {"residual": {"method": "rtn"}}),
    ("pq", ["--residual", "vq:0.25"], {"residual": {"method": "vq"}, "share": 0.75}),
]


class Recipes(CliTest):
    def setUp(self):
        super().setUp()
        self.save("x.npy", normal(48, 12, 1))

    def recipe(self, content, name="r.json"):
        self.write(name, content if isinstance(content, bytes) else json.dumps(content).encode())
        return name

    def tensors(self, name):
        return read_safetensors(self.path(name))[0]

    def test_a_report_and_the_metadata_make_the_same_file_again(self):
        for method in METHODS:
            words = ["--method", method, "--ratio", "3", "--codebook", "f16", "--iterations", "7", "--restarts", "2",
                     "--seed", "9"]
            report = self.report("quantize", "x.npy", "-o", "a.safetensors", *words)
            text = json.loads(read_safetensors(self.path("a.safetensors"))[1]["qem.artifact.x"])
            self.recipe(report["recipe"], "report.json")
            self.recipe({**text["recipe"], "method": text["method"], "seed": text["seed"]}, "metadata.json")
            for name in ["report.json", "metadata.json"]:
                again = self.report("quantize", "x.npy", "-o", "b.safetensors", "--recipe", name)
                self.assertEqual(again["recipe"], report["recipe"], (method, name))
                self.assertEqual(self.tensors("b.safetensors"), self.tensors("a.safetensors"), (method, name))

    def test_options_override_the_file_wherever_they_stand(self):
        self.recipe({"method": "pq", "ratio": 4, "dim": 2, "iterations": 3, "seed": 5, "residual": None, "importance": None})
        base = ["quantize", "x.npy", "--dry-run"]
        plain = self.report(*base, "--recipe", "r.json")
        self.assertEqual([plain["recipe"][key] for key in ["method", "ratio", "bits", "k", "dim", "iterations", "seed"]],
                         ["pq", 4, None, None, 2, 3, 5])
        for words in [["--dim", "3", "--recipe", "r.json", "--seed", "6"], ["--recipe=r.json", "--seed=6", "--dim=3"]]:
            recipe = self.report(*base, *words)["recipe"]
            self.assertEqual([recipe[key] for key in ["dim", "iterations", "seed"]], [3, 3, 6], words)
        recipe = self.report(*base, "--bits", "8", "--recipe", "r.json", "--method", "vq")["recipe"]
        self.assertEqual([recipe[key] for key in ["method", "ratio", "bits", "k"]], ["vq", None, 8, None])
        self.refused(2, "exclude", *base, "--recipe", "r.json", "--bits", "8", "--k", "2")

    def test_blocks_become_fields_and_come_back(self):
        for method, words, wanted in BLOCKS:
            with self.subTest(words=words):
                budget = ["--bits", "14"] if "--mixed" in words else ["--k", "4"]  # mixed rates need bits left over
                base = ["quantize", "x.npy", "--dry-run", "--method", method, *budget]
                recipe = self.report(*base, *words)["recipe"]
                for key, value in wanted.items():
                    found = {"method": recipe[key]["method"]} if key == "residual" else recipe[key]
                    self.assertEqual(found, value)
                self.recipe(wanted)
                self.assertEqual({**self.report(*base, "--recipe", "r.json")["recipe"], "residual": None},
                                 {**recipe, "residual": None})
        self.assertNotIn("standardize", self.report("quantize", "x.npy", "--dry-run", "--method", "pq", "--k", "4")["recipe"])

    def test_wrong_values_of_blocks_in_a_file(self):
        for _, _, wanted in BLOCKS:
            self.recipe(wanted)
            self.refused(2, "--method", "quantize", "x.npy", "--dry-run", "--recipe", "r.json", "--k", "4")  # all understood
            for key, value in wanted.items():
                self.recipe({**wanted, key: 10**10 if isinstance(value, (int, float)) else "nonsense"})
                self.refused(1, ["--recipe r.json", f"'{key}'"], "quantize", "x.npy", "--dry-run", "--recipe", "r.json")

    def test_residual_layers_take_the_options_that_they_know(self):
        words = ["quantize", "x.npy", "--dry-run", "--method", "hyperchr", "--intervals", "2", "--k", "8", "--dim", "2",
                 "--codebook", "f16", "--iterations", "5", "--residual", "qet:0.4", "--residual", "rtn:0.1"]
        recipe = self.report(*words)["recipe"]
        second, third = recipe["residual"], recipe["residual"]["residual"]
        self.assertEqual([recipe["share"], second["share"], "share" in third], [0.6, 0.9, False])
        self.assertEqual([second[key] for key in ["method", "intervals", "dim", "codebook", "iterations", "k"]],
                         ["qet", 0, 2, "f16", 5, 8])
        self.assertEqual([third[key] for key in ["method", "dim", "iterations"]], ["rtn", 0, 5])
        self.recipe(recipe)
        self.assertEqual(self.report("quantize", "x.npy", "--dry-run", "--recipe", "r.json")["recipe"], recipe)

    def test_a_budget_replaces_that_of_all_layers(self):
        base = ["quantize", "x.npy", "--dry-run", "--recipe", "r.json"]
        self.recipe({"method": "pq", "k": 8, "residual": {"method": "vq", "k": 6, "residual": {"method": "rtn", "k": 4}}})
        recipe = self.report(*base)["recipe"]
        self.assertEqual([recipe["k"], recipe["residual"]["k"], recipe["residual"]["residual"]["k"]], [8, 6, 4])
        recipe = self.report(*base, "--k", "2")["recipe"]
        self.assertEqual([recipe["k"], recipe["residual"]["k"], recipe["residual"]["residual"]["k"]], [2, 2, 2])
        recipe = self.report(*base, "--bits", "20")["recipe"]
        self.assertEqual([recipe["k"], recipe["bits"]], [None, 20])
        self.assertIsNone(recipe["residual"]["k"])
        self.recipe({"method": "pq", "bits": 20, "residual": {"method": "vq", "k": 6}})
        self.refused(1, "a k exactly where", *base)

    def test_inspect_lists_layers_and_stages(self):
        self.report("quantize", "x.npy", "-o", "a.safetensors", "--method", "qet", "--k", "4")
        shown = self.report("inspect", "a.safetensors")
        self.assertEqual(shown["layers"], [{"stage_first": 0, "stage_count": 1}])
        self.assertEqual([shown["stages"][0][key] for key in ["kind", "dim", "k", "levels"]], ["per_group", 4, 4, 1])
        text = self.qem("inspect", "a.safetensors")
        self.assertIn("layer 0  1 stage\n", text)
        self.assertIn("stage 0  per_group: dim 4, k 4, swap levels 1\n", text)

    def test_faults_name_file_and_key(self):
        words = ["quantize", "x.npy", "--dry-run", "--recipe"]
        self.refused(1, "none.json", *words, "none.json")
        for content, part in [(b"", "r.json"), (b"{\n  \"dim\": }", "line 2"), (b"[1]", "no object"), (b"{\"dim\":1,\"dim\":2}", "dup"),
                              ({"dims": 4}, "unknown key 'dims'"), ({"dim": -1}, "'dim' takes a whole number from 1 to 65535"),
                              ({"dim": 4.0}, "'dim'"), ({"dim": "4"}, "'dim'"), ({"ratio": "8"}, "'ratio'"), ({"ratio": -8}, "'ratio'"),
                              ({"k": 16777217}, "16777216"), ({"levels": 9}, "'levels'"), ({"restarts": 0}, "'restarts'"),
                              ({"params": 12}, "'params'"), ({"method": "best"}, "lopq"), ({"seed": -1}, "'seed'"),
                              ({"codebook": "u8", "codebook_bits": 3}, "'codebook_bits'"), ({"importance": [1]}, "--importance"),
                              ({"residual": "pq"}, "'residual' is no object"), ({"residual": {"dim": 2}}, "'method'"),
                              ({"residual": {"method": "pq", "seed": 1}}, "'seed'")]:
            self.recipe(content)
            self.refused(1, ["r.json", part], *words, "r.json")
        deep = {"method": "vq"}
        for _ in range(8):
            deep = {"method": "vq", "residual": deep}
        self.recipe(deep)
        self.refused(1, "more than 8 layers", *words, "r.json")


if __name__ == "__main__":
    support.main()
