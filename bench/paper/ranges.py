"""QET's table 1: the range of what quantization leaves over as a share of the matrix's range, and the codebook's share of
the memory, at ratios 4, 8, 12 and 16. The paper does not say on how many subspaces, nor whether the maps count: all are
tried."""
import cell
import methods
import subspaces
import tables

TITLE = "Range ratio and codebook proportion (QET, table 1)"
PAPER = {4: (1.6, 87.5), 8: (4.0, 78.1), 12: (9.2, 71.8), 16: (29.7, 62.5)}
FIGURES = ("k", "bits", "range_ratio", "codes", "codebook", "swap_map")


def without_maps(found):
    """The codebook's share of codes and codebook alone."""
    there = found["codes"], found["codebook"]
    return there[1] / sum(there) if None not in there else None


def run(lab, options, sets, missing):
    del missing
    dataset, rows = sets[0], []
    for m in options.subspaces:
        if dataset.cols % m:
            continue
        dim = dataset.cols // m
        print(f"  {m} subspaces of {dataset.name}", flush=True)
        for theta in (theta for theta in PAPER if theta in options.thetas):
            budgets = [("counted", ["--ratio", theta])]
            free_k = subspaces.k_of_pq(lab, dataset, dim, theta)
            if free_k is not None:
                budgets.append(("free", ["--k", free_k]))
            for level in (0, 1):
                for maps, budget in budgets[:1 + level]:
                    method = methods.qet(level) if level else methods.plain("pq")
                    found = cell.measure(lab, dataset, [*method.options("--dim", dim), *budget], FIGURES)
                    share = without_maps(found) if maps == "free" or not level else found["codebook"]
                    rows.append({"dataset": dataset.name, "m": m, "theta": theta, "level": level, "maps": maps,
                                 "status": found["status"], "seeds": found["seeds"], "k": found["k"],
                                 "range_percent": percent(found["range_ratio"]), "codebook_percent": percent(share)})
    return {"ranges": rows}


def percent(share):
    return None if share is None else 100.0 * share


def draw(found, folder):
    del found, folder
    return []


def table(rows):
    """Markdown: a row for each way to count, the paper's last."""
    yield "| subspaces | levels | maps | " + " | ".join(f"theta {theta}" for theta in PAPER) + " |"
    yield "|---:|---:|---|" + "---:|" * len(PAPER)
    for key in dict.fromkeys((row["m"], row["level"], row["maps"]) for row in rows):
        m, level, maps = key
        cells = []
        for theta in PAPER:
            there = tables.where(rows, m=m, level=level, maps=maps, theta=theta, status="ok")
            cells.append(f"{there[0]['range_percent']:.1f} / {there[0]['codebook_percent']:.1f}" if there else "-")
        yield f"| {m} | {level or 'PQ'} | {maps if level else ''} | " + " | ".join(cells) + " |"
    yield "| | | QET paper | " + " | ".join(f"{low:g} / {share:g}" for low, share in PAPER.values()) + " |"
