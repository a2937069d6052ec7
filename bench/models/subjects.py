"""The models: which of their weights are quantized, and what quality is for each.

A subject has a name and a title; `linear`, the weights that are quantized; `figures`, the columns of its table; `main`, the
one that is compared and drawn; and quality(artifact), the figures with the weights of an artifact, or of none."""
import json
import math
import os
import re
import subprocess

import numpy as np

import bert
import checkpoint
import tokens

HERE = os.path.dirname(os.path.abspath(__file__))
LAYER = re.compile(r"encoder\.layer\.\d+\..*\.dense\.weight|encoder\.layer\.\d+\.attention\.self\.\w+\.weight")


class Figure:
    """A column: key in the CSV, heading, how its numbers are printed, and whether more is better."""

    def __init__(self, key, heading, form, more=False):
        self.key, self.heading, self.form, self.more = key, heading, form, more


def lines_of(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return file.read().splitlines()


def heads_of(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        return json.load(file)["num_attention_heads"]


class Encoder:
    """What both BERTs share: decoding an artifact and putting its weights in place of the original's."""

    def __init__(self, lab, weights, heads, prefix):
        self.lab, self.weights, self.heads, self.prefix = lab, weights, heads, prefix
        self.linear = {name: array for name, array in weights.items() if LAYER.fullmatch(name.removeprefix(prefix))}
        self.expected = None

    def model(self, artifact):
        weights = dict(self.weights)
        if artifact:
            decoded = self.lab.file("decoded.safetensors")
            self.lab.ask("dequantize", artifact, "-o", decoded, "--threads", self.lab.threads, "--json")
            found = checkpoint.read_safetensors(decoded)
            if {name: array.shape for name, array in found.items()} != {n: a.shape for n, a in self.linear.items()}:
                raise ValueError(f"{artifact} does not hold the weights that were quantized")
            weights.update(found)
        return bert.Bert(weights, self.heads, self.prefix)

    def quality(self, artifact=None):
        if self.expected is None:
            self.expected = self.outcome(self.model(None))
        return self.beside(self.outcome(self.model(artifact)) if artifact else self.expected)


class Sentences(Encoder):
    """all-MiniLM-L6-v2: embeddings of sentences, beside those of the unquantized model."""
    name, title = "minilm", "all-MiniLM-L6-v2, sentence embeddings"
    figures = (Figure("distance", "1 - cosine, mean", ".3g"), Figure("distance_worst", "worst", ".3g"),
               Figure("similarity_error", "similarities off by", ".3g"),
               Figure("same_nearest", "same nearest", ".1%", more=True),
               Figure("pairs_found", "paraphrase found", ".1%", more=True))
    main, drawn, axis = "distance", "distance", "1 - cosine"
    inputs = "sentences.txt"

    def __init__(self, lab, folder):
        super().__init__(lab, checkpoint.read_safetensors(os.path.join(folder, "model.safetensors")), heads_of(folder), "")
        known = tokens.vocabulary(os.path.join(folder, "vocab.txt"))
        self.texts = [tokens.english(line, known) for line in lines_of(self.inputs)]

    def outcome(self, model):
        return np.array([model.embedding(text) for text in self.texts])

    def beside(self, found):
        return compare_embeddings(found, self.expected)


def compare_embeddings(found, expected):
    """Both of length 1, a text a row; rows 2 i and 2 i + 1 say the same in other words."""
    distances = np.square(found - expected).sum(axis=1) / 2  # 1 - cosine, to full precision
    nearest, similarities = [], []
    for embeddings in (found, expected):
        similarity = embeddings @ embeddings.T
        similarities.append(similarity[np.triu_indices(len(similarity), 1)])
        np.fill_diagonal(similarity, -np.inf)
        nearest.append(similarity.argmax(axis=1))
    return {"distance": distances.mean(), "distance_worst": distances.max(),
            "similarity_error": np.abs(similarities[0] - similarities[1]).mean(),
            "same_nearest": np.mean(nearest[0] == nearest[1]),
            "pairs_found": np.mean(nearest[0] == np.arange(len(found)) ^ 1)}


class Reactions(Encoder):
    """The chemical BERT of rxnfp: masked tokens of reactions, filled in."""
    name, title = "rxnfp", "rxnfp's BERT of chemical reactions, masked tokens"
    figures = (Figure("perplexity", "perplexity", ".4f"), Figure("divergence", "KL divergence", ".3g"),
               Figure("agreement", "same token", ".1%", more=True), Figure("correct", "right token", ".1%", more=True))
    main, drawn, axis = "divergence", "divergence", "KL divergence"
    inputs = "reactions.txt"
    SHARE, COPIES = 7, (0, 2, 4)  # a copy of a reaction has every 7th token masked, from one of these on

    def __init__(self, lab, folder):
        super().__init__(lab, checkpoint.read_torch(os.path.join(folder, "pytorch_model.bin")), heads_of(folder), "bert.")
        known = tokens.vocabulary(os.path.join(folder, "vocab.txt"))
        self.texts = [masked_copies(line, known, self.SHARE, self.COPIES) for line in lines_of(self.inputs)]

    def outcome(self, model):
        """-> logarithms of probabilities, a masked token a row"""
        return np.concatenate([model.fill(copies)[rows, places] for copies, rows, places, _ in self.texts])

    def beside(self, found):
        right = np.concatenate([answers for _, _, _, answers in self.texts])
        return compare_predictions(found, self.expected, right)


def masked_copies(smiles, known, share, starts):
    """-> copies of the tokens with masks, and the row, the place and the right token of every mask.

    The model knows no mask where a token in square brackets or ">>" was (it gives these a probability of e-15 and less), so
    they stay."""
    text = tokens.reaction(smiles, known)
    kept = {number for piece, number in known.items() if piece.startswith("[") or piece == ">>"}
    free = [place for place, token in enumerate(text) if token not in kept]
    copies, rows, places = [], [], []
    for row, start in enumerate(starts):
        masked = free[start::share]
        copies.append([known["[MASK]"] if place in masked else token for place, token in enumerate(text)])
        rows += [row] * len(masked)
        places += masked
    return copies, rows, places, [text[place] for place in places]


def compare_predictions(found, expected, right):
    """found, expected: logarithms of probabilities, a place a row; right: the tokens that stood there."""
    loss = -found[np.arange(len(right)), right].mean()
    return {"nll": loss, "perplexity": math.exp(loss),
            "divergence": max((np.exp(expected) * (expected - found)).sum(axis=1).mean(), 0.0),
            "agreement": np.mean(found.argmax(axis=1) == expected.argmax(axis=1)),
            "correct": np.mean(found.argmax(axis=1) == right)}


class Stories:
    """TinyStories-260K, run by examples/llama on the codes: a folder with a shard of codes and one of all other tensors."""
    name, title = "tinystories", "TinyStories-260K, next tokens"
    figures = (Figure("perplexity", "perplexity", ".4f"), Figure("loss", "nll above the original's", "+.5f"))
    main, drawn, axis = "perplexity", "loss", "nll above the original's"
    inputs = None
    PRINTED = re.compile(r"^nll: (\S+)  perplexity: (\S+)$", re.MULTILINE)
    CODES, REST = "codes.safetensors", "rest.safetensors"

    def __init__(self, lab, folder, llama):
        self.lab, self.folder, self.llama, self.expected = lab, folder, llama, None
        self.weights = checkpoint.read_safetensors(os.path.join(folder, "model.safetensors"))
        self.linear = {name: array for name, array in self.weights.items()
                       if array.ndim == 2 and name.startswith("model.layers.")}

    def shards(self, artifact):
        place = self.lab.file("stories")
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(self.folder, "config.json"), "rb") as source, \
                open(os.path.join(place, "config.json"), "wb") as target:
            target.write(source.read())
        checkpoint.write_safetensors(os.path.join(place, self.REST),
                                     {name: array for name, array in self.weights.items() if name not in self.linear})
        os.replace(artifact, os.path.join(place, self.CODES))
        index = {"weight_map": {name: self.CODES if name in self.linear else self.REST for name in self.weights}}
        with open(os.path.join(place, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
            json.dump(index, file)
        return place

    def loss(self, model):
        tokens_ = os.path.join(self.folder, "tokens.npy")
        done = subprocess.run([self.llama, "perplexity", model, "--tokens", tokens_, "--threads", str(self.lab.threads)],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)
        printed = self.PRINTED.search(done.stdout)
        if done.returncode or not printed:
            raise ValueError(f"llama perplexity: {done.stderr.strip() or done.stdout.strip()}")
        return float(printed[1]), float(printed[2])

    def quality(self, artifact=None):
        if self.expected is None:
            self.expected = self.loss(self.folder)[0]
        loss, perplexity = self.loss(self.shards(artifact) if artifact else self.folder)
        return {"nll": loss, "perplexity": perplexity, "loss": loss - self.expected}
