"""The matrices: generated ones, and the files of a folder (npy, fvecs, bvecs), cut to some rows."""
import os
from dataclasses import dataclass
from typing import Optional

import numpy as np

# Families of the papers' data sets, told by the file's name: a word in it, or with "_" how it begins.
FAMILIES = (("sift", "sift"), ("gist", "gist"), ("kv_", "kv"), ("w_", "weights"), ("emb_", "embeddings"),
            ("wiki", "embeddings"), ("act_", "activations"))
TYPES = (np.float32, np.float16, np.float64, np.uint8)


@dataclass
class Dataset:
    name: str
    family: str
    rows: int
    cols: int
    paths: list                     # one a seed; a file has one
    inliers: Optional[tuple] = None  # range of the elements that are no outliers, where that is known

    @property
    def elements(self):
        return self.rows * self.cols


def family(name):
    return next((kind for word, kind in FAMILIES if name.startswith(word) or "_" not in word and word in name), "other")


def synthetic(lab, rows, cols, seeds):
    """normal(0.5, 0.16) truncated to [0,1], one element in 10 000 from uniform(-100,100): what lies outside [0,1] is an
    outlier (one in 200 of those drawn lies inside and counts as an inlier)."""
    paths = [lab.synthetic(rows, cols, seed) for seed in range(1, seeds + 1)]
    return Dataset("synthetic", "synthetic", rows, cols, paths, (0.0, 1.0))


def llm_like(lab, rows, cols):
    """A stand-in for a transformer's weights where no real ones are at hand: columns of different spread (log-normal, a
    factor of 1.6), values of Student's t with 6 degrees of freedom."""
    path = lab.file(f"llm_like_{rows}x{cols}.npy")
    if not os.path.exists(path):
        random = np.random.default_rng(7)
        scale = 0.02 * np.exp(random.normal(0.0, 0.5, cols))
        np.save(path, (random.standard_t(6, (rows, cols)) * scale).astype(np.float32))
    return Dataset("llm_like", "weights", rows, cols, [path])


def vectors(path):
    """Rows of an .npy, .fvecs or .bvecs file, mapped; None if it holds no matrix of numbers."""
    try:
        if path.endswith(".npy"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return array if array.ndim == 2 and array.size and array.dtype in TYPES else None
        element = np.dtype(np.float32 if path.endswith(".fvecs") else np.uint8)
        dimension = int(np.fromfile(path, "<i4", 1)[0])
        record = np.dtype([("dimension", "<i4"), ("vector", element, (dimension,))])
        return np.memmap(path, record, mode="r")["vector"]
    except (OSError, ValueError, IndexError, EOFError):  # truncated, empty, pickled, ...
        return None


def files(folder):
    """-> (name, path) of every matrix in a folder and its subfolders, by name: the file's stem, after those of its folders
    where two have the same."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names
             if name.endswith((".npy", ".fvecs", ".bvecs"))]
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    whole = [os.path.relpath(path, folder).replace(os.sep, "_") for path in paths]
    return sorted((stem if stems.count(stem) == 1 else name, path) for stem, name, path in zip(stems, whole, paths))


def from_file(lab, name, path, most_rows):
    """The file itself, or evenly spaced rows of it as an .npy of the same type."""
    array = vectors(path)
    if array is None:
        return None
    if len(array) > most_rows:
        chosen = np.linspace(0, len(array) - 1, most_rows).round().astype(np.int64)
        path = lab.file(f"{name}_{most_rows}.npy")
        if not os.path.exists(path):
            np.save(path, np.ascontiguousarray(array[chosen]))
    return Dataset(name, family(name), min(len(array), most_rows), array.shape[1], [path])


def all_sets(lab, options):
    """Synthetic data; real files where a folder is given, else the stand-in for weights."""
    sets = [synthetic(lab, *options.shape, options.seeds)]
    if not options.data:
        return sets + [llm_like(lab, *options.llm_shape)]
    for name, path in files(options.data):
        dataset = from_file(lab, name, path, options.rows)
        if dataset is None:
            print(f"{path}: left out, it holds no matrix of f32, f16, f64 or u8", flush=True)
        else:
            sets.append(dataset)
    return sets


def representatives(sets):
    """One set a family, the largest: for timings."""
    best = {}
    for dataset in sets:
        if dataset.family not in best or dataset.elements > best[dataset.family].elements:
            best[dataset.family] = dataset
    return list(best.values())
