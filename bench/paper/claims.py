"""The papers' claims beside what was measured, and a verdict on each, from the CSV files alone.

A claim is measured under several conditions; the first is the honest one: every stored byte counted, every element in the
error. It decides "reproduced"; if it does not hold but another does, the claim is "reproduced only under a condition",
which is named; else "not reproduced". What has to hold is a rule with a stated threshold; nothing here knows a result."""
import statistics

import methods
import ranges
import tables

SLACK = 5.0      # percentage points by which a change may fall short of the paper's
VARIANCE = 0.001
SHARE = 1.0      # percentage points of a proportion
FACTOR = 1.5     # by which a range may exceed the paper's
STABLE = 25.0    # percent by which a time may move and is still called stable
REPRODUCED, CONDITION, NOT, UNKNOWN = ("reproduced", "reproduced only under a condition", "not reproduced", "not measured")


class Claim:
    """conditions: [(words, value or None)], the honest one first; holds(value) says whether the claim is borne out."""

    def __init__(self, key, paper, words, stated, rule, holds, conditions, unit=""):
        self.key, self.paper, self.words, self.stated, self.rule, self.unit = key, paper, words, stated, rule, unit
        self.conditions = [(name, value, None if value is None else bool(holds(value))) for name, value in conditions]

    @property
    def ours(self):
        return self.conditions[0][1]

    @property
    def fulfilled(self):
        return [name for name, _, met in self.conditions[1:] if met]

    @property
    def verdict(self):
        if self.ours is None:
            return UNKNOWN
        if self.conditions[0][2]:
            return REPRODUCED
        return CONDITION if self.fulfilled else NOT


def change(a, b):
    """a against b in percent, negative where a is less; None if one is not there."""
    share = tables.ratio(a, b)
    return None if share is None else 100.0 * (share - 1.0)


def at_most(key, paper, words, stated, conditions):
    """A change in percent, less is better: ours may be above the paper's by SLACK points."""
    return Claim(key, paper, words, stated, f"at most {stated + SLACK:+.1f} %", lambda value: value <= stated + SLACK,
                 conditions, "%")


# ---------------------------------------------------------------- HyperChr: errors

def changes(rows, dataset, figure, thetas, accounting, pair_of=("hyperchr", "pq")):
    """One method against another on one data set, at each ratio where both have a result."""
    for theta in thetas:
        pair = [tables.where(rows, dataset=dataset, theta=theta, method=name, accounting=accounting, status="ok")
                for name in pair_of]
        if all(pair):
            yield change(pair[0][0][figure], pair[1][0][figure])


def family_change(rows, family, figure, thetas, accounting="honest", pair_of=("hyperchr", "pq")):
    """Mean over the ratios and over the family's data sets."""
    names = dict.fromkeys(row["dataset"] for row in tables.where(rows, family=family))
    return tables.mean(tables.mean(changes(rows, name, figure, thetas, accounting, pair_of)) for name in names)


def error_conditions(rows, figure, thetas):
    families = [name for name in ("synthetic", "weights", "gist", "sift") if tables.where(rows, family=name)]
    inliers = f"{figure}_inliers"

    def over(which, accounting):
        return tables.mean(family_change(rows, family, which, thetas, accounting) for family in families)

    yield f"every byte and every element counted, mean over {', '.join(families)}", over(figure, "honest")
    yield "synthetic outliers left out of the error", over(inliers, "honest")
    yield "the papers' accounting", over(figure, "paper")
    yield "the papers' accounting, synthetic outliers left out", over(inliers, "paper")
    for family in families:
        yield f"on {family} alone", family_change(rows, family, figure, thetas)
    if "synthetic" in families:
        yield "on the inliers of synthetic alone", family_change(rows, "synthetic", inliers, thetas)


def hyperchr_errors(found):
    rows = found.get("accuracy", [])
    for thetas, span, stated in ((methods.LOW, "2 to 8", {"mse": -75.3, "mae": -55.3}),
                                 (methods.HIGH, "10 to 16", {"mse": -25.9, "mae": -14.9})):
        for figure, value in stated.items():
            words = f"{figure.upper()} of HyperChr against PQ at theta {span}"
            yield at_most(f"hyperchr-{figure}-{thetas[0]}", "HyperChr", words, value,
                          list(error_conditions(rows, figure, thetas)))


# ---------------------------------------------------------------- HyperChr: times

def time_change(rows, figure, dataset, thetas):
    """The median over the ratios: times have stragglers that errors do not have."""
    there = [row[figure] for row in tables.where(rows, dataset=dataset, method="hyperchr", status="ok")
             if row["theta"] in thetas and row[figure] is not None]
    return 100.0 * (statistics.median(there) - 1.0) if there else None


def time_conditions(rows, figure, thetas):
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    changes_of = [time_change(rows, figure, name, thetas) for name in names]
    yield f"mean over {', '.join(names) or 'no data set'}", tables.mean(changes_of)
    for name, value in zip(names, changes_of):
        yield f"on {name} alone", value


def hyperchr_times(found):
    rows = found.get("times", [])
    for key, words, figure, thetas, stated in (
            ("dqt", "dequantization time of HyperChr against PQ", "dequantize_ratio", methods.THETAS, -62.9),
            ("qt-low", "quantization time of HyperChr against PQ at theta 2 to 8", "quantize_ratio", methods.LOW, -60.2),
            ("qt-high", "quantization time of HyperChr against PQ at theta 10 to 16", "quantize_ratio", methods.HIGH,
             113.4)):
        yield at_most(f"hyperchr-{key}", "HyperChr", words, stated, list(time_conditions(rows, figure, thetas)))


def from_one_to_most(rows, figure, least=1):
    """Change in percent from the least to the largest number of intervals, median over the ratios."""
    there = [row for row in rows if row["status"] == "ok" and row["intervals"] >= least]
    if len({row["intervals"] for row in there}) < 2:
        return None
    low, high = min(row["intervals"] for row in there), max(row["intervals"] for row in there)
    ends = {(row["theta"], row["intervals"]): row[figure] for row in there}
    thetas = {theta for theta, _ in ends}
    changes_of = [change(ends.get((theta, high)), ends.get((theta, low))) for theta in thetas]
    there = [value for value in changes_of if value is not None]
    return statistics.median(there) if there else None


def hyperchr_intervals(found):
    rows = found.get("intervals", [])
    for figure, words in (("mse", "MSE rises"), ("mae", "MAE rises")):
        yield Claim(f"intervals-{figure}", "HyperChr", f"{words} with the number of intervals", "above 0 %", "above 0 %",
                    lambda value: value > 0, [("from 1 interval to the most", from_one_to_most(rows, figure)),
                                              ("from 2 intervals to the most", from_one_to_most(rows, figure, 2))], "%")
    yield Claim("intervals-dqt", "HyperChr", "DQT falls with the number of intervals", "below 0 %", f"below {-SLACK:g} %",
                lambda value: value < -SLACK,
                [("from 1 interval to the most", from_one_to_most(rows, "dequantize_seconds")),
                 ("from 2 intervals to the most", from_one_to_most(rows, "dequantize_seconds", 2))], "%")
    yield Claim("intervals-qt", "HyperChr", "QT stays stable over the number of intervals", "about 0 %",
                f"within {STABLE:g} %", lambda value: abs(value) <= STABLE,
                [("from 1 interval to the most", from_one_to_most(rows, "quantize_seconds")),
                 ("from 2 intervals to the most", from_one_to_most(rows, "quantize_seconds", 2))], "%")


# ---------------------------------------------------------------- QET

def shares_of_pq(rows, m, level, maps, figure):
    """QET's error in percent of PQ's, by ratio."""
    for theta in dict.fromkeys(row["theta"] for row in rows):
        pair = [tables.where(rows, m=m, theta=theta, method=name, maps=kind, status="ok")
                for name, kind in ((f"qet l={level}", maps), ("pq", "counted"))]
        if all(pair):
            share = tables.ratio(pair[0][0][figure], pair[1][0][figure])
            if share is not None:
                yield 100.0 * share


def level_conditions(rows, level, m):
    def over(maps, figure, pick=tables.mean):
        shares = list(shares_of_pq(rows, m, level, maps, figure))
        return pick(shares) if shares else None

    count = len(list(shares_of_pq(rows, m, level, "counted", "mse")))
    yield (f"maps and every element counted, mean over the {count} ratios that the maps leave room for",
           over("counted", "mse"))
    yield "outliers left out of the error", over("counted", "mse_inliers")
    yield "maps not counted", over("free", "mse")
    yield "maps not counted, outliers left out", over("free", "mse_inliers")
    yield "maps counted, at the best ratio alone", over("counted", "mse", min)
    yield "maps counted, outliers left out, at the best ratio alone", over("counted", "mse_inliers", min)
    yield "maps not counted, at the best ratio alone", over("free", "mse", min)
    yield "maps not counted, outliers left out, at the best ratio alone", over("free", "mse_inliers", min)


def qet_levels(found):
    rows = found.get("subspaces", [])
    for level, stated in zip(methods.LEVELS, (70.4, 49.7, 35.1, 12.3)):
        limit = stated + SLACK
        words = f"MSE of QET with {level} iteration{'s' * (level > 1)} on 8 subspaces, in percent of PQ's"
        yield Claim(f"qet-{level}", "QET", words, stated, f"at most {limit:.1f} %",
                    lambda value, limit=limit: value <= limit, list(level_conditions(rows, level, 8)), "%")


def above(key, words, pair_of, rows):
    """QET says that the first of two methods has the larger MSE: on the synthetic data, or on another family."""
    families = list(dict.fromkeys(row["family"] for row in rows))

    def on(family, figure="mse", thetas=methods.THETAS):
        return family_change(rows, family, figure, thetas, "honest", pair_of)

    conditions = [("synthetic data, every byte and element counted, mean over the ratios that fit", on("synthetic")),
                  ("outliers left out of the error", on("synthetic", "mse_inliers")),
                  ("at theta 2 to 8 alone", on("synthetic", "mse", methods.LOW)),
                  ("at theta 10 to 16 alone", on("synthetic", "mse", methods.HIGH)),
                  ("at theta 10 to 16 alone, outliers left out", on("synthetic", "mse_inliers", methods.HIGH))]
    conditions += [(f"on {family}", on(family)) for family in families if family != "synthetic"]
    return Claim(key, "QET", words, "above 0 %", "above 0 %", lambda value: value > 0, conditions, "%")


def qet_conclusions(found):
    rows = found.get("accuracy", [])
    yield above("conclusion-opq", "MSE of OPQ against PQ: worse, for it stores its rotation", ("opq", "pq"), rows)
    yield above("conclusion-levels", "MSE of QET with 1 iteration against 4: the more iterations the better",
                ("qet l=1", "qet l=4"), rows)


def table_distance(rows, column, m, level, maps):
    """What is farthest from the paper's table over its ratios: points of a share, or a range as a multiple of theirs."""
    distances = []
    for theta, stated in ranges.PAPER.items():
        there = tables.where(rows, m=m, level=level, maps=maps, theta=theta, status="ok")
        if not there:
            return None
        ours = there[0]["codebook_percent" if column else "range_percent"]
        distances.append(abs(ours - stated[column]) if column else ours / stated[column])
    return max(distances)


def table_conditions(rows, column):
    sizes = list(dict.fromkeys(row["m"] for row in rows))
    kinds = {(1, "counted"): "QET, maps counted", (1, "free"): "QET, maps not counted", (0, "counted"): "PQ"}
    first = (8, 1, "counted")
    for m, level, maps in [first] + [(m, *kind) for m in sizes for kind in kinds if (m, *kind) != first]:
        yield f"{kinds[level, maps]}, {m} subspaces", table_distance(rows, column, m, level, maps)


def maps_left_out(found):
    """Whether table 1's proportions fit QET, but only where its maps are not counted."""
    (claim,) = [each for each in qet_table(found) if each.key == "qet-codebook"]
    fits = [name for name, _, met in claim.conditions if met and name.startswith("QET")]
    return bool(fits) and all("not counted" in name for name in fits)


def qet_table(found):
    rows = found.get("ranges", [])
    words = "codebook's share of the memory at theta 4, 8, 12, 16 (87.5, 78.1, 71.8, 62.5 %): largest distance"
    yield Claim("qet-codebook", "QET", words, "0 points", f"at most {SHARE:g} point", lambda value: value <= SHARE,
                list(table_conditions(rows, 1)), "points")
    words = "range of the residual at theta 4, 8, 12, 16 (1.6, 4.0, 9.2, 29.7 % of the matrix's): largest multiple"
    yield Claim("qet-range", "QET", words, "1 x", f"at most {FACTOR:g} x", lambda value: value <= FACTOR,
                list(table_conditions(rows, 0)), "x")


def qet_variance(found):
    rows = tables.where(found.get("variance", []), level=1)
    mean = {row["matrix"]: row["mean"] for row in rows}
    yield Claim("qet-variance", "QET", "variance of the larger of two normal numbers, as a share", 0.682,
                f"within {VARIANCE:g}", lambda value: abs(value - 0.682) <= VARIANCE,
                [("normal numbers", mean.get("normal")),
                 ("the synthetic data without outliers (a truncated normal)", mean.get("synthetic without outliers"))])


def all_claims(found):
    return [claim for group in (hyperchr_errors, hyperchr_times, hyperchr_intervals, qet_levels,
                                qet_conclusions, qet_table, qet_variance)
            for claim in group(found)]


def as_rows(claims):
    for claim in claims:
        for number, (name, value, met) in enumerate(claim.conditions):
            yield {"claim": claim.key, "paper": claim.stated, "rule": claim.rule, "condition": name, "ours": value,
                   "holds": None if met is None else int(met), "verdict": claim.verdict if number == 0 else None}
