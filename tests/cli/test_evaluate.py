"""qem evaluate reports the errors that qem quantize reported, on the artifact and on the decoded matrix."""
import support
from support import CliTest, ERRORS, METHODS, normal


class Evaluate(CliTest):
    def test_same_errors(self):
        for shape in [(64, 16), (31, 7), (1, 9), (12, 1)]:
            self.save("x.npy", normal(*shape, 1))
            for method in METHODS:
                k = 1 if shape[0] == 1 else 2
                made = self.report("quantize", "x.npy", "-o", "a.safetensors", "--method", method, "--k", k)
                self.qem("dequantize", "a.safetensors", "-o", "back.npy")
                by_artifact = self.report("evaluate", "x.npy", "a.safetensors")
                by_matrix = self.report("evaluate", "x.npy", "back.npy")
                self.assert_keys(by_artifact)
                self.assert_keys(by_matrix)
                for key in ERRORS + ["zeros"]:
                    self.assertEqual(by_artifact[key], made[key], (shape, method, key))
                    self.assertEqual(by_matrix[key], made[key], (shape, method, key))
                self.assertEqual(by_artifact["stored_bytes"], made["stored_bytes"])
                self.assertIsNone(by_matrix["stored_bytes"])

    def test_text(self):
        self.save("x.npy", normal(8, 8, 2))
        self.qem("quantize", "x.npy", "-o", "a.safetensors", "--method", "pq", "--k", "4")
        self.assertIn("MSE", self.qem("evaluate", "x.npy", "a.safetensors"))

    def test_wrong_shape(self):
        self.save("x.npy", normal(8, 8, 3))
        self.save("y.npy", normal(8, 9, 3))
        self.qem("quantize", "x.npy", "-o", "a.safetensors", "--method", "pq", "--k", "4")
        self.refused(1, ["8 x 8", "8 x 9"], "evaluate", "y.npy", "a.safetensors")
        self.refused(1, ["8 x 8", "8 x 9"], "evaluate", "y.npy", "x.npy")
        self.refused(1, "gone.npy", "evaluate", "x.npy", "gone.npy")

    def test_identical(self):
        self.save("x.npy", normal(8, 8, 4))
        report = self.report("evaluate", "x.npy", "x.npy")
        self.assertEqual([report[key] for key in ERRORS], [0, 0, 0, 0, 0])


if __name__ == "__main__":
    support.main()
