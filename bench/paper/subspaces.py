"""QET's figures 3 to 26: MAE, MRE and MSE on 8, 16, 32 and 128 subspaces, for 1 to 4 levels (the paper's iterations).

Each QET is measured twice: with its maps in the budget (counted), and with PQ's k, as if the maps cost nothing (free);
ranges.py tells which of the two the paper did."""
import cell
import methods
import plot
import tables
from lab import Infeasible

TITLE = "QET by the number of subspaces (figures 3 to 26)"
FIGURES = ("k", "bits", "mae", "mre", "mse", "mse_inliers", "mae_inliers", "swap_map")


def k_of_pq(lab, dataset, dim, theta):
    """What PQ can afford at that ratio: QET's k where its maps are free."""
    try:
        return lab.quantize(dataset.paths[0], ["--method", "pq", "--dim", dim, "--ratio", theta, "--iterations", 0])["k"]
    except Infeasible:
        return None


def row(dataset, m, theta, method, level, maps, found):
    return {"dataset": dataset.name, "m": m, "theta": theta, "method": method, "level": level, "maps": maps, **found}


def one_size(lab, options, dataset, m, theta, names):
    dim = ["--dim", dataset.cols // m]
    for name in names:
        own = dim if name != "rtn" else []
        found = cell.measure(lab, dataset, [*methods.plain(name).options("--ratio", theta), *own], FIGURES)
        yield row(dataset, m, theta, name, 0, "counted", found)
    free_k = k_of_pq(lab, dataset, dim[1], theta)
    for level in options.levels:
        arguments = methods.qet(level).options(*dim)
        counted = cell.measure(lab, dataset, [*arguments, "--ratio", theta], FIGURES)
        yield row(dataset, m, theta, f"qet l={level}", level, "counted", counted)
        if free_k is not None:
            free = cell.measure(lab, dataset, [*arguments, "--k", free_k], FIGURES)
            yield row(dataset, m, theta, f"qet l={level}", level, "free", free)


def run(lab, options, sets, missing):
    dataset = sets[0]
    have = [method.name for method in cell.available(lab, methods.BASELINES, missing, "subspaces")]
    rows = []
    for m in options.subspaces:
        if dataset.cols % m:
            continue
        print(f"  {m} subspaces of {dataset.name}", flush=True)
        for theta in options.thetas:
            rows += one_size(lab, options, dataset, m, theta, have)
    for entry in rows:
        del entry["picked"], entry["reason"]
    return {"subspaces": rows}


def by_method(rows, figure, title):
    """A panel for each number of subspaces: the methods."""
    for m in dict.fromkeys(row["m"] for row in rows):
        mine = [row for row in rows if row["m"] == m and row["maps"] == "counted"]
        lines = {}
        for entry in mine:
            lines.setdefault(entry["method"], []).append((entry["theta"], entry[figure]))
        yield plot.Panel(f"{title} on {m} subspaces", "theta", title, lines)


def by_level(rows, figure, title):
    """A panel for each level: the numbers of subspaces. Level 0 is PQ."""
    rows = [row for row in rows if row["maps"] == "counted" and (row["method"] == "pq" or row["level"])]
    for level in sorted({row["level"] for row in rows}):
        lines = {}
        for entry in tables.where(rows, level=level):
            lines.setdefault(f"m = {entry['m']}", []).append((entry["theta"], entry[figure]))
        yield plot.Panel(f"{title}, {level} iterations" if level else f"{title}, PQ", "theta", title, lines)


def draw(found, folder):
    rows, pictures = found.get("subspaces", []), []
    if not rows:
        return pictures
    panels = [panel for figure, title in (("mae", "MAE"), ("mre", "MRE"), ("mse", "MSE"), ("mse_inliers", "inlier MSE"))
              for panel in by_method(rows, figure, title)]
    if plot.draw(f"{folder}/subspaces.svg", TITLE + ", maps counted", panels, 4):
        pictures.append(("subspaces.svg", "errors over theta by the number of subspaces (QET, figures 3 to 14)"))
    panels = [panel for figure, title in (("mae", "MAE"), ("mre", "MRE"), ("mse", "MSE"), ("mse_inliers", "inlier MSE"))
              for panel in by_level(rows, figure, title)]
    if plot.draw(f"{folder}/levels.svg", "QET by the number of iterations (figures 15 to 26), maps counted", panels, 5):
        pictures.append(("levels.svg", "errors over theta by the number of iterations (QET, figures 15 to 26)"))
    return pictures
