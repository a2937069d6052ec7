"""Inputs of the cases: both sides make the same numbers from the same seed, and prove it with a checksum."""
import os
import zlib

import numpy as np

LINE = 64


def empty(rows, cols, dtype=np.float32):
    """An uninitialised matrix that begins at a cache line, as engines allocate theirs; its pages are there already."""
    size = rows * cols * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    memory[::4096] = 1
    start = -memory.ctypes.data % LINE
    return memory[start:start + size].view(dtype).reshape(rows, cols)


def gaussian(rows, cols, seed=1):
    out = empty(rows, cols)
    np.random.default_rng(seed).standard_normal(dtype=np.float32, out=out)
    return out


def checksum(array):
    return zlib.crc32(array[:: max(1, len(array) // 1024)].tobytes())


def last_level_cache():
    """Bytes of the largest cache, or 32 MiB where Linux does not say."""
    folder, largest = "/sys/devices/system/cpu/cpu0/cache", 32 << 20
    for index in os.listdir(folder) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, index, "size"), encoding="ascii") as file:
                largest = max(largest, int(file.read().strip().rstrip("K")) << 10)
        except (OSError, ValueError):
            continue
    return largest


class Flush:
    """Evicts everything from the caches by walking through twice their size."""

    def __init__(self):
        self.memory = np.zeros(last_level_cache() * 2 // 8, np.int64)

    def __call__(self):
        self.memory += 1
