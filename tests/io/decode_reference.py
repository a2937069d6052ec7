#!/usr/bin/env python3
"""decode_reference.py IN.safetensors OUT.npy [NAME]: decodes an artifact, from the definition alone."""
import json, struct, sys
import numpy as np

def read(path):
    raw = open(path, "rb").read()
    begin = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:begin])
    metadata, types = header.pop("__metadata__"), {"F32": "<f4", "F16": "<f2"}
    return metadata, {name: np.frombuffer(raw[begin:][slice(*t["data_offsets"])], types.get(t["dtype"], "u1"))
                      for name, t in header.items()}

def uniform(k, scale, mean):  # fma in f32: the double sum is rounded to odd, so that only the last rounding counts
    a, b = np.arange(k) * np.float64(scale), np.float64(mean)
    s = a + b
    rest = (a - (s - (s - a))) + (b - (s - a))
    even = s.view(np.int64) % 2 == 0
    return np.where((rest != 0) & even, np.nextafter(s, np.copysign(np.inf, rest)), s).astype(np.float32)

def unswap(y, stream, levels):
    n, widths, maps, at = len(y), [[y.shape[1]]], [], 0
    for _ in range(levels):
        widths.append([half for c in widths[-1] for half in (c - c // 2, c // 2)])
    flat = np.unpackbits(stream, bitorder="little")
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

def decode_stage(part, stage, n, d):
    s, k, b, m = stage["dim"], stage["k"], stage["code_bits"], -(-d // stage["dim"])
    bits = np.unpackbits(part["codes"], count=n * m * b, bitorder="little") if b else np.zeros(0, "u1")
    codes = (bits.reshape(n, m, b).astype(np.int64) << np.arange(b)).sum(2)
    if stage["kind"] == "uniform":
        book = uniform(k, part["scale"][0], part["mean"][0])
    else:
        book = part["codebook"].astype("f4")
    y = np.empty((n, d), "f4")
    for g in range(m):
        width = min(s, d - g * s)
        own = book[g * s * k:][:k * width].reshape(k, width) if stage["kind"] == "per_group" else book.reshape(k, s)
        y[:, g * s:g * s + width] = own[codes[:, g], :width]
    unswap(y, part.get("swap_map", np.zeros(0, "u1")), stage["levels"])
    return y

metadata, tensors = read(sys.argv[1])
name = sys.argv[3] if len(sys.argv) > 3 else next(key[13:] for key in metadata if key.startswith("qem.artifact."))
text, stages = json.loads(metadata["qem.artifact." + name]), []
for i, stage in enumerate(text["stages"]):
    prefix = name + (".%d." % i if i else ".")
    part = {key[len(prefix):]: value for key, value in tensors.items() if key.startswith(prefix)}
    stages.append(decode_stage(part, stage, text["rows"], text["cols"]))
np.save(sys.argv[2], sum(stages[1:], stages[0]))
