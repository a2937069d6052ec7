"""The page of results and its figures, from the CSV files of a folder alone."""
import os

import claims
import devices
import ladder
import methods
import ranges
import tables
import variance

# What HyperChr's text says for each of its data sets: (MSE, MAE) against PQ in percent, at theta 2-8 and at 10-16.
PAPER_SETS = {"synthetic": ((-71.2, -47.8), (-41.2, -24.1)), "weights": ((-90.3, -71.4), (-46.7, -27.9)),
              "gist": ((-76.8, -58.5), (-16.8, -7.3)), "sift": ((-62.7, -43.6), (1.2, -0.5))}
PAPER_LINES = ("pq", "opq", "lopq", "hyperchr", "qet l=1", "qet l=2", "qet l=3", "qet l=4", "auto")


def percent(value):
    return "-" if value is None else f"{value:+.1f} %"


def figure(claim, value):
    """Our figure in the claim's unit; changes get a sign."""
    if value is None:
        return "-"
    if claim.unit == "%":
        signed = isinstance(claim.stated, str) or claim.key.startswith("hyperchr")
        return f"{value:+.1f} %" if signed else f"{value:.1f} %"
    return f"{value:.4g} {claim.unit}".strip()


def stated(claim):
    if isinstance(claim.stated, str):
        return claim.stated
    if claim.unit == "%":
        return f"{claim.stated:+.1f} %" if claim.key.startswith("hyperchr") else f"{claim.stated:g} %"
    return f"{claim.stated:g} {claim.unit}".strip()


def bold(verdict):
    return f"**{verdict}**" if verdict != claims.UNKNOWN else verdict


# ---------------------------------------------------------------- what the papers claim

def claims_table(every):
    yield "| paper | claim | theirs | ours | |"
    yield "|---|---|---:|---:|---|"
    for claim in every:
        yield f"| {claim.paper} | {claim.words} | {stated(claim)} | {figure(claim, claim.ours)} | {bold(claim.verdict)} |"


def outlier_share(found, method, theta):
    """Percent of the squared error of the synthetic data that its outliers carry."""
    row = tables.where(found.get("accuracy", []), dataset="synthetic", method=method, theta=theta, accounting="honest", status="ok")
    if not row or not row[0]["mse"]:
        return None
    return 100.0 * max(0.0, 1.0 - row[0]["mse_inliers"] * (1 - 1e-4) / row[0]["mse"])


def about_errors(found, claim):
    parts = ["Both methods hold codes and a codebook; HyperChr's is shared by all column groups, so the same bytes hold as many "
             "centroids as there are groups times PQ's."]
    theta = max(methods.LOW if claim.key.endswith(f"-{methods.LOW[0]}") else methods.HIGH)
    shares = {name: outlier_share(found, name, theta) for name in ("pq", "hyperchr")}
    if claim.key.startswith("hyperchr-mse") and None not in shares.values():
        parts.append(f"On the synthetic data the outliers, one element in 10 000, decide the total: at theta {theta} they carry "
                     f"{shares['pq']:.0f} % of PQ's squared error and {shares['hyperchr']:.0f} % of HyperChr's.")
    vq = cells_cost(found, theta)
    if vq is not None:
        parts.append(f"One shared codebook without cells (vq) has {percent(vq)} MSE against hyperchr on the synthetic inliers at "
                     f"theta {theta}: what gains is the sharing, not the cells.")
    return " ".join(parts)


def cells_cost(found, theta):
    pair = [tables.where(found.get("accuracy", []), dataset="synthetic", method=name, theta=theta, accounting="honest",
                         status="ok") for name in ("vq", "hyperchr")]
    if not all(pair) or pair[0][0]["mse_inliers"] >= pair[1][0]["mse_inliers"]:
        return None
    return claims.change(pair[0][0]["mse_inliers"], pair[1][0]["mse_inliers"])


def about_times(found, claim):
    del found
    if claim.key == "hyperchr-dqt":
        return ("The paper derives a factor of 1/m from m codebook reads for PQ and one for HyperChr; but both read one centroid for "
                "each sub-vector, and what differs is where the codebooks lie in the caches. Decoding here is vectorized for all "
                "methods; the paper's was Python.")
    return ("Fitting is k-means in both; HyperChr's cells make many small problems of one large one. PQ's problems are small from "
            "the start, and both are searched with pruning here.")


def about_intervals(found, claim):
    del found, claim
    return ("The paper contradicts itself here: its section 4.3 says that MAE and MSE increase with the number of intervals, and a "
            "few lines on that finer partitioning reduces them; and the reason that it gives for a falling DQT, fewer centroids to "
            "search, is one for QT.")


def about_levels(found, claim):
    level = int(claim.key[-1])
    rows = tables.where(found.get("subspaces", []), m=8, level=level, maps="counted", status="ok")
    words = [f"The maps of {level} level{'s' * (level > 1)} take {level / 2:g} bits an element."]
    if rows:
        words.append(f"Counted, they are {100 * rows[0]['swap_map']:.0f} % of the memory at theta {rows[0]['theta']} and "
                     f"{100 * rows[-1]['swap_map']:.0f} % at theta {rows[-1]['theta']}.")
    if level == 1:
        words.append("The paper does not say at which ratios its figures hold; ours are means over those that were measured.")
        if claims.maps_left_out(found):
            words.append("Its own table 1 fits budgets that leave the maps out, and none that count them (below).")
    return " ".join(words)


def about_table(found, claim):
    del found
    if claim.key == "qet-codebook":
        return ("The paper says neither the number of subspaces nor whether the maps count, but its four proportions fix both: with "
                "1024 rows, 128 columns, 32-bit codebooks and whole code bits the codebooks take 4 k bits of a row and the codes "
                "m ceil(log2 k), out of 4096 / theta; a map of one level would take 64. The conditions that hold name what fits.")
    words = "The range of the matrix is that of its outliers, so the ratio says how well the worst element is met, not the typical one."
    if claim.ours is not None and claim.ours < 1 / claims.FACTOR:
        words += (" Ours is far lower: k-means++ tends to give an outlier a centroid of its own, where random seeds leave several in "
                  "one cluster. The paper does not say how it seeds.")
    return words


def about_variance(found, claim):
    del found, claim
    return ("Exactly it is 1 - 1/pi = 0.6817, for both halves. It is the variance of a single element; that the MSE falls by the same "
            "factor would need the same number of centroids, and the map's bits come out of them.")


PROSE = {"hyperchr-mse": about_errors, "hyperchr-mae": about_errors, "hyperchr-": about_times, "intervals": about_intervals,
         "qet-codebook": about_table, "qet-range": about_table, "qet-variance": about_variance, "qet-": about_levels}


def paragraph(found, claim, said):
    """One claim: theirs, ours, the verdict and by which rule, what the other conditions give, and why, if not said before."""
    prose = next(write for beginning, write in PROSE.items() if claim.key.startswith(beginning))
    yield f"**{claim.words[0].upper() + claim.words[1:]}** ({claim.paper}: {stated(claim)}; holds if {claim.rule}): {claim.verdict}."
    if claim.ours is not None:
        first = claim.conditions[0]
        yield f"Ours: {figure(claim, first[1])}, {first[0]}."
        if claim.verdict != claims.REPRODUCED and claim.fulfilled:
            yield "It holds: " + "; ".join(f"{name} ({figure(claim, value)})" for name, value, met in claim.conditions[1:] if met) + "."
        fails = [f"{name} {figure(claim, value)}" for name, value, met in claim.conditions[1:] if met is False]
        others = [f"{name} {figure(claim, value)}" for name, value, met in claim.conditions[1:] if met]
        if claim.verdict == claims.REPRODUCED and others:
            yield "So it does: " + "; ".join(others) + "."
        if fails:
            yield "It does not: " + "; ".join(fails[:8]) + (f"; and {len(fails) - 8} more" if len(fails) > 8 else "") + "."
    why = prose(found, claim)
    if why not in said:
        said.add(why)
        yield why


# ---------------------------------------------------------------- tables

def sets_table(found):
    """HyperChr against PQ on each of the paper's data sets, theirs beside ours."""
    rows = found.get("accuracy", [])
    yield "| data | theta | MSE paper | MSE ours | of inliers | MAE paper | MAE ours | of inliers |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for family, spans in PAPER_SETS.items():
        members = list(dict.fromkeys(row["dataset"] for row in tables.where(rows, family=family)))
        if not members:
            continue
        name = family if members == [family] else f"{family} ({', '.join(members)})"
        for thetas, (mse, mae) in zip((methods.LOW, methods.HIGH), spans):
            ours = [percent(claims.family_change(rows, family, key, thetas)) for key in ("mse", "mse_inliers", "mae", "mae_inliers")]
            yield (f"| {name} | {thetas[0]}-{thetas[-1]} | {percent(mse)} | {ours[0]} | {ours[1]} | {percent(mae)} | {ours[2]} | "
                   f"{ours[3]} |")


def error_table(rows, dataset, key, names):
    """A row a method, a column a ratio; the least of a column is bold."""
    mine = tables.where(rows, dataset=dataset, accounting="honest")
    thetas = list(dict.fromkeys(row["theta"] for row in mine))
    cells = {(row["method"], row["theta"]): row[key] for row in mine if row["status"] == "ok" and row["method"] in names}
    best = {theta: min((value for (_, at), value in cells.items() if at == theta and value is not None), default=None)
            for theta in thetas}
    yield "| theta | " + " | ".join(map(str, thetas)) + " |"
    yield "|---|" + "---:|" * len(thetas)
    for name in names:
        words = [cells.get((name, theta)) for theta in thetas]
        if any(value is not None for value in words):
            yield f"| {name} | " + " | ".join("-" if v is None else f"**{v:.3g}**" if v == best[t] else f"{v:.3g}"
                                              for v, t in zip(words, thetas)) + " |"


def against_pq(rows, names, thetas=(4, 8, 16)):
    """NMSE of PQ on every data set, and the others' share of it."""
    shown = [name for name in names if name != "pq" and tables.where(rows, method=name, status="ok")]
    yield "| data | shape | theta | NMSE of pq | " + " | ".join(f"{name} / pq" for name in shown) + " |"
    yield "|---|---|---:|---:|" + "---:|" * len(shown)
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for theta in thetas:
            mine = {row["method"]: row for row in tables.where(rows, dataset=dataset, theta=theta, accounting="honest", status="ok")}
            if "pq" in mine:
                shares = [tables.ratio(mine[name]["mse"], mine["pq"]["mse"]) if name in mine else None for name in shown]
                words = ["-" if share is None else f"{share:.3g}" for share in shares]
                yield (f"| {dataset} | {mine['pq']['rows']} x {mine['pq']['cols']} | {theta} | {nmse(mine['pq'])} | "
                       + " | ".join(words) + " |")


def nmse(row):
    return "-" if row["nmse"] is None else f"{row['nmse']:.3g}"


def times_table(rows, theta=8):
    rows = tables.where(rows, theta=theta, status="ok")
    yield f"| theta {theta} | method | QT, ms | DQT, ms | QTR | DTR |"
    yield "|---|---|---:|---:|---:|---:|"
    for row in rows:
        yield (f"| {row['dataset']} | {row['method']} | {1e3 * row['quantize_seconds']:.3g} | {1e3 * row['dequantize_seconds']:.3g} | "
               f"{row['quantize_ratio']:.2f} | {row['dequantize_ratio']:.2f} |")


# ---------------------------------------------------------------- sections

def machine(found):
    """Sentences on how the tables were made; experiments of one run are one sentence."""
    runs = {}
    for row in found.get("about", []):
        runs.setdefault(tuple((key, row[key]) for key in row if key not in ("experiment", "seconds")), []).append(row)
    for key, rows in runs.items():
        about = dict(key)
        names = ", ".join(row["experiment"] for row in rows)
        data = f"with a data folder (at most {about['rows']} rows of a file, evenly spaced)" if about["data"] else "generated data only"
        yield (f"- {names}: qem {about['version']}, {about['cpu']}, {about['threads']} threads, {about['isa']}; {about['seeds']} "
               f"synthetic matrices, {data}; {sum(row['seconds'] for row in rows):.0f} s."
               + (" **Tiny sizes: these figures say nothing.**" if about["quick"] else ""))


def accuracy_section(found):
    rows = found["accuracy"]
    if tables.where(rows, dataset="synthetic"):
        for key, title in (("mse", "MSE of all elements, the outliers decide it"), ("mse_inliers", "MSE of the inliers")):
            yield from [f"Synthetic data, {title}:", "", *error_table(rows, "synthetic", key, list(dict.fromkeys(
                row["method"] for row in rows))), ""]
    yield from ["HyperChr against PQ on the paper's data sets; ours are the nearest that could be had, under the same names:", "",
                *sets_table(found), "", "Every data set; a method's MSE as a share of PQ's at the same budget:", "",
                *against_pq(rows, PAPER_LINES), ""]


SECTIONS = {"accuracy": accuracy_section, "times": lambda found: times_table(found["times"]),
            "ranges": lambda found: ranges.table(found["ranges"]), "variance": lambda found: variance.table(found["variance"]),
            "devices": lambda found: devices.table(found["devices"]), "ladder": lambda found: ladder.table(found["ladder"])}
NOTES = {"times": "QT and DQT are seconds from memory to memory (medians); QTR and DTR their ratios to PQ's in the same process.",
         "ranges": "Range of the residual / codebook's share, both in percent. Maps free: k is PQ's, and the share is that of codes and "
                   "codebook.",
         "ladder": "A rate's figure is the geometric mean over the files of MSE / MSE of the best ggml type at no more bits; "
                   "losses are files above 1.",
         "intervals": "Weights; the paper's trade-off. Cells multiply with l^4."}


def missing_section(found):
    rows = found.get("missing", [])
    if rows:
        yield from ["## What was left out", ""]
        groups = {}
        for row in rows:
            groups.setdefault((row["what"], row["reason"]), []).append(row["experiment"])
        yield from [f"- {what} ({', '.join(names)}): {reason}" for (what, reason), names in groups.items()]
        yield ""


def page(found, pictures, experiments, folder):
    every = claims.all_claims(found)
    yield from ["# The papers' experiments, done again", "",
                "Made by `bench/paper/run --docs` from the CSV files in this page's folder of results. The papers are HyperChr and QET; "
                "what each claims stands first, with our figure and a verdict that a rule decides.", "",
                "Budgets count every stored byte: codes of whole bits, codebooks, swap maps, rotations, outlier lists. \"The papers' "
                "accounting\" plans with fractional bits, and \"maps not counted\" gives QET the k of PQ; both are there to redo the "
                "papers' numbers and are named wherever they are used.", "", *machine(found), "", "## Claims", "",
                *claims_table(every), ""]
    said = set()
    for claim in every:
        yield from ["\n".join(paragraph(found, claim, said)), ""]
    for name, module in experiments.items():
        if found.get(name):
            yield from [f"## {module.TITLE}", ""]
            if name in NOTES:
                yield from [NOTES[name], ""]
            yield from [f"![{words}]({folder}/{file})" for file, words in pictures[name]] + [""]
            if name in SECTIONS:
                yield from [*SECTIONS[name](found), ""]
            yield from [f"All figures: [{name}.csv]({folder}/{name}.csv)", ""]
    yield from missing_section(found)


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
