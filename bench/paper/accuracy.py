"""HyperChr's figure 3, and MRE: the errors of every method over theta, on every data set."""
import cell
import methods
import plot
import tables

TITLE = "Errors over the compression ratio (HyperChr, figure 3)"
ERRORS = (("mse", "MSE"), ("mae", "MAE"), ("mre", "MRE"), ("mse_inliers", "MSE of the inliers"),
          ("mae_inliers", "MAE of the inliers"))


def run(lab, options, sets, missing):
    rows = []
    for dataset in sets:
        wanted = methods.for_synthetic() if dataset.inliers else methods.for_files()
        print(f"  {dataset.name}, {dataset.rows} x {dataset.cols}", flush=True)
        for method in cell.available(lab, wanted, missing, "accuracy"):
            for theta in options.thetas:
                found = cell.measure(lab, dataset, method.options("--ratio", theta))
                rows.append({"dataset": dataset.name, "family": dataset.family, "rows": dataset.rows, "cols": dataset.cols,
                             "method": method.name, "accounting": method.accounting, "theta": theta, **found})
    return {"accuracy": rows}


def lines(rows, figure, names):
    return {name: [(row["theta"], row[figure]) for row in tables.where(rows, method=name)] for name in names}


def panels_of(rows, dataset, names, figures):
    mine = tables.where(rows, dataset=dataset, accounting="honest")
    return [plot.Panel(f"{dataset}: {title}", "theta", title, lines(mine, figure, names)) for figure, title in ERRORS
            if figure in figures]


def shown(rows):
    """The names of the lines of a figure: the methods without the many variants of QET."""
    return [name for name in dict.fromkeys(row["method"] for row in rows)
            if not any(word in name for word in ("l=2", "l=3", " RO", " CQO", "global"))]


def optimized_panels(rows):
    """A panel for each number of levels: QET alone, with RO, with CQO, with both; and PQ."""
    levels = [level for level in methods.LEVELS if tables.where(rows, method=f"qet l={level}")]
    for figure, title in (("mse", "MSE"), ("mse_inliers", "MSE of the inliers")):
        for level in levels:
            names = ["pq", *(f"qet l={level}{more}" for more in ("", " RO", " CQO", " RO CQO"))]
            mine = {name.replace(f" l={level}", ""): points for name, points in lines(rows, figure, names).items()}
            yield plot.Panel(f"{title}, {level} level{'s' * (level > 1)}", "theta", title, mine)


def draw(found, folder):
    """-> (file, words) of every figure: the synthetic data with their inliers, the others by family."""
    rows, pictures = found.get("accuracy", []), []
    for family in dict.fromkeys(row["family"] for row in rows):
        members = list(dict.fromkeys(row["dataset"] for row in tables.where(rows, family=family)))
        if family == "synthetic":
            panels = panels_of(rows, members[0], shown(rows), [figure for figure, _ in ERRORS])
        else:
            panels = [panel for member in members for panel in panels_of(rows, member, shown(rows), ("mse", "mae", "mre"))]
        if plot.draw(f"{folder}/accuracy_{family}.svg", TITLE, panels, 3):
            pictures.append((f"accuracy_{family}.svg", f"errors over theta, {family}"))
    panels = list(optimized_panels(tables.where(rows, dataset="synthetic", accounting="honest")))
    if panels and plot.draw(f"{folder}/accuracy_qet.svg", "QET and its optimizations, synthetic data", panels, 4):
        pictures.append(("accuracy_qet.svg", "QET with its optimizations RO and CQO, synthetic data"))
    return pictures
