"""numpy: exact quantiles, and the products of its OpenBLAS."""
import contextlib
import statistics
import time

import numpy as np

import data

try:
    from threadpoolctl import threadpool_limits
except ImportError:  # where there is numpy alone, the environment has set the number of threads
    threadpool_limits = contextlib.nullcontext


class Quantiles:
    def __init__(self, case, environment):
        self.values = data.gaussian(case["rows"], case["cols"])
        self.shares = np.arange(1, case["quantiles"] + 1) / (case["quantiles"] + 1)

    def checksum(self):
        return data.checksum(self.values)

    def run(self):
        start = time.perf_counter()
        cuts = np.quantile(self.values, self.shares)
        return {"seconds": time.perf_counter() - start, "values": [float(cut) for cut in cuts]}


class Matmul:
    """sgemv with cold caches; x is f32 on this side whatever it is on ours."""

    def __init__(self, case, environment):
        self.case, self.threads = case, environment["threads"]
        self.matrix = data.gaussian(case["rows"], case["cols"])
        self.x = data.gaussian(1, case["cols"], seed=3)[0].astype(case["x"]).astype(np.float32)
        self.y = np.zeros(case["rows"], np.float32)
        self.flush = data.Flush()

    def checksum(self):
        return data.checksum(self.matrix)

    def run(self):
        seconds = []
        with threadpool_limits(self.threads):
            for _ in range(self.case["repeat"]):
                self.flush()
                start = time.perf_counter()
                np.dot(self.matrix, self.x, out=self.y)
                seconds.append(time.perf_counter() - start)
        return {"seconds": statistics.median(seconds)}


TASKS = {"quantiles": Quantiles, "matmul": Matmul}


def prepare(case, environment):
    return TASKS[case["task"]](case, environment)


def about(environment):
    return {"version": "numpy " + np.__version__}
