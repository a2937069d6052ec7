"""HyperChr's figure 5: errors and times over the number of intervals l, on weights, at ratios 2 to 8."""
import methods
import plot
import tables
from lab import Failed, Infeasible, Refused

TITLE = "Accuracy and time over the number of intervals (HyperChr, figure 5)"


def run(lab, options, sets, missing):
    del missing
    weights = [dataset for dataset in sets if dataset.family == "weights"] or sets
    dataset, rows = max(weights, key=lambda each: each.elements), []
    print(f"  {dataset.name}, {dataset.rows} x {dataset.cols}", flush=True)
    thetas = [theta for theta in options.thetas if theta in methods.LOW]
    for intervals in options.intervals:
        try:
            results = lab.compare(dataset.paths[0], ["hyperchr"], thetas, "--intervals", str(intervals), "--repeat",
                                  options.repeat)
        except (Failed, Infeasible, Refused) as why:
            lab.fail(f"{intervals} intervals on {dataset.name}", str(why))
            continue
        for result in results:
            rows.append({"dataset": dataset.name, "rows": dataset.rows, "cols": dataset.cols, "intervals": intervals,
                         "theta": int(result["theta"]), "status": result["status"], "k": result["k"],
                         "cells": result["cells"], "mae": result["mae"], "mse": result["mse"],
                         "quantize_seconds": result["quantize_seconds"],
                         "dequantize_seconds": result["dequantize_seconds"]})
    return {"intervals": rows}


def draw(found, folder):
    rows, panels = found.get("intervals", []), []
    figures = (("mae", "MAE"), ("mse", "MSE"), ("quantize_seconds", "QT, s"), ("dequantize_seconds", "DQT, s"))
    for figure, title in figures:
        lines = {f"theta {theta}": [(row["intervals"], row[figure]) for row in tables.where(rows, theta=theta)]
                 for theta in dict.fromkeys(row["theta"] for row in rows)}
        panels.append(plot.Panel(title, "intervals l", title, lines))
    for figure, title in figures[2:]:
        lines = {f"theta {theta}": [(row[figure], row["mse"]) for row in tables.where(rows, theta=theta)]
                 for theta in dict.fromkeys(row["theta"] for row in rows)}
        panels.append(plot.Panel(f"MSE against {title}", title, "MSE", lines, log_x=True))
    if rows and plot.draw(f"{folder}/intervals.svg", TITLE, panels, 4):
        return [("intervals.svg", "errors and times over the number of intervals, and one against the other")]
    return []
