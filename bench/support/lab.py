"""Runs the command line `qem` and reads its reports; knows which methods and options this build lacks."""
import json
import os
import re
import subprocess

ABSENT = re.compile(r"not in this version|is unknown|does not carry out")
BUDGET = re.compile(r"budget|largest ratio that fits|one centroid takes")


class Refused(Exception):
    """This build does not have the method or option; the text says which."""


class Infeasible(Exception):
    """Nothing fits in the budget; the text says why."""


class Failed(Exception):
    """qem ended with an error that no budget explains."""


class Lab:
    """One `qem`, a number of threads, and a folder for files that live as long as the run."""

    def __init__(self, qem, threads, scratch):
        self.qem, self.threads, self.scratch = qem, threads, scratch
        self.answers, self.failures = {}, []
        self.about = self.ask("device", "--json")

    def ask(self, *arguments):
        """-> the JSON report of a command."""
        command, environment = [self.qem, *map(str, arguments)], dict(os.environ)
        if arguments[0] != "compare":  # what is timed keeps OpenMP's own way to wait; else threads must not spin
            environment.setdefault("OMP_WAIT_POLICY", "passive")
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
        if done.returncode == 0:
            return json.loads(done.stdout)
        words = [line for line in done.stderr.splitlines() if line.strip()]
        reason = words[-1].removeprefix("qem: ") if words else f"{' '.join(command)} ended with {done.returncode}"
        if done.returncode == 2 or ABSENT.search(reason):
            raise Refused(reason)
        raise (Infeasible if BUDGET.search(reason) else Failed)(reason)

    def file(self, name):
        return os.path.join(self.scratch, name)

    def synthetic(self, rows, cols, seed, outlier_rate=1e-4):
        """Path of the papers' synthetic matrix, made once for each seed."""
        path = self.file(f"synthetic_{rows}x{cols}_{seed}_{outlier_rate:g}.npy")
        if not os.path.exists(path):
            self.ask("generate", "synthetic", "-o", path, "--rows", rows, "--cols", cols, "--seed", seed,
                     "--outlier-rate", outlier_rate, "--json")
        return path

    def quantize(self, path, arguments, output=None):
        output = output or self.file("artifact.safetensors")
        return self.ask("quantize", path, "-o", output, "--threads", self.threads, "--json", *arguments)

    def decode(self, path):
        """Path of the decoded matrix."""
        output = self.file("decoded.npy")
        self.ask("dequantize", path, "-o", output, "--threads", self.threads, "--json")
        return output

    def compare(self, path, methods, ratios, *arguments):
        return self.ask("compare", path, "--methods", ",".join(methods), "--ratios", ",".join(f"{r:g}" for r in ratios),
                        "--threads", self.threads, "--json", *arguments)["results"]

    def lacks(self, arguments):
        """Why this build cannot carry out these options, or None: tried once, on a small matrix."""
        key = tuple(arguments)
        if key not in self.answers:
            try:
                self.quantize(self.synthetic(512, 32, 0), [*arguments, "--ratio", 2, "--iterations", 1])
                self.answers[key] = None
            except Infeasible:
                self.answers[key] = None
            except Refused as reason:
                self.answers[key] = str(reason)
            except Failed as reason:
                self.answers[key] = f"it failed: {reason}"
                self.fail(" ".join(map(str, arguments)), str(reason))
        return self.answers[key]

    def has_gpu(self):
        return bool(self.about.get("gpus"))

    def fail(self, what, reason):
        """Notes an error and goes on; the run then ends with 1."""
        self.failures.append(f"{what}: {reason}")
        print(f"{what}: FAILED, {reason}", flush=True)
