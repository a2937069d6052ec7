"""What is compared, with whom, and what we mean to reach. `quick` are the small shapes that the tests run."""
from dataclasses import dataclass, field
from typing import Optional

LARGE = {"rows": 11008, "cols": 4096}  # a feed-forward matrix of a 7B model, 180 MB
VECTORS = {"rows": 100000, "cols": 128}


@dataclass(frozen=True)
class Side:
    """Who runs: `module` is one of side_*.py; `overrides` change the case for this side; `turns` limits slow ones."""
    name: str
    module: str
    overrides: dict = field(default_factory=dict)
    turns: Optional[int] = None


@dataclass(frozen=True)
class Versus:
    """Our time against a peer's: at least `times` faster; `error` is "not above" or "same" where errors are compared."""
    peer: str
    times: Optional[float] = None
    error: Optional[str] = None


@dataclass(frozen=True)
class Share:
    """Time of the fill over ours: the share of the memory's writing rate that decoding reaches."""
    least: Optional[float] = None


@dataclass(frozen=True)
class Most:
    """A figure of ours that must not be above a limit."""
    what: str
    limit: float
    unit: str


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    parameters: dict
    quick: dict
    sides: tuple
    checks: tuple

    def full(self, quick):
        return {**self.parameters, **(self.quick if quick else {})}


QEM, FAISS, NUMPY = Side("qem", "qem"), Side("FAISS", "faiss"), Side("numpy", "numpy")


def kmeans():
    problem = {"rows": 139000, "dim": 4, "k": 12900}
    small = {"rows": 3000, "k": 100}
    shape = "139 000 x 4, k = 12 900"
    yield Case("kmeans/pass", f"k-means, a Lloyd pass, {shape}",
               {"task": "kmeans-pass", **problem, "passes": 10, "repeat": 5},
               {**small, "passes": 2, "repeat": 1}, (QEM, FAISS), (Versus("FAISS", 25),))
    yield Case("kmeans/whole", f"k-means, {shape}: k-means++, 10 passes (FAISS, scikit-learn: random rows, 25 passes)",
               {"task": "kmeans", **problem, "iterations": 10, "faiss_iterations": 25, "sklearn_iterations": 25},
               {**small, "iterations": 2, "faiss_iterations": 2, "sklearn_iterations": 2},
               (QEM, FAISS, Side("FAISS k-means++", "faiss", {"faiss_seeding": "k-means++", "faiss_iterations": 10}, 1),
                Side("scikit-learn", "sklearn", turns=1)),
               (Versus("FAISS", None, "not above"), Versus("FAISS k-means++"), Versus("scikit-learn", None, "not above")))


def pq_training():
    for name, shape, k, times in (("100000x128", VECTORS, 256, 5), ("11008x4096", LARGE, 256, 5),
                                  ("100000x128", VECTORS, 4096, 10)):
        yield Case(f"pq-train/{name}/k{k}", f"PQ training, {name.replace('x', ' x ')}, s = 4, k = {k}, 20 passes",
                   {"task": "pq-train", **shape, "dim": 4, "k": k, "iterations": 20},
                   {"rows": 500, "cols": 16, "k": 16, "iterations": 2}, (QEM, FAISS),
                   (Versus("FAISS", times, "not above"),))


def encoding():
    for k in 256, 1024, 4096:
        yield Case(f"encode/k{k}", f"PQ encoding, 100000 x 128, s = 4, k = {k}",
                   {"task": "encode", "method": "pq", **VECTORS, "dim": 4, "k": k, "iterations": 2},
                   {"rows": 500, "cols": 16, "k": 16}, (QEM, FAISS), (Versus("FAISS", 4, "same"),))


def decoding():
    for method, k, book, times, share in (("pq", 256, "f32", 4, 0.85), ("pq", 4096, "f32", None, 0.65),
                                          ("vq", 256, "f32", None, 0.85), ("vq", 4096, "f32", None, 0.65),
                                          ("vq", 4096, "f16", None, 0.80)):
        kind = "a codebook a group" if method == "pq" else "a shared codebook"
        peers = (FAISS,) if book == "f32" else ()
        yield Case(f"decode/{method}/k{k}/{book}", f"decoding to f32, 11008 x 4096, s = 4, k = {k}, {kind} of {book}",
                   {"task": "decode", "method": method, **LARGE, "dim": 4, "k": k, "codebook": book, "iterations": 1,
                    "repeat": 7},
                   {"rows": 300, "cols": 32, "k": 16, "repeat": 2}, (QEM, *peers),
                   (*(Versus(peer.name, times, "same") for peer in peers), Share(share)))


def hyperchr():
    recipe = ["--method", "hyperchr", "--ratio", "4", "--dim", "4", "--intervals", "3", "--iterations", "10"]
    for name, more, title, limits in (
            ("hyperchr/cell", [], "", (Most("seconds", 15, "s"), Most("memory", 2.5, "x the input"))),
            ("hyperchr/global", ["--assign", "global", "--refine", "3"], ", global assignment, 3 refinement passes",
             (Most("seconds", 40, "s"), Most("memory", 2.5, "x the input")))):
        yield Case(name, f"qem quantize, hyperchr, 11008 x 4096, ratio 4, 3 intervals, 10 passes{title}",
                   {"task": "command", **LARGE, "arguments": recipe + more}, {"rows": 128, "cols": 64}, (QEM,), limits)


def quantiles():
    yield Case("quantiles", "16 exact quantiles of 45 M floats", {"task": "quantiles", **LARGE, "quantiles": 16},
               {"rows": 301, "cols": 333}, (QEM, NUMPY), (Versus("numpy", 8),))


def products():
    for method, k, times in (("lloydmax", 16, 2), ("pq", 256, 3), ("vq", 4096, None)):
        for x in "float32", "float16":
            short = x.replace("loat", "")
            yield Case(f"gemv/{method}/k{k}/{short}", f"W x from cold caches, 11008 x 4096, {method}, k = {k}, x {short}",
                       {"task": "matmul", "method": method, **LARGE, "dim": 4, "k": k, "iterations": 1, "x": x,
                        "repeat": 7},
                       {"rows": 64, "cols": 128, "k": 16, "repeat": 2}, (QEM, NUMPY), (Versus("numpy", times),))


def all_cases():
    return [case for make in (kmeans, pq_training, encoding, decoding, hyperchr, quantiles, products) for case in make()]
