"""scikit-learn's KMeans: Lloyd from random rows (its k-means++ would take minutes at this k)."""
import time

import sklearn
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

import data


class Kmeans:
    def __init__(self, case, environment):
        self.case, self.threads = case, environment["threads"]
        self.points = data.gaussian(case["rows"], case["dim"])

    def checksum(self):
        return data.checksum(self.points)

    def run(self):
        model = KMeans(self.case["k"], init="random", n_init=1, max_iter=self.case["sklearn_iterations"], tol=0.0,
                       algorithm="lloyd", random_state=1)
        with threadpool_limits(self.threads):
            start = time.perf_counter()
            model.fit(self.points)
            seconds = time.perf_counter() - start
        return {"seconds": seconds, "error": float(model.inertia_) / self.points.size}


TASKS = {"kmeans": Kmeans}


def prepare(case, environment):
    return TASKS[case["task"]](case, environment)


def about(environment):
    return {"version": "scikit-learn " + sklearn.__version__}
