"""The methods that the experiments compare: a name and the options of `qem quantize` that make it."""
from dataclasses import dataclass

THETAS = (2, 4, 6, 8, 10, 12, 14, 16)
LOW, HIGH = (2, 4, 6, 8), (10, 12, 14, 16)  # HyperChr's two ranges of the compression ratio
LEVELS = (1, 2, 3, 4)
RESIDUAL, CODEBOOK = ("--residual", "qet"), ("--codebook", "u8")  # QET's optimizations RO and CQO


@dataclass(frozen=True)
class Method:
    name: str
    arguments: tuple
    accounting: str = "honest"

    def options(self, *more):
        return [*self.arguments, "--accounting", self.accounting, *map(str, more)]


def plain(name):
    return Method(name, ("--method", name))


def qet(level, residual=False, codebook=False):
    name = f"qet l={level}" + (" RO" if residual else "") + (" CQO" if codebook else "")
    more = (RESIDUAL if residual else ()) + (CODEBOOK if codebook else ())
    return Method(name, ("--method", "qet", "--levels", str(level)) + more)


BASELINES = [plain(name) for name in ("rtn", "pq", "opq", "lopq")]
PAPER_ACCOUNTING = [Method(name, ("--method", name), "paper") for name in ("pq", "hyperchr")]
OURS = [plain("vq"), plain("hyperchr"), Method("hyperchr global", ("--method", "hyperchr", "--assign", "global",
                                                                   "--refine", "5"))]
QETS = [qet(level) for level in LEVELS]
OPTIMIZED = [qet(level, residual, codebook) for level in LEVELS
             for residual, codebook in ((True, False), (False, True), (True, True))]
AUTO = plain("auto")


def for_synthetic():
    return BASELINES + OURS + QETS + OPTIMIZED + [AUTO] + PAPER_ACCOUNTING


def for_files():
    """On real files RO and CQO stand beside one level only."""
    return BASELINES + OURS + QETS + OPTIMIZED[:3] + [AUTO] + PAPER_ACCOUNTING
