"""examples/llama against a forward pass in numpy: types, shards, rotary layouts, codes, the cache, damaged models."""
import itertools
import json
import os
import subprocess
import unittest

import support
from support import CliTest, array_of, bf16_bits, np, read_safetensors, write_safetensors

LLAMA = os.environ.get("QEM_LLAMA", os.path.join(os.path.dirname(support.QEM), "llama"))
HOST = os.environ.get("QEM_LLAMA_HOST", "")  # with a GPU that is the kernels' runner
DATA = os.environ.get("QEM_TEST_DATA", "")
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 48,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 270,
          "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 100.0, "tie_word_embeddings": False}
PIECES = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)] + \
         ["ab", "\u2581ab", "a", "b", "\u2581", "\u00e9", "abb", "c", "bb", "ca", "\u2581c"]


def make_weights(config, seed=0):
    rng = np.random.default_rng(seed)
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    dim = config.get("head_dim", hidden // heads)
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for i in range(config["num_hidden_layers"]):
        for name, shape in {"self_attn.q_proj": (heads * dim, hidden), "self_attn.k_proj": (kv * dim, hidden),
                            "self_attn.v_proj": (kv * dim, hidden), "self_attn.o_proj": (hidden, heads * dim),
                            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
                            "mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,),
                            "post_attention_layernorm": (hidden,)}.items():
            shapes["model.layers.%d.%s.weight" % (i, name)] = shape
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (vocab, hidden)
    draw = lambda s: rng.normal(0, 1.6 / s[-1] ** 0.5, s) if len(s) == 2 else 1 + 0.2 * rng.normal(size=s)
    return {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}


def logits_of(config, weights, tokens):
    """The forward pass in double precision: tokens (T) -> logits (T x vocab)."""
    w = lambda name: np.asarray(weights[name + ".weight"], np.float64)
    norm = lambda x, g: x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * g
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    dim, count = config.get("head_dim", config["hidden_size"] // heads), len(tokens)
    angle = np.arange(count)[:, None] * config["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]

    def rotate(x):
        pair = (slice(0, None, 2), slice(1, None, 2)) if config.get("rope_interleaved") else \
            (slice(0, dim // 2), slice(dim // 2, None))
        a, b, out = x[..., pair[0]], x[..., pair[1]], np.empty_like(x)
        out[..., pair[0]], out[..., pair[1]] = a * cos - b * sin, a * sin + b * cos
        return out

    x = w("model.embed_tokens")[tokens]
    future = np.triu(np.full((count, count), -np.inf), 1)
    for i in range(config["num_hidden_layers"]):
        at = "model.layers.%d." % i
        h = norm(x, w(at + "input_layernorm"))
        q = rotate((h @ w(at + "self_attn.q_proj").T).reshape(count, heads, dim))
        k = rotate((h @ w(at + "self_attn.k_proj").T).reshape(count, kv, dim)).repeat(heads // kv, 1)
        v = (h @ w(at + "self_attn.v_proj").T).reshape(count, kv, dim).repeat(heads // kv, 1)
        s = np.einsum("thd,uhd->htu", q, k) / dim ** 0.5 + future
        p = np.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + np.einsum("htu,uhd->thd", p, v).reshape(count, -1) @ w(at + "self_attn.o_proj").T
        h = norm(x, w(at + "post_attention_layernorm"))
        gate = h @ w(at + "mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w(at + "mlp.up_proj").T)) @ w(at + "mlp.down_proj").T
    return norm(x, w("model.norm")) @ w("model.embed_tokens" if config.get("tie_word_embeddings") else "lm_head").T


def nll_of(config, weights, texts):
    """Mean over all tokens but the first of each text."""
    total = []
    for tokens in texts:
        z = logits_of(config, weights, tokens[:-1])
        top = z.max(-1)
        total.append(np.log(np.exp(z - top[:, None]).sum(-1)) + top - z[np.arange(len(z)), tokens[1:]])
    return float(np.mean(total))


class LlamaTest(CliTest):
    def setUp(self):
        super().setUp()
        self.texts = np.random.default_rng(7).integers(0, CONFIG["vocab_size"], (3, 50)).astype(np.int32)
        self.save("tokens.npy", self.texts)

    def model(self, name="model", tensors=None, **changes):
        """Writes a model's directory; returns its config and weights."""
        config = {**CONFIG, **changes}
        weights = make_weights(config)
        os.makedirs(self.path(name), exist_ok=True)
        self.write(name + "/config.json", json.dumps(config).encode())
        self.write(name + "/vocab.json", json.dumps(PIECES).encode())
        write_safetensors(self.path(name + "/model.safetensors"), tensors(weights) if tensors else weights)
        return config, weights

    def run_llama(self, *arguments, program=LLAMA):
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        return subprocess.run([program, *map(str, arguments)], cwd=self.dir, capture_output=True, timeout=120,
                              stdin=subprocess.DEVNULL, env=environment)

    def llama(self, *arguments):
        done = self.run_llama(*arguments)
        self.assertEqual((done.returncode, done.stderr.decode()), (0, ""), arguments)
        return done.stdout

    def perplexity(self, *arguments):
        """-> the nll printed, all lines"""
        text = self.llama("perplexity", *arguments).decode()
        line = [line for line in text.splitlines() if line.startswith("nll: ")][0].split()
        self.assertAlmostEqual(float(line[3]) / np.exp(float(line[1])), 1, 4)
        return float(line[1]), text

    def assert_close(self, value, expected, tolerance):
        self.assertLessEqual(abs(value - expected), tolerance * abs(expected), (value, expected))

    def refuse(self, words, *arguments, code=1):
        done = self.run_llama(*arguments)
        error = done.stderr.decode(errors="replace")
        self.assertEqual((done.returncode, done.stdout), (code, b""), (arguments, error))
        self.assertTrue(error.startswith("llama: ") and error.count("\n") == 1 and error.endswith("\n"), error)
        for word in words:
            self.assertIn(word, error)


class Exact(LlamaTest):
    def test_layouts(self):
        seen = set()
        for interleaved, kv, tied in itertools.product([False, True], [1, 2, 4], [False, True]):
            changes = {"rope_interleaved": interleaved, "num_key_value_heads": kv, "tie_word_embeddings": tied}
            config, weights = self.model(**changes)
            nll, _ = self.perplexity("model", "--tokens", "tokens.npy")
            self.assert_close(nll, nll_of(config, weights, self.texts), 1e-6)
            seen.add(nll)
        self.assertEqual(len(seen), 12)

    def test_rope_option_and_head_dim(self):
        config, weights = self.model(head_dim=6, rope_interleaved=True)
        for name, interleaved in [("half", False), ("interleaved", True)]:
            nll, _ = self.perplexity("model", "--tokens", "tokens.npy", "--rope", name)
            config["rope_interleaved"] = interleaved
            self.assert_close(nll, nll_of(config, weights, self.texts), 1e-6)

    def test_long_texts(self):
        """More positions than one pass takes, and blocks of the cache that are larger than a pass."""
        config, weights = self.model(max_position_embeddings=150)
        texts = np.random.default_rng(8).integers(0, CONFIG["vocab_size"], (1, 150)).astype(np.int32)
        self.save("long.npy", texts)
        nll, _ = self.perplexity("model", "--tokens", "long.npy")
        self.assert_close(nll, nll_of(config, weights, texts), 1e-6)
        blocks, text = self.perplexity("model", "--tokens", "long.npy", "--kv-bits", "8", "--kv-block", "100")
        self.assertNotIn("nothing was quantized", text)
        self.assert_close(blocks, nll, 0.01)

    def test_types(self):
        half = lambda w: w.astype(np.float16)
        brain = lambda w: (bf16_bits(w).astype(np.uint32) << 16).view(np.float32)
        config, weights = self.model("half", lambda ws: {n: half(w) for n, w in ws.items()})
        self.model("brain", lambda ws: {n: ("BF16", bf16_bits(w)) for n, w in ws.items()})
        for name, rounded in [("half", half), ("brain", brain)]:
            nll, _ = self.perplexity(name, "--tokens", "tokens.npy")
            self.assert_close(nll, nll_of(config, {n: rounded(w) for n, w in weights.items()}, self.texts), 1e-6)

    def test_subnormal_half(self):
        """Embeddings about the least normal number, 2^-14, which the first norm makes large."""
        name = "model.embed_tokens.weight"
        tiny = lambda ws: {n: (w * np.float32(2e-4) if n == name else w).astype(np.float16) for n, w in ws.items()}
        config, weights = self.model(tensors=tiny, rms_norm_eps=1e-20)
        rounded = tiny(weights)
        self.assertTrue(0.2 < (abs(rounded[name]) < 2 ** -14).mean() < 0.8)
        nll, _ = self.perplexity("model", "--tokens", "tokens.npy")
        self.assert_close(nll, nll_of(config, rounded, self.texts), 1e-6)

    def test_tokens(self):
        self.model()
        nll, text = self.perplexity("model", "--tokens", "tokens.npy")
        self.assertIn("147 predicted in 3 texts", text)
        for dtype in [np.uint16, np.uint32, np.int64]:
            self.save("other.npy", self.texts.astype(dtype))
            self.assertEqual(self.perplexity("model", "--tokens", "other.npy")[0], nll)
        self.save("one.npy", self.texts[0] % 200)
        self.save("byte.npy", (self.texts[0] % 200).astype(np.uint8))
        self.assertEqual(self.perplexity("model", "--tokens", "one.npy")[0],
                         self.perplexity("model", "--tokens", "byte.npy")[0])

    def shard(self, quantize=False):
        _, weights = self.model()
        names = sorted(weights)
        parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
        for part, held in parts.items():
            write_safetensors(self.path("model/" + part), {n: weights[n] for n in held})
            if quantize:
                self.qem("quantize", "model/" + part, "-o", "model/" + part, "--method", "lloydmax", "--k", "16")
        index = {"metadata": {"total_size": 1}, "weight_map": {n: part for part, held in parts.items() for n in held}}
        self.write("model/model.safetensors.index.json", json.dumps(index).encode())
        return index

    def test_shards(self):
        index = self.shard()
        whole, _ = self.perplexity("model", "--tokens", "tokens.npy")
        self.qem("quantize", "model/model.safetensors", "-o", "q.safetensors", "--method", "lloydmax", "--k", "16")
        codes, _ = self.perplexity("model", "--tokens", "tokens.npy", "--weights", "q.safetensors")
        os.remove(self.path("model/model.safetensors"))
        self.assertEqual(self.perplexity("model", "--tokens", "tokens.npy")[0], whole)
        call = ("perplexity", "model", "--tokens", "tokens.npy")
        for value, words in [("nothere.safetensors", ["nothere.safetensors"]), ("../x", ["lm_head", "plain name"]),
                             (3, ["lm_head", "plain name"]), ("model-1-of-2.safetensors", ["lm_head", "no tensor"])]:
            wrong = "model-2-of-2.safetensors" if index["weight_map"]["lm_head.weight"] == value else value
            damaged = {"weight_map": {**index["weight_map"], "lm_head.weight": wrong}}
            self.write("model/model.safetensors.index.json", json.dumps(damaged).encode())
            self.refuse(words, *call)
        del index["weight_map"]["model.norm.weight"]
        self.write("model/model.safetensors.index.json", json.dumps(index).encode())
        self.refuse(["model.norm.weight", "weight_map"], *call)
        self.write("model/model.safetensors.index.json", b"[]")
        self.refuse(["weight_map"], *call)
        self.shard(quantize=True)
        os.remove(self.path("model/model.safetensors"))
        self.assertEqual(self.perplexity("model", "--tokens", "tokens.npy")[0], codes)


class Quantized(LlamaTest):
    def test_directory(self):
        """A model quantized as a directory runs from its codes, as the checkpoint that it decodes to does."""
        _, weights = self.model(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2)
        names = sorted(weights)
        parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
        os.remove(self.path("model/model.safetensors"))
        for part, held in parts.items():
            write_safetensors(self.path("model/" + part), {n: weights[n] for n in held})
        index = {"metadata": {}, "weight_map": {n: part for part, held in parts.items() for n in held}}
        self.write("model/model.safetensors.index.json", json.dumps(index).encode())
        self.qem("quantize", "model", "-o", "small", "--method", "lloydmax", "--standardize", "row", "--bits", "6")
        self.qem("dequantize", "small", "-o", "back")
        codes, text = self.perplexity("small", "--tokens", "tokens.npy")
        self.assertNotIn(" 0 quantized", text)
        self.assertEqual(self.perplexity("back", "--tokens", "tokens.npy")[0],
                         self.perplexity("small", "--tokens", "tokens.npy", "--dequantize")[0])
        self.assert_close(codes, self.perplexity("back", "--tokens", "tokens.npy")[0], 1e-4)

    def test_codes(self):
        config, weights = self.model(tie_word_embeddings=True)
        for options in ["grid --grid block:128 --k 256", "lloydmax --k 16", "pq --bits 6 --dim 2 --codebook u8",
                        "vq --dim 2 --k 64 --standardize both --levels 1", "auto --bits 4.5 --effort 0"]:
            self.qem("quantize", "model/model.safetensors", "-o", "q.safetensors", "--method", *options.split())
            call = ("model", "--tokens", "tokens.npy", "--weights", "q.safetensors")
            codes, text = self.perplexity(*call)
            dense, other = self.perplexity(*call, "--dequantize")
            self.assert_close(codes, dense, 1e-4)
            self.qem("dequantize", "q.safetensors", "-o", "back.safetensors")
            back = {n: array_of(t) for n, t in read_safetensors(self.path("back.safetensors"))[0].items()}
            self.assert_close(codes, nll_of(config, back, self.texts), 1e-4)
            self.assertIn("15 quantized", text)
            self.assertEqual(text.splitlines()[0] + ", 15 decoded", other.splitlines()[0])
            if options.startswith("lloydmax"):
                self.assertGreater(abs(codes - nll_of(config, weights, self.texts)), 1e-3)

    def test_stored_bytes(self):
        self.model()
        report = self.report("quantize", "model/model.safetensors", "-o", "q.safetensors", "--method", "lloydmax", "--k",
                             "4")
        text = self.perplexity("model", "--tokens", "tokens.npy", "--weights", "q.safetensors")[1]
        self.assertIn("5 tensors dense, 16 quantized: %d bytes" % report["stored_bytes"], text)

    def test_cache(self):
        _, weights = self.model()
        call = ("model", "--tokens", "tokens.npy", "--kv-block", "16")
        exact, _ = self.perplexity(*call[:3])
        changes = {}
        for method, bits, dim in [("grid", 8, 1), ("lloydmax", 8, 1), ("nf", 4, 1), ("grid", 2, 1), ("vq", 2, 2),
                                  ("qet", 1.5, 2)]:
            nll, text = self.perplexity(*call, "--kv-method", method, "--kv-bits", bits)
            line = [line for line in text.splitlines() if line.startswith("nll with exact cache")][0].split()
            self.assertEqual(float(line[4]), exact)
            self.assertAlmostEqual(float(line[6]), nll - exact, 5)
            changes[method, bits] = abs(nll - exact)
            # Keys and values of 2 layers and 16 columns; a swap map has half a bit an element.
            stored = 2 * 2 * 16 * (bits + (0.5 if method == "qet" else 0)) / 8
            self.assertIn("%.1f bytes a token instead of 256" % stored, text)
        self.assertLess(max(changes["grid", 8], changes["lloydmax", 8]), 0.02 * exact)
        self.assertLess(changes["grid", 8], changes["grid", 2])
        self.assertGreater(min(changes.values()), 0)

    def test_cache_of_no_full_block(self):
        self.model()
        exact, _ = self.perplexity("model", "--tokens", "tokens.npy")
        nll, text = self.perplexity("model", "--tokens", "tokens.npy", "--kv-bits", "2")
        self.assert_close(nll, exact, 1e-6) # keys are turned elsewhere, nothing is quantized
        self.assertIn("nothing was quantized", text)

    def test_cache_encodes_what_it_was_fitted_on(self):
        """With as many codes as rows every value is its own centroid: nothing is lost in the first block."""
        self.model()
        self.save("short.npy", self.texts[:1, :20])
        exact, _ = self.perplexity("model", "--tokens", "short.npy")
        nll, text = self.perplexity("model", "--tokens", "short.npy", "--kv-bits", "8", "--kv-block", "16")
        self.assertNotIn("nothing was quantized", text)
        self.assert_close(nll, exact, 1e-3)


class Device(LlamaTest):
    """Products on a GPU, or where there is none a sentence that says so."""
    def nll_on(self, program, *arguments):
        done = self.run_llama("perplexity", *arguments, "--device", "cuda", program=program)
        self.assertEqual((done.returncode, done.stderr.decode()), (0, ""), arguments)
        return float([line for line in done.stdout.decode().splitlines() if line.startswith("nll: ")][0].split()[1])

    def quantize(self, options):
        self.qem("quantize", "model/model.safetensors", "-o", "q.safetensors", "--method", *options.split())
        return "model", "--weights", "q.safetensors"

    @unittest.skipUnless(os.path.exists(HOST), "the kernels' runner is not built")
    def test_as_on_the_cpu(self):
        self.model(tie_word_embeddings=True)
        self.save("short.npy", self.texts[:, :9])  # a batch that takes own kernels, where the others go to cuBLAS
        for options in ["grid --grid block:16 --bits 4", "pq --bits 6 --dim 2", "vq --dim 4 --k 64 --levels 1",
                        "auto --bits 4.5 --effort 0"]:
            call = self.quantize(options)
            for tokens in ["tokens.npy", "short.npy"]:
                nll, _ = self.perplexity(*call, "--tokens", tokens)
                self.assert_close(self.nll_on(HOST, *call, "--tokens", tokens), nll, 1e-4)
        text = ("generate", *call, "--prompt", "ab", "--length", "12")
        done = self.run_llama(*text, "--device", "cuda", program=HOST)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, self.llama(*text), b""))

    def test_refusals(self):
        self.model()
        dense = ("model", "--tokens", "tokens.npy")
        self.refuse(["--device", "neither"], "perplexity", *dense, "--device", "tpu", code=2)
        if os.path.exists(HOST):
            done = self.run_llama("perplexity", *dense, "--device", "cuda", program=HOST)
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(b"no matrix of the model is quantized", done.stderr)
        call = (*self.quantize("lloydmax --k 16"), "--tokens", "tokens.npy")
        if self.run_llama("perplexity", *call, "--device", "cuda").returncode == 0:  # a machine with a GPU
            self.assert_close(self.nll_on(LLAMA, *call), self.perplexity(*call)[0], 1e-4)
        else:
            self.refuse(["--device cuda"], "perplexity", *call, "--device", "cuda")


class Generate(LlamaTest):
    def greedy(self, config, weights, tokens, count):
        for _ in range(count):
            token = int(logits_of(config, weights, np.array(tokens))[-1].argmax())
            if token in (1, 2):
                break
            tokens = tokens + [token]
        return tokens

    def text(self, tokens):
        piece = lambda p: bytes([int(p[1:5], 16)]) if p.startswith("<0x") else p.replace("\u2581", " ").encode()
        out = b"".join(piece(PIECES[t]) for t in tokens)
        return (out[1:] if out.startswith(b" ") else out) + b"\n"

    def test_greedy(self):
        config, weights = self.model()
        number = {piece: i for i, piece in enumerate(PIECES)}
        # Merges take the lowest piece first: "abb" is ab and b, then "\u2581ab", never "abb" or "bb".
        for prompt, pieces in [("", []), ("ab", ["\u2581ab"]), ("abb", ["\u2581ab", "b"]), ("\u00e9", ["\u2581", "\u00e9"]),
                               ("ca", ["\u2581", "ca"]), ("\u00fc", ["\u2581", "<0xC3>", "<0xBC>"]), ("c", ["\u2581c"])]:
            tokens = [number[p] for p in pieces]
            expected = self.greedy(config, weights, [1] + tokens, 12)[1:]
            done = self.llama("generate", "model", "--prompt", prompt, "--length", "12")
            self.assertEqual(done, self.text(expected), prompt)

    def test_sampling_and_cache(self):
        self.model()
        call = ("generate", "model", "--prompt", "abc", "--length", "40", "--temperature", "1")
        first = self.llama(*call, "--seed", "1")
        self.assertEqual(self.llama(*call, "--seed", "1"), first)
        self.assertGreater(len({self.llama(*call, "--seed", seed) for seed in range(4)}), 1)
        self.llama(*call, "--kv-bits", "4", "--kv-block", "8", "--length", "300")

    def test_context_is_full(self):
        config, weights = self.model(max_position_embeddings=9, eos_token_id=[2, 3])
        self.assertEqual(self.llama("generate", "model", "--prompt", "ab", "--length", "30"),
                         self.text(self.greedy(config, weights, [1, PIECES.index("\u2581ab")], 8)[1:]))
        self.refuse(["prompt", "context"], "generate", "model", "--prompt", "cbcbcbcbcbcbcb")

    def test_vocabularies(self):
        self.model()
        whole = self.llama("generate", "model", "--prompt", "ab", "--length", "9")
        self.write("model/vocab.json", json.dumps({p: i for i, p in enumerate(PIECES)}).encode())
        self.assertEqual(self.llama("generate", "model", "--prompt", "ab", "--length", "9"), whole)
        for text, words in [("[1]", ["piece 0"]), ("3", ["neither a list"]), (json.dumps(PIECES + ["x"]), ["below"]),
                            ('{"a": 5, "b": 5}', ["5", "twice"]), ('{"a": 1.5}', ["piece 0"]),
                            ('["a"', ["vocab.json", "missing"]),
                            ('["\\ud800"]', ["character"]), ('["a\nb"]', ["control"]), ("[" * 99, ["deep"]),
                            ('["a"]x', ["follows"]), ('["<unk>"]', ["no piece for byte"])]:
            self.write("model/vocab.json", text.encode())
            self.refuse(words, "generate", "model", "--prompt", "ab")


class Importance(LlamaTest):
    """Squared gradients against finite differences of the forward pass above."""

    def importance(self, *arguments, out="i.safetensors"):
        self.llama("importance", "model", "--tokens", "tokens.npy", "-o", out, *arguments)
        return {name: array_of(t) for name, t in read_safetensors(self.path(out))[0].items()}

    def changed(self, weights, name, at, step):
        matrix = weights[name].astype(np.float64)
        matrix[at] += step
        return {**weights, name: matrix}

    def elements(self, weights, rng, count):
        """Some elements of every matrix, in the rows of tokens that the texts have."""
        for name in (n for n in weights if weights[n].ndim == 2):
            rows = np.unique(self.texts[:, :-1]) if "embed" in name else np.arange(len(weights[name]))
            for _ in range(count):
                yield name, (rng.choice(rows), rng.integers(weights[name].shape[1]))

    def test_gradients(self):
        rng = np.random.default_rng(5)
        for changes in [{}, {"tie_word_embeddings": True, "rope_interleaved": True, "num_key_value_heads": 1},
                        {"head_dim": 12, "num_key_value_heads": 4, "num_hidden_layers": 1, "intermediate_size": 20}]:
            config, weights = self.model(**changes)
            self.texts = rng.integers(0, config["vocab_size"], (2, 14)).astype(np.int32)
            self.save("tokens.npy", self.texts)
            found = self.importance("--draws", "0", "--smoothing", "0")
            self.assertEqual({n: w.shape for n, w in weights.items() if w.ndim == 2},
                             {n: w.shape for n, w in found.items()})
            self.assertEqual({w.dtype for w in found.values()}, {np.dtype(np.float32)})
            for name, at in self.elements(weights, rng, 4):
                slopes = [13 * (nll_of(config, self.changed(weights, name, at, 1e-4), text[None]) -
                                nll_of(config, self.changed(weights, name, at, -1e-4), text[None])) / 2e-4
                          for text in self.texts]
                expected = (slopes[0] ** 2 + slopes[1] ** 2) / 26
                self.assertLess(abs(found[name][at] ** 0.5 - expected ** 0.5), 2e-4 * (1e-2 + expected ** 0.5),
                                (changes, name, at, found[name][at], expected))

    def test_labels_are_drawn_from_the_model(self):
        """The mean over labels is known: sum over them of p * (d log p)^2, position by position."""
        config, weights = self.model(tie_word_embeddings=True, num_hidden_layers=1)
        self.texts = self.texts[:1, :6]
        self.save("tokens.npy", self.texts)
        found = self.importance("--draws", "800", "--smoothing", "0")
        tokens, rng, ratios = self.texts[0, :-1], np.random.default_rng(6), []
        logits = logits_of(config, weights, tokens)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        for name, at in self.elements(weights, rng, 4):
            slope = (logits_of(config, self.changed(weights, name, at, 1e-4), tokens) -
                     logits_of(config, self.changed(weights, name, at, -1e-4), tokens)) / 2e-4
            slope -= (p * slope).sum(-1, keepdims=True)
            ratios.append(found[name][at] / ((p * slope ** 2).sum() / 5))
        self.assertLess(max(abs(np.array(ratios) - 1)), 0.45, ratios)
        self.assertLess(abs(np.mean(ratios) - 1), 0.1, ratios)

    def test_seed_smoothing_and_codes(self):
        self.model()
        plain = self.importance("--draws", "2", "--smoothing", "0")
        first = self.read("i.safetensors")
        self.importance("--draws", "2", "--smoothing", "0", "--threads", "1")
        self.assertEqual(self.read("i.safetensors"), first)
        self.importance("--draws", "2", "--smoothing", "0", "--seed", "1")
        self.assertNotEqual(self.read("i.safetensors"), first)
        for name, smooth in self.importance("--draws", "2", "--smoothing", "0.25").items():
            self.assertTrue(np.allclose(smooth, 0.75 * plain[name] + 0.25 * plain[name].mean(), rtol=1e-5), name)
        self.qem("quantize", "model/model.safetensors", "-o", "q.safetensors", "--method", "lloydmax", "--k", "16")
        self.qem("dequantize", "q.safetensors", "-o", "back.safetensors")
        codes = self.importance("--draws", "2", "--weights", "q.safetensors")
        decoded = self.importance("--draws", "2", "--weights", "back.safetensors")
        self.assertTrue(all((codes[name] == decoded[name]).all() for name in codes))
        self.assertFalse(np.allclose(codes["lm_head.weight"], plain["lm_head.weight"]))

    def test_errors(self):
        _, weights = self.model()
        call = ("importance", "model", "--tokens", "tokens.npy", "-o", "i.safetensors")
        for words, *arguments in [(["-o"], *call[:4]), (["--tokens"], *call[:2], *call[4:]),
                                  (["--draws"], *call, "--draws", "-1"), (["--smoothing"], *call, "--smoothing", "1.5"),
                                  (["directory"], call[0], *call[2:])]:
            self.refuse(words, *arguments, code=2)
        self.refuse(["nowhere"], *call[:5], "nowhere/i.safetensors")
        self.save("one.npy", self.texts[:, :1])
        self.refuse(["one.npy", "2 to"], "importance", "model", "--tokens", "one.npy", *call[4:])
        self.model(tensors=lambda w: {**w, "lm_head.weight": w["lm_head.weight"] * np.float32("inf")})
        self.refuse(["not finite"], *call)
        self.assertFalse(os.path.exists(self.path("i.safetensors")))


class Texts(LlamaTest):
    def texts_of(self, *arguments):
        self.assertEqual(self.llama("generate", "model", "--tokens-out", "t.npy", *arguments), b"")
        return np.load(self.path("t.npy"))

    def test_texts(self):
        config, weights = self.model()
        call = ("--texts", "5", "--length", "30", "--temperature", "1")
        drawn = self.texts_of(*call)
        self.assertEqual((drawn.shape, drawn.dtype, set(drawn[:, 0])), ((5, 30), np.int32, {1}))
        self.assertTrue(((drawn >= 0) & (drawn < config["vocab_size"])).all())
        self.assertEqual(len(np.unique(drawn, axis=0)), 5)
        self.assertTrue((self.texts_of(*call) == drawn).all())
        self.assertFalse((self.texts_of(*call, "--seed", "1") == drawn).all())
        greedy = self.texts_of("--texts", "2", "--length", "64")
        for n in range(63): # ends do not end a text
            self.assertEqual(greedy[1, n + 1], logits_of(config, weights, greedy[0, :n + 1])[-1].argmax())
        self.perplexity("model", "--tokens", "t.npy")

    def test_drawn_as_likely_as_the_model_says(self):
        config, weights = self.model()
        second = self.texts_of("--texts", "1500", "--length", "2", "--temperature", "1")[:, 1]
        logits = logits_of(config, weights, np.array([1]))[0]
        p = np.exp(logits - logits.max())
        p /= p.sum()
        often = p > 0.01
        self.assertGreater(often.sum(), 5)
        counts = np.bincount(second, minlength=len(p))[often]
        self.assertLess(abs(counts - 1500 * p[often]).max() / (1500 * p[often].max()) ** 0.5, 5)

    def test_errors(self):
        self.model()
        for words, code, *arguments in [(["--length", "1 token"], 1, "--length", "1"), (["--length", "65"], 1, "--length", "65"),
                                        (["--prompt"], 2, "--prompt", "a"), (["--texts"], 2, "--texts", "0")]:
            self.refuse(words, "generate", "model", "--tokens-out", "t.npy", *arguments, code=code)
        self.refuse(["nowhere"], "generate", "model", "--tokens-out", "nowhere/t.npy", "--length", "9")


class Damaged(LlamaTest):
    call = ("perplexity", "model", "--tokens", "tokens.npy")

    def test_config(self):
        self.model()
        for changes, words in [
                ({"hidden_size": None}, ["hidden_size", "missing"]), ({"hidden_size": 2.5}, ["hidden_size"]),
                ({"hidden_size": 1e30}, ["hidden_size"]), ({"num_hidden_layers": -1}, ["num_hidden_layers"]),
                ({"num_key_value_heads": 3}, ["multiple"]),
                ({"num_attention_heads": 5, "num_key_value_heads": 5}, ["head_dim"]),
                ({"num_attention_heads": 32, "num_key_value_heads": 32}, ["even"]), ({"rope_theta": "x"}, ["rope_theta"]),
                ({"rope_scaling": {"type": "linear"}}, ["rope_scaling"]), ({"attention_bias": True}, ["attention_bias"]),
                ({"model_type": "mistral"}, ["model_type", "mistral"]),
                ({"tie_word_embeddings": 1}, ["tie_word_embeddings"]),
                ({"intermediate_size": 47}, ["gate_proj", "47 x 32"]), ({"vocab_size": 271}, ["embed_tokens", "271 x 32"]),
                ({"num_hidden_layers": 3}, ["model.layers.2", "no tensor"]), ({"bos_token_id": 300}, ["bos_token_id"]),
                ({"eos_token_id": list(range(9))}, ["eos_token_id"]),
                ({"max_position_embeddings": 49}, ["49", "tokens.npy"])]:
            self.write("model/config.json", json.dumps({**CONFIG, **changes}).encode())
            self.refuse(words, *self.call)
        for text in [b"", b"{", b'{"a"}', b'{"a": }', b'{"a": 1,}', b"\xff", b"[1, 2]", b'{"a": "\\x"}', b'{"a": 1e}',
                     b"{}\0"]:
            self.write("model/config.json", text)
            self.refuse(["config.json"], *self.call)
        os.remove(self.path("model/config.json"))
        self.refuse(["config.json", "No such file"], *self.call)

    def test_tensors(self):
        norm = "model.layers.1.input_layernorm.weight"
        def changed(name, value):
            def change(weights):
                return {n: value(w) if n == name else w for n, w in weights.items() if n != name or value(w) is not None}
            return change
        for name, value, words in [
                (norm, lambda w: None, ["no tensor"]), (norm, lambda w: w[:-1], ["rank 1", "31", "32"]),
                (norm, lambda w: w.astype(np.int32), ["i32"]), (norm, lambda w: w[None], ["rank 2"]),
                ("lm_head.weight", lambda w: w.T, ["270 x 32"]),
                ("lm_head.weight", lambda w: w.astype(np.float64), ["f64"])]:
            self.model(tensors=changed(name, value))
            self.refuse([name, "model.safetensors", *words], *self.call)
        self.model(tensors=changed(norm, lambda w: w * np.float32("nan")))
        self.refuse(["not finite"], *self.call)
        self.refuse(["not finite"], "generate", "model")
        os.remove(self.path("model/model.safetensors"))
        self.refuse(["index.json", "No such file"], *self.call)

    def test_files(self):
        self.model()
        data = self.read("model/model.safetensors")
        for size in [0, 7, 40, 3000, len(data) - 1]:
            self.write("model/model.safetensors", data[:size])
            self.refuse(["model.safetensors"], *self.call)
        self.write("model/model.safetensors", data)
        self.save("plain.npy", np.ones((2, 2), np.float32))
        self.refuse(["plain.npy", "safetensors"], *self.call, "--weights", "plain.npy")

    def test_codes(self):
        self.model()
        self.qem("quantize", "model/model.safetensors", "-o", "q.safetensors", "--method", "lloydmax", "--k", "16")
        data = bytearray(self.read("q.safetensors"))
        data[-300] ^= 1
        self.write("bad.safetensors", bytes(data))
        self.refuse(["bad.safetensors", "tensor '"], *self.call, "--weights", "bad.safetensors")
        self.model("model", intermediate_size=52)
        self.refuse(["q.safetensors", "gate_proj", "48 x 32", "52 x 32"], *self.call, "--weights", "q.safetensors")
        self.model()
        rng = np.random.default_rng(3)
        clean = self.read("q.safetensors")
        for _ in range(25):
            data = bytearray(clean)
            for at in rng.integers(0, len(data), 3):
                data[at] ^= int(rng.integers(1, 256))
            self.write("bad.safetensors", bytes(data[:rng.integers(1, len(data) + 1)] if rng.integers(0, 2) else data))
            done = self.run_llama(*self.call, "--weights", "bad.safetensors")
            self.assertIn(done.returncode, [0, 1], done.stderr) # norms have no checksum: flips there may go unseen
            self.assertEqual(done.stderr.count(b"\n"), done.returncode, done.stderr)

    def test_token_files(self):
        self.model()
        good = self.read("tokens.npy")
        for array, words in [(np.full((1, 5), 270, np.int32), ["token 270", "row 0, column 0"]),
                             (np.array([[1, 2], [3, -1]], np.int64), ["token -1", "row 1, column 1"]),
                             (np.zeros((2, 1), np.int32), ["2 to"]), (np.zeros((1, 4), np.float32), ["not u1"]),
                             (np.zeros((1, 0), np.int32), ["not empty"]), (np.zeros((1, 2, 3), np.int32), ["dimensions"]),
                             (np.asfortranarray(self.texts), ["C order"])]:
            self.save("tokens.npy", array)
            self.refuse(["tokens.npy", *words], *self.call)
        for damaged in [b"", good[:5], good[:50], good[:-1], good + b"1", b"x" * 200, good[:8] + b"\xff\xff" + good[10:]]:
            self.write("tokens.npy", damaged)
            self.refuse(["tokens.npy"], *self.call)

    def test_options(self):
        self.model()
        for words, *arguments in [(["unknown command"], "run", "model"), (["--tokens"], "perplexity", "model"),
                                  (["directory"], "perplexity"), (["--nope"], *self.call, "--nope", "1"),
                                  (["--rope", "both"], *self.call, "--rope", "both"),
                                  (["--length"], "generate", "model", "--length", "x"),
                                  (["--kv-method", "auto"], *self.call, "--kv-method", "auto"),
                                  (["--kv-bits"], *self.call, "--kv-bits", "nan"), (["too many"], *self.call, "more"),
                                  (["--kv-dim"], *self.call, "--kv-bits", "8", "--kv-dim", "4"),
                                  (["--seed"], *self.call, "--seed")]:
            self.refuse(words, *arguments, code=2)
        self.refuse(["recipe", "sub-vectors"], *self.call, "--kv-bits", "8", "--kv-method", "vq", "--kv-block", "4")
        self.assertIn(b"Usage:", self.llama("--help"))


@unittest.skipUnless(DATA, "QEM_TEST_DATA is not set")
class TinyStories(LlamaTest):
    directory = os.path.join(DATA, "tinystories-260k")

    def test_perplexity(self):
        tokens = os.path.join(self.directory, "tokens.npy")
        exact, _ = self.perplexity(self.directory, "--tokens", tokens, "--threads", "1")
        self.assertLess(abs(exact - 1.31), 0.005)
        source = os.path.join(self.directory, "model.safetensors")
        self.qem("quantize", source, "-o", "q.safetensors", "--method", "grid", "--grid", "block:128", "--bits", "8")
        codes, _ = self.perplexity(self.directory, "--tokens", tokens, "--weights", "q.safetensors", "--threads", "1")
        self.assert_close(codes, exact, 0.003)
        self.save("two.npy", np.load(tokens)[:2])
        call = (self.directory, "--tokens", "two.npy", "--weights", "q.safetensors", "--threads", "1")
        cached, text = self.perplexity(*call, "--dequantize", "--kv-bits", "8", "--kv-method", "grid")
        plain = float(text.splitlines()[-1].split()[4])
        self.assert_close(cached, plain, 0.003)
        self.assert_close(self.perplexity(*call)[0], plain, 1e-4)

    def test_text(self):
        text = self.llama("generate", self.directory, "--prompt", "Lily and Tom went", "--length", "60", "--threads",
                          "1").decode()
        self.assertTrue(text.startswith("Lily and Tom went to "), text)


if __name__ == "__main__":
    support.main()
