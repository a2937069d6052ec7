"""Our side: each class prepares its input and does one turn of a case through the public C API."""
import ctypes
import json
import os
import statistics
import subprocess
import time

import numpy as np

import data
import qemlib


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


class Task:
    def __init__(self, case, environment):
        self.case, self.environment = case, environment
        self.library = qemlib.Library(os.path.join(environment["build"], "lib", "libqem.so"), environment["threads"])

    def keep(self, name):
        """Path of a file that the other side may read."""
        return os.path.join(self.environment["work"], name)


class KmeansPass(Task):
    """A Lloyd pass: the passes of a longer run less those of a shorter one, so that seeding falls out."""

    def __init__(self, case, environment):
        super().__init__(case, environment)
        self.points = data.gaussian(case["rows"], case["dim"])
        self.centroids = data.empty(case["k"], case["dim"])

    def checksum(self):
        return data.checksum(self.points)

    def run(self):
        differences = []
        for _ in range(self.case["repeat"]):
            short, _ = timed(self.library.kmeans, self.points, self.case["k"], 1, self.centroids)
            long, _ = timed(self.library.kmeans, self.points, self.case["k"], 1 + self.case["passes"], self.centroids)
            differences.append((long - short) / self.case["passes"])
        return {"seconds": statistics.median(differences)}


class Kmeans(KmeansPass):
    """Seeding by k-means++ and some passes, whole."""

    def run(self):
        seconds, objective = timed(self.library.kmeans, self.points, self.case["k"], self.case["iterations"],
                                   self.centroids)
        return {"seconds": seconds, "error": objective / self.points.size}


class PqTrain(Task):
    """qem_quantize: seeding, Lloyd, codes, packing and all error measures."""

    def __init__(self, case, environment):
        super().__init__(case, environment)
        self.matrix = data.gaussian(case["rows"], case["cols"])

    def checksum(self):
        return data.checksum(self.matrix)

    def run(self):
        seconds, artifact = timed(lambda: self.library.quantize(
            self.matrix, "pq", k=self.case["k"], dim=self.case["dim"], iterations=self.case["iterations"]))
        error = artifact.info().metrics.mse
        artifact.close()
        return {"seconds": seconds, "error": error}


class WithArtifact(Task):
    """Leaves the codebook for the peer, so that both sides use the same one."""

    def __init__(self, case, environment):
        super().__init__(case, environment)
        codebook = {"f32": qemlib.F32, "f16": qemlib.F16}[case.get("codebook", "f32")]
        self.matrix = data.gaussian(case["rows"], case["cols"])
        options = {"dim": case["dim"]} if case["method"] != "lloydmax" else {}
        self.artifact = self.library.quantize(self.matrix, case["method"], k=case["k"], codebook=codebook,
                                              iterations=case["iterations"], **options)
        if codebook == qemlib.F32 and case["method"] != "lloydmax":
            np.save(self.keep("codebook.npy"), np.frombuffer(self.artifact.part("codebook"), np.float32))

    def checksum(self):
        return data.checksum(self.matrix)


class Encode(WithArtifact):
    def __init__(self, case, environment):
        super().__init__(case, environment)
        self.matrix = data.gaussian(case["rows"], case["cols"], seed=2)

    def run(self):
        seconds, artifact = timed(self.artifact.encode, self.matrix)
        error = artifact.info().metrics.mse
        artifact.close()
        return {"seconds": seconds, "error": error}


class Decode(WithArtifact):
    def __init__(self, case, environment):
        super().__init__(case, environment)
        self.out = data.empty(case["rows"], case["cols"])
        self.fill = None
        path = os.path.join(environment["build"], "lib", "libqem_bench_fill.so")
        if os.path.exists(path):
            self.fill = ctypes.CDLL(path).qem_bench_fill
            self.fill.argtypes, self.fill.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], None

    def run(self):
        decode, fill = [], []
        for _ in range(self.case["repeat"]):
            decode.append(timed(self.artifact.dequantize, self.out)[0])
            if self.fill:
                fill.append(timed(self.fill, self.out.ctypes.data, self.out.size, self.environment["threads"])[0])
        self.artifact.dequantize(self.out)
        error = float(np.square(self.out - self.matrix, dtype=np.float64).mean())
        answer = {"seconds": statistics.median(decode), "error": error}
        if fill:
            answer["fill_seconds"] = statistics.median(fill)
        return answer


class Matmul(WithArtifact):
    """y = W x with cold caches."""

    def __init__(self, case, environment):
        super().__init__(case, environment)
        self.workspace = np.zeros(self.artifact.matmul_workspace(1), np.uint8)
        self.x = data.gaussian(1, case["cols"], seed=3).astype(case["x"])
        self.y = data.empty(1, case["rows"])
        decoded = data.empty(case["rows"], case["cols"])
        self.artifact.dequantize(decoded)
        self.expected = decoded @ self.x[0].astype(np.float32)
        self.matrix, self.sum = None, data.checksum(self.matrix)
        self.flush = data.Flush()

    def checksum(self):
        return self.sum

    def run(self):
        seconds = []
        for _ in range(self.case["repeat"]):
            self.flush()
            seconds.append(timed(self.artifact.matmul, self.x, self.y, self.workspace)[0])
        difference = np.linalg.norm(self.y[0] - self.expected) / np.linalg.norm(self.expected)
        if not difference < 1e-3:
            raise qemlib.Error(f"qem_matmul is {difference:.2e} off the product with the decoded matrix")
        return {"seconds": statistics.median(seconds)}


class Quantiles(Task):
    def __init__(self, case, environment):
        super().__init__(case, environment)
        self.values = data.gaussian(case["rows"], case["cols"])
        self.cuts = np.zeros(case["quantiles"], np.float32)

    def checksum(self):
        return data.checksum(self.values)

    def run(self):
        seconds, _ = timed(self.library.quantiles, self.values, self.case["quantiles"] + 1, self.cuts)
        return {"seconds": seconds, "values": self.cuts.tolist()}


class Command(Task):
    """The command line on a file, in a process of its own: seconds from start to end, and its largest memory."""

    def __init__(self, case, environment):
        super().__init__(case, environment)
        self.qem = os.path.join(environment["build"], "bin", "qem")
        usage = subprocess.run([self.qem, "quantize", "--help"], check=True, capture_output=True, text=True).stdout
        usage = usage.partition("Not in this version")[0]
        for option in case["arguments"]:
            if option.startswith("--") and option + " " not in usage:
                raise qemlib.Missing(f"this qem has no {option}")
        self.bytes = case["rows"] * case["cols"] * 4
        np.save(self.keep("input.npy"), data.gaussian(case["rows"], case["cols"]))

    def checksum(self):
        return None

    def run(self):
        command = [self.qem, "quantize", self.keep("input.npy"), "-o", self.keep("output.safetensors"), "--json",
                   "--threads", str(self.environment["threads"]), *self.case["arguments"]]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
            report = json.loads(process.stdout.read())
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise qemlib.Error(f"{' '.join(command)} ended with {process.returncode}")
        return {"seconds": seconds, "memory": usage.ru_maxrss * 1024 / self.bytes, "error": report["mse"]}


TASKS = {"kmeans-pass": KmeansPass, "kmeans": Kmeans, "pq-train": PqTrain, "encode": Encode, "decode": Decode,
         "matmul": Matmul, "quantiles": Quantiles, "command": Command}


def prepare(case, environment):
    return TASKS[case["task"]](case, environment)


def about(environment):
    library = qemlib.Library(os.path.join(environment["build"], "lib", "libqem.so"), environment["threads"])
    return library.machine()
