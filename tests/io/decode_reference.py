#!/usr/bin/env python3
"""decode_reference.py IN.safetensors OUT.npy [NAME]: decodes an artifact, from the definition alone."""
import json, struct, sys
from statistics import NormalDist
import numpy as np

f32 = np.float32
TYPES = {"F32": "<f4", "F16": "<f2", "U32": "<u4", "U64": "<u8"}

def read(path):
    raw = open(path, "rb").read()
    begin = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:begin])
    metadata = header.pop("__metadata__")
    return metadata, {name: np.frombuffer(raw[begin:][slice(*t["data_offsets"])], TYPES.get(t["dtype"], "u1"))
                      for name, t in header.items()}

def fma(x, y, z):  # of f32: the double sum is rounded to odd, so that only the last rounding counts
    a, b = np.asarray(x, "f8") * np.asarray(y, "f8"), np.asarray(z, "f8")
    s = a + b
    rest = (a - (s - (s - a))) + (b - (s - a))
    even = s.view(np.int64) % 2 == 0
    return np.where((rest != 0) & even, np.nextafter(s, np.copysign(np.inf, rest)), s).astype(f32)

def stream(data, count, bits):
    if bits == 0:
        return np.zeros(count, np.int64)
    flat = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    return (flat.astype(np.int64) << np.arange(bits)).sum(1)

def unswap(y, data, levels):
    n, widths, maps, at = len(y), [[y.shape[1]]], [], 0
    for _ in range(levels):
        widths.append([half for c in widths[-1] for half in (c - c // 2, c // 2)])
    flat = np.unpackbits(data, bitorder="little")
    for c in sum(widths[:-1], []):
        maps.append(flat[at:at + n * (c // 2)].reshape(n, c // 2) == 1)
        at += n * (c // 2)
    for level in reversed(widths[:-1]):
        maps, here, at = maps[:-len(level)], maps[-len(level):], 0
        for c, left_is_smaller in zip(level, here):
            p, leaf = c // 2, y[:, at:at + c].copy()
            y[:, at:at + 2 * p:2] = np.where(left_is_smaller, leaf[:, :p], leaf[:, c - p:])
            y[:, at + 1:at + 2 * p:2] = np.where(left_is_smaller, leaf[:, c - p:], leaf[:, :p])
            y[:, at + 2 * p:at + c] = leaf[:, p:c - p]
            at += c

def normal_float(k):
    """NormalFloat (Dettmers et al. 2023): of 16 levels those that the paper prints, else as its formula has them."""
    if k == 16:
        return np.array([-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                         -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
                         0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                         0.7229568362236023, 1], f32)
    quantile, half = NormalDist().inv_cdf, k // 2
    p = 0.98 if k == 8 else 1 - 0.5 * (1 / (2 * k - 2) + 1 / (2 * k))
    below = [-quantile(p + (0.5 - p) * i / (half - 1)) for i in range(half - 1)]
    above = [quantile(0.5 + (p - 0.5) * i / half) for i in range(half + 1)]
    return (np.array(below + above) / quantile(p)).astype(f32)

def books(part, stage, widths, bits, cells):
    """The codebook of each cell and group: [k, width] floats. A shared one is that of every group."""
    k, kind = stage["k"], stage["kind"]
    if kind == "uniform":
        return [[fma(np.arange(k), part["scale"][0], part["mean"][0]).reshape(k, 1)] * len(widths)]
    if kind == "table":
        levels = normal_float(k) if stage["table"] == "nf" else np.arange(k, dtype=f32) / f32(max(k - 1, 1))
        return [[levels.reshape(k, 1)] * len(widths)]
    shapes = [(k, stage["dim"])] if kind == "shared" else [(2 ** b if "group_bits" in stage else k, w)
                                                           for w, b in zip(widths, bits)] * cells
    data, own, at, component = part["codebook"], [], 0, 0
    if "codebook_bits" in stage:
        data = stream(data, sum(a * b for a, b in shapes), stage["codebook_bits"])
        scale = part["codebook_scale"].reshape(-1, 2)
    for entries, width in shapes:
        book = data[at:at + entries * width].reshape(entries, width)
        if "codebook_bits" in stage:
            book = fma(book, scale[component:component + width, 0], scale[component:component + width, 1])
        own.append(book.astype(f32))
        at, component = at + entries * width, component + width
    if kind == "shared":
        return [[own[0][:, :w] for w in widths]]
    return [own[c * len(widths):(c + 1) * len(widths)] for c in range(cells)]

def decode_stage(part, stage, rows, d):
    n, s, cells = stage.get("row_end", rows) - stage.get("row_begin", 0), stage["dim"], stage.get("cells", 0)
    widths = [min(s, d - at) for at in range(0, d, s)]
    bits = [int(b) for b in part["group_bits"]] if stage.get("group_bits") else [stage["code_bits"]] * len(widths)
    rest = np.unpackbits(part.get("codes", np.zeros(0, "u1")), count=n * sum(bits), bitorder="little").reshape(n, sum(bits))
    cell = stream(part["row_cells"], n, (cells - 1).bit_length()) if cells > 1 else np.zeros(n, int)
    own, y, at = books(part, stage, widths, bits, max(cells, 1)), np.empty((n, d), f32), 0
    for g, (width, b) in enumerate(zip(widths, bits)):
        codes = (rest[:, at:at + b].astype(np.int64) << np.arange(b)).sum(1)
        for c in range(max(cells, 1)):
            y[cell == c, g * s:g * s + width] = own[c][g][codes[cell == c]]
        at += b
    unswap(y, part.get("swap_map", np.zeros(0, "u1")), stage["levels"])
    if cells:
        rotation = part["rotation"].reshape(cells, d, d)[cell]
        out = part["coarse"].reshape(cells, d)[cell] if cells > 1 else np.zeros((n, d), f32)
        for p in range(d):
            out = fma(y[:, p:p + 1], rotation[:, p], out)
        y = out
    return y

def parameters(part, step, name, units):
    stored, bits = part[step["axis"] + "_" + name], step["params"]
    if bits >= 16:
        return stored.astype(f32)
    block = step.get("block", 1)
    per_super = 256 if step["axis"] != "block" else max(256 // block, 1)
    supers = part[step["axis"] + "_" + name + "_super"].astype(f32)[np.arange(units) // per_super]
    half = 2 ** (bits - 1) if name == "mean" else 0
    q = (stream(stored, units, bits) - half).astype(f32)
    return q * (supers / f32(half - 1 if half else 2 ** bits - 1))

def take_step(y, part, step):
    n, d = y.shape
    block = step.get("block", 1)
    per_row = -(-d // block)
    unit = {"tensor": np.zeros((n, d), int), "row": np.arange(n)[:, None] + np.zeros((1, d), int),
            "column": np.arange(d)[None] + np.zeros((n, 1), int),
            "block": np.arange(n)[:, None] * per_row + np.arange(d)[None] // block}[step["axis"]]
    units = {"tensor": 1, "row": n, "column": d, "block": n * per_row}[step["axis"]]
    scale = parameters(part, step, "scale", units)[unit] if step["scale"] else f32(1)
    return fma(y, scale, parameters(part, step, "mean", units)[unit] if step["mean"] else f32(0))

metadata, tensors = read(sys.argv[1])
name = sys.argv[3] if len(sys.argv) > 3 else next(key[13:] for key in metadata if key.startswith("qem.artifact."))
text, total = json.loads(metadata["qem.artifact." + name]), None
n, d, stages, parts = text["rows"], text["cols"], text["stages"], []
for i, stage in enumerate(stages):
    prefix = name + (".%d." % i if i else ".")
    parts.append({key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)})
for layer in text.get("layers", [{"stage_first": i, "stage_count": 1} for i in range(len(stages))]):
    first = layer["stage_first"]
    y = np.concatenate([decode_stage(parts[i], stages[i], n, d) for i in range(first, first + layer["stage_count"])])
    for step in layer.get("steps", []):
        y = take_step(y, parts[first], step)
    total = y if total is None else total + y
if "outliers" in text:
    total.reshape(-1)[parts[0]["outlier_index"]] = parts[0]["outlier_value"].astype(f32)
np.save(sys.argv[2], total)
