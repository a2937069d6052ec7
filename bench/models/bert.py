"""A BERT's forward pass in numpy, with the tensor names of the original: encoder, and the head that fills masks."""
import numpy as np

LAYERNORM = 1e-12


def erf(x):
    """Abramowitz and Stegun 7.1.26: off by at most 1.5e-7."""
    size = np.abs(x)
    t = 1 / (1 + 0.3275911 * size)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - series * np.exp(-size * size))


def gelu(x):
    return 0.5 * x * (1 + erf(x * np.sqrt(0.5)))


def softmax(x):
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


class Bert:
    """weights: {name: array}, linear ones outputs x inputs. Computes in float64."""

    def __init__(self, weights, heads, prefix=""):
        self.weights = {name.removeprefix(prefix): np.asarray(array, np.float64) for name, array in weights.items()
                        if array.dtype.kind == "f"}
        self.heads = heads
        self.layers = 1 + max(int(name.split(".")[2]) for name in self.weights if name.startswith("encoder.layer."))

    def linear(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + LAYERNORM)
        return centred / scale * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def attention(self, x, name):
        texts, length, width = x.shape

        def by_head(part):
            return self.linear(x, f"{name}.self.{part}").reshape(texts, length, self.heads, -1).transpose(0, 2, 1, 3)
        query, key, value = map(by_head, ("query", "key", "value"))
        shares = softmax(query @ key.transpose(0, 1, 3, 2) / np.sqrt(width // self.heads))
        mixed = (shares @ value).transpose(0, 2, 1, 3).reshape(texts, length, width)
        return self.norm(x + self.linear(mixed, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def hidden(self, tokens):
        """tokens: texts x length, all of one length -> texts x length x width."""
        tokens = np.asarray(tokens)
        table = "embeddings.{}_embeddings.weight".format
        x = (self.weights[table("word")][tokens] + self.weights[table("position")][:tokens.shape[1]]
             + self.weights[table("token_type")][0])
        x = self.norm(x, "embeddings.LayerNorm")
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            x = self.attention(x, f"{name}.attention")
            inner = self.linear(gelu(self.linear(x, f"{name}.intermediate.dense")), f"{name}.output.dense")
            x = self.norm(x + inner, f"{name}.output.LayerNorm")
        return x

    def embedding(self, tokens):
        """The mean over a text's tokens, of length 1: what sentence-transformers calls mean pooling."""
        mean = self.hidden([tokens])[0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    def fill(self, tokens):
        """Logarithms of the probabilities of every token at every place. The last matrix is that of the embeddings."""
        head = "cls.predictions"
        x = self.norm(gelu(self.linear(self.hidden(tokens), f"{head}.transform.dense")), f"{head}.transform.LayerNorm")
        logits = x @ self.weights["embeddings.word_embeddings.weight"].T + self.weights[f"{head}.bias"]
        logits -= logits.max(axis=-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
