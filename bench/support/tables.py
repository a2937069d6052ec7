"""The results as CSV files: written by the experiments, read by figures, claims and the page."""
import csv
import math
import os
import statistics


def text(value):
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def number(word):
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        return None if word == "" else word


def write(path, rows):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: text(value) for key, value in row.items()} for row in rows)


def read(path):
    """Rows of a file, numbers as numbers and empty cells as None; [] if there is no such file."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [{key: number(word) for key, word in row.items()} for row in csv.DictReader(file)]


def read_all(folder):
    names = sorted(name[:-4] for name in os.listdir(folder) if name.endswith(".csv")) if os.path.isdir(folder) else []
    return {name: read(os.path.join(folder, name + ".csv")) for name in names}


def where(rows, **wanted):
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def mean(values):
    """Of those that are there; None if none is."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def deviation(values):
    there = [value for value in values if value is not None]
    return statistics.stdev(there) if len(there) > 1 else None


def ratio(a, b):
    return a / b if a is not None and b else None


def over_seeds(samples, keys):
    """Mean of each figure over the samples of one cell of a table."""
    return {key: mean(sample.get(key) for sample in samples) for key in keys}
