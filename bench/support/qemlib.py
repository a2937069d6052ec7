"""The public C API (include/qem/qem.h) by ctypes, as far as the benchmarks call it.

Calls go straight to libqem.so, so what is timed is what a C program gets; the structs below repeat those of the header, and
the library refuses a struct of another size.
"""
import ctypes
import os
from ctypes import (POINTER, Structure, byref, c_char, c_char_p, c_double, c_int, c_size_t, c_uint32,
                    c_uint64, c_void_p)

METHODS = {"rtn": 1, "lloydmax": 2, "vq": 3, "pq": 4, "hyperchr": 5, "qet": 6, "grid": 7, "nf": 8, "opq": 9, "lopq": 10,
           "auto": 11}
DTYPES = {"float32": 1, "float16": 2, "float64": 4, "uint8": 5}
F32, F16 = 1, 2


class Parameters(Structure):
    """A struct of the header that begins with its size and version; `defaults` are those of its _INIT macro."""
    defaults = {}

    def __init__(self, **fields):
        super().__init__(size=ctypes.sizeof(type(self)), version=1, **{**self.defaults, **fields})


class ContextParams(Parameters):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("device", c_int), ("threads", c_uint32), ("isa", c_int),
                ("seed", c_uint64), ("allocate", c_void_p), ("release", c_void_p), ("user", c_void_p),
                ("progress", c_void_p), ("progress_user", c_void_p), ("reserved", c_uint64 * 8)]


class ContextInfo(Parameters):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("device", c_int), ("isa", c_int), ("threads", c_uint32),
                ("seed", c_uint64), ("device_name", c_char * 96), ("reserved", c_uint64 * 8)]


class View(Parameters):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("dtype", c_int), ("data", c_void_p), ("rows", c_uint64),
                ("cols", c_uint64), ("row_stride", c_uint64), ("col_stride", c_uint64), ("row_pitch_bytes", c_uint64),
                ("reserved", c_uint64 * 4)]


class Recipe(Parameters):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("method", c_int), ("ratio", c_double), ("bits", c_double),
                ("k", c_uint64), ("dim", c_uint32), ("intervals", c_uint32), ("levels", c_uint32), ("codebook", c_int),
                ("iterations", c_uint32), ("restarts", c_uint32), ("tolerance", c_double), ("accounting", c_int),
                ("assign", c_int), ("refine", c_uint32), ("codebook_bits", c_uint32), ("standardize", c_uint32),
                ("standardize_block", c_uint32), ("params", c_uint32), ("means", c_int), ("outliers", c_double),
                ("outlier_sigma", c_double), ("grid_axis", c_int), ("grid_block", c_uint32), ("rotation_start", c_int),
                ("cells", c_uint32), ("allocation", c_int), ("mixed", c_uint32), ("effort", c_uint32), ("reserved32", c_uint32),
                ("residual", c_void_p), ("share", c_double), ("importance", c_void_p), ("reserved", c_uint64 * 12)]
    defaults = {"levels": 0xFFFFFFFF, "codebook": F32, "iterations": 20, "restarts": 1, "effort": 1}


class Parts(Structure):
    _fields_ = [(name, c_uint64) for name in ("codes", "codebook", "codebook_scale", "swap_map", "scale", "mean", "rotation",
                                              "coarse", "outlier_index", "outlier_value", "group_bits")]
    _fields_ += [("reserved", c_uint64 * 5)]


class Metrics(Parameters):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("reserved32", c_uint32), ("mae", c_double), ("mse", c_double),
                ("mre", c_double), ("nmse", c_double), ("max_error", c_double), ("zeros", c_uint64), ("count", c_uint64),
                ("reserved", c_uint64 * 8)]


class ArtifactInfo(Parameters):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("method", c_int), ("name", c_char_p), ("rows", c_uint64),
                ("cols", c_uint64), ("source_dtype", c_int), ("dim", c_uint32), ("groups", c_uint64), ("k", c_uint64),
                ("code_bits", c_uint32), ("levels", c_uint32), ("intervals", c_uint32), ("codebook", c_int),
                ("cells", c_uint64), ("parts", Parts), ("stored_bytes", c_uint64), ("budget_bytes", c_uint64),
                ("bits_per_element", c_double), ("ratio", c_double), ("recipe", Recipe), ("seed", c_uint64),
                ("has_metrics", c_int), ("stages", c_uint32), ("metrics", Metrics), ("quantize_seconds", c_double),
                ("reserved", c_uint64 * 8)]


class Part(Parameters):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("dtype", c_int), ("name", c_char_p), ("data", c_void_p),
                ("bytes", c_uint64), ("rank", c_uint32), ("reserved32", c_uint32), ("shape", c_uint64 * 4),
                ("reserved", c_uint64 * 4)]


class KmeansParams(Parameters):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("iterations", c_uint32), ("restarts", c_uint32),
                ("reserved32", c_uint32), ("tolerance", c_double), ("problem", c_uint64), ("reserved", c_uint64 * 4)]
    defaults = {"iterations": 20, "restarts": 1}


PROTOTYPES = {
    "qem_context_create": [POINTER(ContextParams), POINTER(c_void_p)],
    "qem_context_query": [c_void_p, POINTER(ContextInfo)],
    "qem_quantize": [c_void_p, POINTER(View), c_char_p, POINTER(Recipe), POINTER(c_void_p)],
    "qem_encode": [c_void_p, c_void_p, POINTER(View), c_char_p, POINTER(c_void_p)],
    "qem_dequantize": [c_void_p, c_void_p, c_uint64, c_uint64, c_int, c_void_p, c_uint64],
    "qem_artifact_query": [c_void_p, POINTER(ArtifactInfo)],
    "qem_artifact_part": [c_void_p, c_uint32, POINTER(Part)],
    "qem_kmeans": [c_void_p, POINTER(View), c_uint64, POINTER(KmeansParams), c_void_p, c_void_p, POINTER(c_uint64),
                   POINTER(c_double)],
    "qem_quantiles": [c_void_p, POINTER(View), c_uint32, c_uint32, c_void_p],
    "qem_swap_forward": [c_void_p, POINTER(View), c_uint32, c_void_p, c_void_p],
    "qem_matmul": [c_void_p, c_void_p, c_uint64, c_int, c_void_p, c_uint64, c_int, c_void_p, c_uint64, c_void_p, c_uint64],
}


class Error(Exception):
    """A call returned something else than QEM_OK."""


class Missing(Exception):
    """The library has no such function: it is older than the benchmark."""


def view_of(array):
    """A view of a 2-D numpy array in C order, which must outlive it."""
    if not array.flags.c_contiguous:
        raise ValueError("views here are of contiguous arrays")
    return View(dtype=DTYPES[array.dtype.name], data=array.ctypes.data, rows=array.shape[0], cols=array.shape[1])


class Library:
    """libqem.so and one context with `threads` threads."""

    def __init__(self, path, threads=0):
        self.dll = ctypes.CDLL(os.fspath(path))
        for name, arguments in PROTOTYPES.items():
            function = getattr(self.dll, name, None)
            if function is not None:
                function.argtypes, function.restype = arguments, c_int
        if self.has("qem_matmul_workspace_size"):
            self.dll.qem_matmul_workspace_size.argtypes = [c_void_p, c_void_p, c_uint64]
            self.dll.qem_matmul_workspace_size.restype = c_uint64
        self.dll.qem_last_error.argtypes, self.dll.qem_last_error.restype = [c_void_p], c_char_p
        self.dll.qem_status_string.argtypes, self.dll.qem_status_string.restype = [c_int], c_char_p
        self.dll.qem_isa_name.argtypes, self.dll.qem_isa_name.restype = [c_int], c_char_p
        self.dll.qem_artifact_destroy.argtypes, self.dll.qem_artifact_destroy.restype = [POINTER(c_void_p)], None
        self.dll.qem_artifact_part_count.argtypes = [c_void_p]
        self.dll.qem_artifact_part_count.restype = c_uint32
        self.context = c_void_p()
        status = self.dll.qem_context_create(byref(ContextParams(threads=threads)), byref(self.context))
        if status != 0:
            raise Error(self.dll.qem_status_string(status).decode())

    def has(self, name):
        return hasattr(self.dll, name)

    def call(self, name, *arguments):
        """A function whose first argument is the context."""
        if not self.has(name):
            raise Missing(f"this libqem has no {name}")
        status = getattr(self.dll, name)(self.context, *arguments)
        if status != 0:
            raise Error(f"{name}: {self.dll.qem_last_error(self.context).decode()}")

    def machine(self):
        info = ContextInfo()
        if self.dll.qem_context_query(self.context, byref(info)) != 0:
            raise Error("qem_context_query refused its arguments")
        isa = self.dll.qem_isa_name(info.isa).decode()
        return {"cpu": info.device_name.decode(), "threads": info.threads, "isa": isa}

    def quantize(self, array, method, **recipe):
        artifact = c_void_p()
        recipe = Recipe(method=METHODS[method], **recipe)
        self.call("qem_quantize", byref(view_of(array)), b"bench", byref(recipe), byref(artifact))
        return Artifact(self, artifact)

    def kmeans(self, points, k, iterations, centroids):
        """Fills `centroids` (k x dim, float32); returns the sum of squared distances."""
        objective, used = c_double(), c_uint64()
        self.call("qem_kmeans", byref(view_of(points)), k, byref(KmeansParams(iterations=iterations)),
                  centroids.ctypes.data, None, byref(used), byref(objective))
        return objective.value

    def swap(self, array, levels):
        """The matrix after QET's pair swap, parts in depth-first order."""
        if not self.has("qem_swap_map_bytes"):
            raise Missing("this libqem has no qem_swap_map_bytes")
        self.dll.qem_swap_map_bytes.argtypes = [c_uint64, c_uint64, c_uint32]
        self.dll.qem_swap_map_bytes.restype = c_uint64
        ordered = array.astype("float32")
        swapped = (c_char * self.dll.qem_swap_map_bytes(*array.shape, levels))()
        self.call("qem_swap_forward", byref(view_of(array)), levels, ordered.ctypes.data, swapped)
        return ordered

    def quantiles(self, array, intervals, cuts):
        self.call("qem_quantiles", byref(view_of(array)), 1, intervals, cuts.ctypes.data)


class Artifact:
    """An artifact of a Library; ended by close()."""

    def __init__(self, library, pointer):
        self.library, self.pointer = library, pointer

    def close(self):
        self.library.dll.qem_artifact_destroy(byref(self.pointer))

    def info(self):
        info = ArtifactInfo()
        if self.library.dll.qem_artifact_query(self.pointer, byref(info)) != 0:
            raise Error("qem_artifact_query refused its arguments")
        return info

    def part(self, name):
        """Bytes of a stored tensor."""
        for index in range(self.library.dll.qem_artifact_part_count(self.pointer)):
            part = Part()
            if self.library.dll.qem_artifact_part(self.pointer, index, byref(part)) != 0:
                raise Error("qem_artifact_part refused its arguments")
            if part.name.decode() == name:
                return ctypes.string_at(part.data, part.bytes)
        raise Error(f"the artifact has no part {name}")

    def encode(self, array):
        artifact = c_void_p()
        self.library.call("qem_encode", self.pointer, byref(view_of(array)), b"bench", byref(artifact))
        return Artifact(self.library, artifact)

    def dequantize(self, out):
        self.library.call("qem_dequantize", self.pointer, 0, out.shape[0], DTYPES[out.dtype.name], out.ctypes.data, 0)

    def matmul_workspace(self, batch):
        """Bytes of scratch that matmul wants."""
        if not self.library.has("qem_matmul_workspace_size"):
            raise Missing("this libqem has no qem_matmul_workspace_size")
        return self.library.dll.qem_matmul_workspace_size(self.library.context, self.pointer, batch)

    def matmul(self, x, y, workspace):
        """y (batch x rows) = x (batch x cols) times the transposed decoded matrix."""
        self.library.call("qem_matmul", self.pointer, x.shape[0], DTYPES[x.dtype.name], x.ctypes.data, 0,
                          DTYPES[y.dtype.name], y.ctypes.data, 0, workspace.ctypes.data, workspace.nbytes)
