"""The page of results and its figures, from the CSV files of a folder alone."""
import os
import statistics

import claims
import devices
import ladder
import methods
import prose
import ranges
import tables
import variance
from prose import percent

# What HyperChr's text says for each of its data sets: (MSE, MAE) against PQ in percent, at theta 2-8 and at 10-16.
PAPER_SETS = {"synthetic": ((-71.2, -47.8), (-41.2, -24.1)), "weights": ((-90.3, -71.4), (-46.7, -27.9)),
              "gist": ((-76.8, -58.5), (-16.8, -7.3)), "sift": ((-62.7, -43.6), (1.2, -0.5))}
AGAINST_PQ = ("opq", "lopq", "hyperchr", "qet l=1", "qet l=2", "qet l=3", "qet l=4", "auto")
THETAS_SHOWN = (4, 8, 16)
INTRODUCTION = """# The papers' experiments, done again

Made by `bench/paper/run --docs` from the CSV files that it links. The papers are HyperChr and QET; what they claim
stands first, with our figure and a verdict that a rule decides (`bench/paper/claims.py`).

Budgets count every stored byte: codes of whole bits, codebooks, swap maps, rotations, outlier lists. "The papers'
accounting" plans with fractional bits, and "maps not counted" gives QET the k of PQ: both are there to redo the papers'
numbers, and are named wherever they are used.
"""


# ---------------------------------------------------------------- tables

def claims_table(every):
    yield "| paper | claim | theirs | ours | |"
    yield "|---|---|---:|---:|---|"
    for claim in every:
        verdict = claim.verdict if claim.verdict == claims.UNKNOWN else f"**{claim.verdict}**"
        yield f"| {claim.paper} | {claim.words} | {prose.stated(claim)} | {prose.figure(claim, claim.ours)} | {verdict} |"


def sets_table(rows):
    """HyperChr against PQ on each of the paper's data sets, theirs beside ours."""
    yield "| data | theta | MSE paper | MSE ours | of inliers | MAE paper | MAE ours | of inliers |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for family, spans in PAPER_SETS.items():
        members = list(dict.fromkeys(row["dataset"] for row in tables.where(rows, family=family)))
        if not members:
            continue
        name = family if members == [family] else f"{family} ({', '.join(members)})"
        for thetas, (mse, mae) in zip((methods.LOW, methods.HIGH), spans):
            ours = {key: percent(claims.family_change(rows, family, key, thetas))
                    for key in ("mse", "mse_inliers", "mae", "mae_inliers")}
            cells = [name, f"{thetas[0]}-{thetas[-1]}", percent(mse), ours["mse"], ours["mse_inliers"], percent(mae),
                     ours["mae"], ours["mae_inliers"]]
            yield f"| {' | '.join(cells)} |"


def error_table(rows, dataset, key):
    """A row a method, a column a ratio; the least of a column is bold."""
    mine = tables.where(rows, dataset=dataset, accounting="honest")
    thetas = list(dict.fromkeys(row["theta"] for row in mine))
    cells = {(row["method"], row["theta"]): row[key] for row in mine if row["status"] == "ok" and row[key] is not None}
    best = {theta: min((value for (_, at), value in cells.items() if at == theta), default=None) for theta in thetas}
    yield f"| theta | {' | '.join(map(str, thetas))} |"
    yield "|---|" + "---:|" * len(thetas)
    for name in dict.fromkeys(row["method"] for row in mine):
        words = [cell_text(cells.get((name, theta)), best[theta]) for theta in thetas]
        yield f"| {name} | {' | '.join(words)} |"


def cell_text(value, best):
    if value is None:
        return "-"
    return f"**{value:.3g}**" if value == best else f"{value:.3g}"


def against_pq(rows):
    """NMSE of PQ on every data set, and the others' share of its MSE."""
    shown = [name for name in AGAINST_PQ if tables.where(rows, method=name, status="ok")]
    yield f"| data | shape | theta | NMSE of pq | {' | '.join(f'{name} / pq' for name in shown)} |"
    yield "|---|---|---:|---:|" + "---:|" * len(shown)
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for theta in THETAS_SHOWN:
            there = tables.where(rows, dataset=dataset, theta=theta, accounting="honest", status="ok")
            mine = {row["method"]: row for row in there}
            if "pq" not in mine:
                continue
            pq = mine["pq"]
            shares = [tables.ratio(mine[name]["mse"], pq["mse"]) if name in mine else None for name in shown]
            words = [dataset, f"{pq['rows']} x {pq['cols']}", str(theta), cell_text(pq["nmse"], None)]
            yield f"| {' | '.join(words + [cell_text(share, None) for share in shares])} |"


def best_table(rows):
    """auto beside the best of all other methods on the same data at the same budget."""
    yield "| theta | data sets | auto / best other, geometric mean | worst data set | auto is not best on |"
    yield "|---:|---:|---:|---|---|"
    for theta in dict.fromkeys(row["theta"] for row in rows):
        there = tables.where(rows, theta=theta, accounting="honest", status="ok")
        shares = {}
        for dataset in dict.fromkeys(row["dataset"] for row in tables.where(there, method="auto")):
            others = [row["mse"] for row in tables.where(there, dataset=dataset) if row["method"] != "auto"]
            share = tables.ratio(tables.where(there, dataset=dataset, method="auto")[0]["mse"], min(others, default=None))
            if share:
                shares[dataset] = share
        if shares:
            worst = max(shares, key=shares.get)
            behind = [name for name, share in shares.items() if share > 1.0]
            yield (f"| {theta} | {len(shares)} | {statistics.geometric_mean(shares.values()):.3g} | {worst} "
                   f"{shares[worst]:.3g} | {', '.join(behind) or 'none'} |")


def times_table(rows, theta=8):
    yield f"| theta {theta} | method | QT, ms | DQT, ms | QTR | DTR |"
    yield "|---|---|---:|---:|---:|---:|"
    for row in tables.where(rows, theta=theta, status="ok"):
        seconds = [f"{1e3 * row[key]:.3g}" for key in ("quantize_seconds", "dequantize_seconds")]
        shares = [f"{row[key]:.2f}" for key in ("quantize_ratio", "dequantize_ratio")]
        yield f"| {' | '.join([row['dataset'], row['method'], *seconds, *shares])} |"


# ---------------------------------------------------------------- sections

def machine(found):
    """How the tables were made; experiments of one run are one sentence."""
    runs = {}
    for row in found.get("about", []):
        runs.setdefault(tuple((key, row[key]) for key in row if key not in ("experiment", "seconds")), []).append(row)
    for key, rows in runs.items():
        about = dict(key)
        data = f"a data folder, at most {about['rows']} rows of a file (ladder: all)" if about["data"] else "generated data only"
        yield (f"- {', '.join(row['experiment'] for row in rows)}: qem {about['version']}, {about['cpu']}, "
               f"{about['threads']} thread{'s' * (about['threads'] > 1)}, {about['isa']}; synthetic matrices: "
               f"{about['seeds']}; {data}; {sum(row['seconds'] for row in rows):.0f} s."
               + (" **Tiny sizes: these figures say nothing.**" if about["quick"] else ""))


def accuracy_section(found):
    rows = found["accuracy"]
    if tables.where(rows, dataset="synthetic"):
        for key, title in (("mse", "MSE of all elements, the outliers decide it"), ("mse_inliers", "MSE of the inliers")):
            yield from [f"Synthetic data, {title}:", "", *error_table(rows, "synthetic", key), ""]
    yield from ["HyperChr against PQ on the paper's data sets; ours are the nearest that could be had, named alike:", "",
                *sets_table(rows), "", "Every data set, a method's MSE as a share of PQ's at the same budget:", "",
                *against_pq(rows)]
    if tables.where(rows, method="auto", status="ok"):
        yield from ["", "Our own choice (auto) beside the best of all others, by the MSE of all elements:", "",
                    *best_table(rows)]


SECTIONS = {"accuracy": accuracy_section, "times": lambda found: times_table(found["times"]),
            "ranges": lambda found: ranges.table(found["ranges"]),
            "variance": lambda found: variance.table(found["variance"]),
            "devices": lambda found: devices.table(found["devices"]),
            "ladder": lambda found: ladder.table(found["ladder"])}
NOTES = {"accuracy": "rtn runs out of the picture where it is far from all others. A dash in a table: nothing fits in that "
                     "budget (opq and lopq store their rotations), or it was not measured.",
         "times": "QT and DQT are seconds from memory to memory (medians); QTR and DTR their ratios to PQ's in the same "
                  "process.",
         "intervals": "On weights, the largest set of them. The number of cells grows with l^4.",
         "subspaces": "Maps counted: the maps are in the budget. Maps free (in the CSV file): QET has PQ's k, and "
                      "its maps cost nothing.",
         "ranges": "Range of the residual / codebook's share, both in percent. Maps free: k is PQ's, and the share "
                   "is that of codes and codebook.",
         "ladder": "A rate's figure is the geometric mean over the files of MSE / MSE of the best ggml type at no "
                   "more bits; losses are files above 1 or without a result."}


def missing_section(rows):
    if not rows:
        return
    yield from ["## What was left out", ""]
    groups = {}
    for row in rows:
        groups.setdefault((row["what"], row["reason"]), []).append(row["experiment"])
    for (what, why), names in groups.items():
        yield f"- {what} ({', '.join(names)}): {why}"
    yield ""


def page(found, pictures, experiments, folder):
    every, said = claims.all_claims(found), set()
    yield from [INTRODUCTION, *machine(found), "", "## Claims", "", *claims_table(every), ""]
    for claim in every:
        yield from [*prose.paragraph(found, claim, said), ""]
    for name, module in experiments.items():
        if found.get(name):
            yield from [f"## {module.TITLE}", ""]
            yield from [NOTES[name], ""] if name in NOTES else []
            for file, words in pictures[name]:
                yield from [f"![{words}]({folder}/{file})", ""]
            yield from [*SECTIONS[name](found), ""] if name in SECTIONS else []
            yield from [f"All figures: [{name}.csv]({folder}/{name}.csv)", ""]
    yield from missing_section(found.get("missing", []))


def write(out, experiments, with_page):
    """Draws the figures of a folder of CSV files, and writes the page beside the folder."""
    found = tables.read_all(out)
    pictures = {name: module.draw(found, out) for name, module in experiments.items()}
    if not with_page:
        return
    tables.write(os.path.join(out, "claims.csv"), list(claims.as_rows(claims.all_claims(found))))
    path = os.path.abspath(out) + ".md"
    text = "\n".join(page(found, pictures, experiments, os.path.basename(os.path.abspath(out))))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.rstrip() + "\n")
    print(f"wrote {path}")
