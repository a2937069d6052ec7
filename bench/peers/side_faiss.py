"""FAISS as a careful user runs it: the blocked kernels also for few rows, no point dropped, outputs allocated before."""
import statistics
import time

import faiss
import numpy as np

import data

EVERY_POINT = 1 << 30  # FAISS drops points above 256 a centroid by itself


def set_up(threads):
    faiss.omp_set_num_threads(threads)
    # By default few rows take a path without blocks: training on 11008 x 512 then takes 8.7 times as long.
    faiss.cvar.distance_compute_blas_threshold = 20


def clustering(parameters, iterations):
    parameters.niter, parameters.seed, parameters.verbose = iterations, 1, False
    parameters.max_points_per_centroid, parameters.min_points_per_centroid = EVERY_POINT, 1


class Kmeans:
    """faiss.Clustering with an exact index; the objective is that of the final centroids."""

    def __init__(self, case, environment):
        set_up(environment["threads"])
        self.case = case
        self.points = data.gaussian(case["rows"], case["dim"])

    def checksum(self):
        return data.checksum(self.points)

    def train(self, iterations):
        parameters = faiss.ClusteringParameters()
        clustering(parameters, iterations)
        if self.case.get("faiss_seeding") == "k-means++":
            parameters.init_method = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
        start = time.perf_counter()
        trained = faiss.Clustering(self.case["dim"], self.case["k"], parameters)
        index = faiss.IndexFlatL2(self.case["dim"])
        trained.train(self.points, index)
        return time.perf_counter() - start, index

    def run(self):
        seconds, index = self.train(self.case["faiss_iterations"])
        distances, _ = index.search(self.points, 1)
        return {"seconds": seconds, "error": float(distances.sum(dtype=np.float64)) / self.points.size}


class KmeansPass(Kmeans):
    def run(self):
        short, _ = self.train(1)
        long, _ = self.train(1 + self.case["passes"])
        return {"seconds": (long - short) / self.case["passes"]}


def quantizer(case):
    bits = (case["k"] - 1).bit_length()
    if 1 << bits != case["k"]:
        raise ValueError("FAISS takes powers of two")
    return faiss.ProductQuantizer(case["cols"], case["cols"] // case["dim"], bits)


class PqTrain:
    """ProductQuantizer.train, which does not encode; the error is measured outside of the time."""

    def __init__(self, case, environment):
        set_up(environment["threads"])
        self.case, self.error = case, None
        self.matrix = data.gaussian(case["rows"], case["cols"])

    def checksum(self):
        return data.checksum(self.matrix)

    def run(self):
        pq = quantizer(self.case)
        clustering(pq.cp, self.case["iterations"])
        start = time.perf_counter()
        pq.train(self.matrix)
        seconds = time.perf_counter() - start
        if self.error is None:  # the same seed gives the same centroids: once is enough
            decoded = pq.decode(pq.compute_codes(self.matrix))
            self.error = float(np.square(decoded - self.matrix, dtype=np.float64).mean())
        return {"seconds": seconds, "error": self.error}


class WithCodebook:
    """A quantizer with the centroids that our side found. A shared codebook is one of rows of `dim` elements."""

    def __init__(self, case, environment):
        set_up(environment["threads"])
        self.case = case
        self.matrix = data.gaussian(case["rows"], case["cols"])
        shape = dict(case)
        if case["method"] == "vq":
            shape["cols"] = case["dim"]
        self.width = shape["cols"]
        self.pq = quantizer(shape)
        codebook = np.load(environment["work"] + "/codebook.npy")
        faiss.copy_array_to_vector(codebook, self.pq.centroids)

    def checksum(self):
        return data.checksum(self.matrix)

    def codes(self, matrix):
        rows = matrix.reshape(-1, self.width)
        codes = np.empty((len(rows), self.pq.code_size), np.uint8)
        self.pq.compute_codes_c(faiss.swig_ptr(rows), faiss.swig_ptr(codes), len(rows))
        return codes

    def decode(self, codes, out):
        self.pq.decode_c(faiss.swig_ptr(codes), faiss.swig_ptr(out), len(codes))


class Encode(WithCodebook):
    def __init__(self, case, environment):
        super().__init__(case, environment)
        self.matrix = data.gaussian(case["rows"], case["cols"], seed=2)
        self.error = None

    def run(self):
        start = time.perf_counter()
        codes = self.codes(self.matrix)
        seconds = time.perf_counter() - start
        if self.error is None:
            out = np.empty_like(self.matrix)
            self.decode(codes, out)
            self.error = float(np.square(out - self.matrix, dtype=np.float64).mean())
        return {"seconds": seconds, "error": self.error}


class Decode(WithCodebook):
    def __init__(self, case, environment):
        super().__init__(case, environment)
        self.coded = self.codes(self.matrix)
        self.out = data.empty(case["rows"], case["cols"])

    def run(self):
        seconds = []
        for _ in range(self.case["repeat"]):
            start = time.perf_counter()
            self.decode(self.coded, self.out)
            seconds.append(time.perf_counter() - start)
        error = float(np.square(self.out - self.matrix, dtype=np.float64).mean())
        return {"seconds": statistics.median(seconds), "error": error}


TASKS = {"kmeans-pass": KmeansPass, "kmeans": Kmeans, "pq-train": PqTrain, "encode": Encode, "decode": Decode}


def prepare(case, environment):
    return TASKS[case["task"]](case, environment)


def about(environment):
    return {"version": "FAISS " + faiss.__version__, "options": faiss.get_compile_options().strip()}
