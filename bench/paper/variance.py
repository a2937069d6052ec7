"""QET's equation 3: the variance of the larger (smaller) of two normal numbers, 1 - 1/pi, from the library's own swap
(qem_swap_forward) on normal numbers and on the synthetic data without outliers; and the mean variance of the parts after
more levels."""
import math
import os

import numpy as np

import datasets
import qemlib

TITLE = "Variance after the swap (QET, equation 3)"


def part_variances(library, matrix, level):
    """Variances of the 2^level parts, as shares of the matrix's."""
    ordered = library.swap(matrix, level)
    whole = matrix.var(dtype=np.float64)
    return [float(part.var(dtype=np.float64) / whole) for part in np.split(ordered, 2 ** level, axis=1)]


def run(lab, options, sets, missing):
    del sets
    try:
        library = qemlib.Library(os.path.join(options.build, "lib", "libqem.so"), options.threads)
        normal = np.random.default_rng(3).standard_normal((options.samples // 16, 16), np.float32)
        clean = lab.synthetic(options.samples // 16, 16, 1, 0.0)
        matrices = {"normal": normal, "synthetic without outliers": np.asarray(datasets.vectors(clean), np.float32)}
        rows = []
        for name, matrix in matrices.items():
            for level in (level for level in options.levels if 2 ** level <= matrix.shape[1]):
                shares = part_variances(library, np.ascontiguousarray(matrix), level)
                rows.append({"matrix": name, "samples": matrix.size, "level": level, "mean": sum(shares) / len(shares),
                             "least": min(shares), "most": max(shares), "exact": 1 - 1 / math.pi if level == 1 else None})
        return {"variance": rows}
    except (OSError, qemlib.Error, qemlib.Missing) as why:
        missing.append({"experiment": "variance", "what": "qem_swap_forward", "reason": str(why)})
        print(f"    left out, {why}", flush=True)
        return {}


def draw(found, folder):
    del found, folder
    return []


def table(rows):
    yield "| matrix | levels | mean share of the variance | smallest part | largest part |"
    yield "|---|---:|---:|---:|---:|"
    for row in rows:
        yield f"| {row['matrix']} | {row['level']} | {row['mean']:.4f} | {row['least']:.4f} | {row['most']:.4f} |"
