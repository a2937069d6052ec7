"""HyperChr's figure 4 (QT, DQT) and QET's QTR and DTR: seconds to quantize and to dequantize, and their ratios to PQ's,
from `qem compare`, which decodes with warm caches and takes medians; PQ runs in the same process."""
import cell
import methods
import plot
import tables
from lab import Failed, Infeasible, Refused

TITLE = "Times over the compression ratio (HyperChr, figure 4)"
NAMES = ("pq", "rtn", "opq", "lopq", "vq", "hyperchr", "auto")
SMALL = 1 << 19  # elements below which a run is repeated more often


def rows_of(dataset, names, results):
    for result in results:
        if result["method"] in names:
            yield {"dataset": dataset.name, "family": dataset.family, "rows": dataset.rows, "cols": dataset.cols,
                   "method": names[result["method"]], "theta": int(result["theta"]), "status": result["status"],
                   "bits": result["bits_per_element"], "quantize_seconds": result["quantize_seconds"],
                   "dequantize_seconds": result["dequantize_seconds"], "quantize_ratio": result["quantize_ratio"],
                   "dequantize_ratio": result["dequantize_ratio"]}


def beside_pq(lab, dataset, options, names, *arguments):
    """Times of the methods {qem's name: name in the table}, PQ first in the same process."""
    repeat = options.repeat if dataset.elements >= SMALL else 2 * options.repeat + 1
    first = [] if "pq" in names else ["pq"]
    try:
        results = lab.compare(dataset.paths[0], [*first, *names], options.thetas, "--repeat", repeat, *arguments)
    except (Failed, Infeasible, Refused) as why:
        lab.fail(f"times of {', '.join(names.values())} on {dataset.name}", str(why))
        return []
    return list(rows_of(dataset, names, results))


def run(lab, options, sets, missing):
    have = [method.name for method in cell.available(lab, [methods.plain(name) for name in NAMES], missing, "times")]
    rows = []
    for dataset in sets:
        print(f"  {dataset.name}, {dataset.rows} x {dataset.cols}", flush=True)
        rows += beside_pq(lab, dataset, options, {name: name for name in have})
        for level in options.levels:
            rows += beside_pq(lab, dataset, options, {"qet": f"qet l={level}"}, "--levels", level)
    return {"times": rows}


def draw(found, folder):
    rows, panels = found.get("times", []), []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        mine = tables.where(rows, dataset=dataset)
        names = list(dict.fromkeys(row["method"] for row in mine))
        for figure, title in (("quantize_seconds", "QT, s"), ("dequantize_seconds", "DQT, s"), ("quantize_ratio", "QTR"),
                              ("dequantize_ratio", "DTR")):
            lines = {name: [(row["theta"], row[figure]) for row in tables.where(mine, method=name)] for name in names}
            panels.append(plot.Panel(f"{dataset}: {title}", "theta", title, lines))
    if panels and plot.draw(f"{folder}/times.svg", TITLE, panels, 4):
        return [("times.svg", "seconds, and ratios to PQ's, over theta")]
    return []
