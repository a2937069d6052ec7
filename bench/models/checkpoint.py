"""Files of weights: safetensors read and written, and checkpoints of PyTorch before 1.6 read without PyTorch."""
import collections
import json
import pickle
import struct

import numpy as np

TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8"),
         "I32": np.dtype("<i4")}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of a checkpoint of PyTorch


def read_safetensors(path):
    """-> {name: array}"""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack_from("<Q", data)
    header, start = json.loads(data[8:8 + length]), 8 + length
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if entry["dtype"] not in TYPES:
            raise ValueError(f"{path}: {name} is of type {entry['dtype']}")
        tensors[name] = np.frombuffer(data[start + begin:start + end], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def write_safetensors(path, tensors):
    """All as F32, in the order given."""
    header, blobs, offset = {}, [], 0
    for name, array in tensors.items():
        blob = np.ascontiguousarray(array, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        file.writelines(blobs)


class Storage:
    """The numbers that tensors are views of. They stand behind the pickles, so they come later."""

    def __init__(self, dtype, count):
        self.dtype, self.count, self.values = dtype, count, None


class View:
    def __init__(self, storage, offset, shape, strides, *_):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self):
        size = self.storage.dtype.itemsize
        steps = [stride * size for stride in self.strides]
        last = self.offset + sum((extent - 1) * stride for extent, stride in zip(self.shape, self.strides))
        if min(self.offset, *self.strides, 0) < 0 or self.storage.values is None or last >= self.storage.count:
            raise ValueError("a tensor reaches beyond its storage")
        return np.lib.stride_tricks.as_strided(self.storage.values[self.offset:], self.shape, steps).copy()


class Unpickler(pickle.Unpickler):
    """Knows what a dictionary of weights is made of, and refuses all else: a pickle may name any function."""
    KNOWN = {("collections", "OrderedDict"): collections.OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): View,
             ("torch", "FloatStorage"): TYPES["F32"], ("torch", "HalfStorage"): TYPES["F16"],
             ("torch", "DoubleStorage"): TYPES["F64"], ("torch", "LongStorage"): TYPES["I64"]}

    def __init__(self, file):
        super().__init__(file)
        self.storages = {}

    def find_class(self, module, name):
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"the checkpoint names {module}.{name}, which no weights need")
        return self.KNOWN[module, name]

    def persistent_load(self, identity):
        kind, dtype, key, _place, count, view = identity
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError("the checkpoint holds something that is no plain storage")
        return self.storages.setdefault(key, Storage(dtype, count))


def read_torch(path):
    """-> {name: array}"""
    with open(path, "rb") as file:
        def load():
            return Unpickler(file).load()
        if load() != MAGIC or load() != PROTOCOL or not load()["little_endian"]:
            raise ValueError(f"{path}: not a checkpoint of PyTorch before 1.6")
        unpickler = Unpickler(file)
        tensors, storages = unpickler.load(), unpickler.storages
        for key in load():
            storage = storages[key]
            (count,) = struct.unpack("<q", file.read(8))
            blob = file.read(count * storage.dtype.itemsize)
            if count != storage.count or len(blob) != count * storage.dtype.itemsize:
                raise ValueError(f"{path}: storage {key} is cut off")
            storage.values = np.frombuffer(blob, storage.dtype)
    return {name: view.array() for name, view in tensors.items()}
