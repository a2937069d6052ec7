"""The ladder of rates: our best recipe (auto) beside ggml's types at the same stored bits, on the whole files of a folder.

ggml-figures.tsv holds the MSE of each type on each file, measured with ggml's own quantizers (no importance matrix, all
bits counted). A rate's figure is the geometric mean over the files of MSE / MSE of the best type at no more bits."""
import csv
import os
import statistics

import datasets
import methods
import plot
import tables
from lab import Failed, Infeasible, Refused

TITLE = "Error beside ggml's types at the same bits"
TARGETS = {2.5625: 0.35, 2.625: 0.38, 3.0625: 0.40, 3.4375: 0.48, 4.5: 0.52, 5.5: 0.52, 6.5625: 0.46, 8.5: 0.28}
LEAST = 200_000  # elements
FIGURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ggml-figures.tsv")


def types_of_ggml():
    """-> {file: [row]}; rows have shape, type, bits_per_element, mse."""
    found = {}
    with open(FIGURES, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            row = {key: tables.number(word) for key, word in row.items()}
            found.setdefault(row["file"], []).append(row)
    return found


def known_files(options, missing):
    """Files of the folder that are large enough and those that ggml was measured on."""
    known = types_of_ggml()
    for name, path in datasets.files(options.data):
        array = datasets.vectors(path)
        if array is None or array.size < LEAST:
            continue
        shape = f"{array.shape[0]}x{array.shape[1]}"
        if name in known and known[name][0]["shape"] == shape:
            yield name, path, known[name]
        else:
            missing.append({"experiment": "ladder", "what": name, "reason": "ggml's types were not measured on this file"})


def best_type(types, rate):
    return min((row for row in types if row["bits_per_element"] <= rate), key=lambda row: row["mse"], default=None)


def one_rate(lab, options, name, path, types, rate):
    best = best_type(types, rate)
    row = {"file": name, "rate": rate, "status": "ok", "method": options.ladder_method, "bits": None, "mse": None,
           "picked": None, "best_type": best["type"], "ratio_best": None, "same_bits": None}
    arguments = ["--method", options.ladder_method, "--bits", rate]
    if options.effort is not None:
        arguments += ["--effort", options.effort]
    try:
        report = lab.quantize(path, arguments)
    except Infeasible:
        return {**row, "status": "infeasible"}
    except (Failed, Refused) as why:
        lab.fail(f"{name} at {rate} bits", str(why))
        return {**row, "status": "failed"}
    same = [f"{each['type']} {report['mse'] / each['mse']:.3f}" for each in types if each["bits_per_element"] == rate]
    row.update(bits=report["bits_per_element"], mse=report["mse"],
               ratio_best=report["mse"] / best["mse"], same_bits="; ".join(same),
               picked=(report.get("recipe") or {}).get("method", report["method"]))
    return row


def run(lab, options, sets, missing):
    del sets
    why = "no folder of data was given" if not options.data else lab.lacks(methods.plain(options.ladder_method).options())
    if why:
        missing.append({"experiment": "ladder", "what": options.ladder_method, "reason": why})
        print(f"    left out: {why}", flush=True)
        return {}
    rows = []
    for name, path, types in known_files(options, missing):
        for rate in options.rates or sorted({row["bits_per_element"] for row in types}):
            row = one_rate(lab, options, name, path, types, rate)
            rows.append(row)
            if row["status"] == "ok":
                words = f"{row['ratio_best']:.3f} of {row['best_type']}; {row['same_bits']}"
                print(f"  {name:26} {rate:7} bits  {words}", flush=True)
            else:
                print(f"  {name:26} {rate:7} bits  {row['status']}", flush=True)
    for line in table(rows) if rows else []:
        print(line)
    return {"ladder": rows} if rows else {}


def by_rate(rows):
    """-> for each rate: geometric mean, the worst file, the target, files that lose. A file without a result is a loss; one
    that comes back without any error has no place in a geometric mean."""
    for rate in sorted({row["rate"] for row in rows}):
        mine = tables.where(rows, rate=rate)
        there = [row for row in mine if row["status"] == "ok"]
        ratios = [row["ratio_best"] for row in there if row["ratio_best"] > 0]
        mean = statistics.geometric_mean(ratios) if ratios else None
        target = TARGETS.get(rate)
        losses = [row["file"] for row in mine if row["status"] != "ok" or row["ratio_best"] > 1]
        met = None if target is None or mean is None else mean <= target and len(there) == len(mine)
        worst = max(there, key=lambda row: row["ratio_best"], default=None)
        yield {"rate": rate, "files": len(there), "of": len(mine), "exact": len(there) - len(ratios), "mean": mean, "target": target, "met": met,
               "losses": losses, "worst": worst}


def table(rows):
    yield "| bits | files | geometric mean of MSE / best type's | target | | worst file | losses |"
    yield "|---:|---:|---:|---:|---|---|---|"
    for line in by_rate(rows):
        verdict = {None: "", True: "met", False: "**missed**"}[line["met"]]
        mean = "-" if line["mean"] is None else f"{line['mean']:.3f}"
        worst = "-" if line["worst"] is None else f"{line['worst']['file']} {line['worst']['ratio_best']:.2f}"
        target = "" if line["target"] is None else f"{line['target']:.2f}"
        exact = f", {line['exact']} without error" if line["exact"] else ""
        yield (f"| {line['rate']} | {line['files']} of {line['of']}{exact} | {mean} | {target} | {verdict} | {worst} | "
               f"{', '.join(line['losses']) or 'none'} |")


def draw(found, folder):
    rows = found.get("ladder", [])
    if not rows:
        return []
    lines = {"geometric mean": [(line["rate"], line["mean"]) for line in by_rate(rows)],
             "target": sorted(TARGETS.items())}
    files = {name: [(row["rate"], row["ratio_best"]) for row in tables.where(rows, file=name)]
             for name in dict.fromkeys(row["file"] for row in rows)}
    panels = [plot.Panel("all files", "bits an element", "MSE / best ggml type's", lines),
              plot.Panel("each file", "bits an element", "MSE / best ggml type's", files)]
    drawn = plot.draw(f"{folder}/ladder.svg", TITLE, panels, 3)
    return [("ladder.svg", "MSE beside the best ggml type at no more bits")] if drawn else []
