"""The points of a subject: a method at a number of bits, quantized by the command line, and the quality of what comes out.

Finished points are kept in a file, so that a run that was ended goes on where it stood."""
import hashlib
import json
import os

import numpy as np

import checkpoint
import sources
from lab import Infeasible

# With --mixed on the ranges' share of a budget (0.25 bit an element in blocks of 128 and of 64) leaves no codes unused.
METHODS = {"auto": ("--method", "auto"),
           "rtn block:128": ("--method", "grid", "--grid", "block:128", "--mixed", "on"),
           "nf block:64": ("--method", "nf", "--grid", "block:64", "--mixed", "on"),
           "hyperchr": ("--method", "hyperchr"),
           "qet": ("--method", "qet")}
RATES = (2, 3, 4, 4.25, 5, 6, 8)  # at 4.25 blocks have whole codes of 4 bits: nf is what is called nf4
NONE = "not quantized"


def quantize(lab, linear, arguments, output):
    """All calls of `qem quantize` are this one: every matrix of the file gets the same budget. -> the report"""
    return lab.quantize(linear, [*arguments, "--uniform"], output)


def measure(lab, subject, linear, energy, method, bits):
    """-> a row of the table"""
    row = {"model": subject.name, "method": method, "options": " ".join(METHODS[method]), "budget": bits}
    artifact = lab.file("artifact.safetensors")
    try:
        report = quantize(lab, linear, [*METHODS[method], "--bits", bits], artifact)
    except Infeasible as why:
        return {**row, "status": "not reached", "reason": str(why)}
    parts = report["tensors"]
    row.update(status="ok", reason=None, stored_bits=report["bits_per_element"], stored_bytes=report["stored_bytes"],
               nmse=sum(part["mse"] * part["rows"] * part["cols"] for part in parts) / energy,
               quantize_seconds=sum(part["quantize_seconds"] for part in parts))
    return {**row, **{key: float(value) for key, value in subject.quality(artifact).items()}}


def stamp(lab, subject, linear, programs):
    """What a finished point depends on beside its method and budget."""
    ours = ["bert.py", "checkpoint.py", "subjects.py", "tokens.py"] + ([subject.inputs] if subject.inputs else [])
    files = [linear, *programs, *(os.path.join(sources.HERE, name) for name in ours)]
    words = [sources.sha256(path) for path in files if os.path.exists(path)]
    return hashlib.sha256(" ".join([*words, str(lab.threads), np.__version__]).encode()).hexdigest()


class Kept:
    """Finished points of one subject."""

    def __init__(self, path, stamp_):
        self.path, self.content = path, {"stamp": stamp_, "points": {}}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                before = json.load(file)
            if before["stamp"] == stamp_:
                self.content = before

    def get(self, key):
        return self.content["points"].get(key)

    def put(self, key, row):
        self.content["points"][key] = row
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump(self.content, file, indent=1)
        os.replace(self.path + ".new", self.path)


def rows_of(lab, subject, place, programs, methods, rates):
    """All rows of a subject: the model as it is, then every method at every rate."""
    linear = os.path.join(place, f"{subject.name}-linear.safetensors")
    checkpoint.write_safetensors(linear, subject.linear)
    energy = sum(float(np.square(array, dtype=np.float64).sum()) for array in subject.linear.values())
    kept = Kept(os.path.join(place, f"{subject.name}-points.json"), stamp(lab, subject, linear, programs))
    original = {key: float(value) for key, value in subject.quality().items()}
    bare = {"model": subject.name, "method": NONE, "options": None, "budget": 32, "status": "ok", "reason": None,
            "stored_bits": 32, "stored_bytes": 4 * sum(array.size for array in subject.linear.values()), "nmse": 0,
            "quantize_seconds": None}
    rows = [{**bare, **original}]
    for bits in rates:
        for method in methods:
            key = f"{' '.join(METHODS[method])} --bits {bits:g}"
            row = kept.get(key)
            if row is None:
                row = measure(lab, subject, linear, energy, method, bits)
                kept.put(key, row)
            rows.append({**dict.fromkeys(rows[0]), **row})
            figure = row.get(subject.main)
            print(f"{subject.name:12} {method:14} {bits:5g} bits  "
                  f"{'not reached' if figure is None else f'{subject.main} {figure:.5g}'}", flush=True)
    return rows
