"""What the driver shows: rows of figures, as text, Markdown and a picture."""
import os
import subprocess
import sys

from cases import Most, Share, Versus

BEGIN, END = "<!-- peers: begin (made by bench/peers/run) -->", "<!-- peers: end -->"
SAME = 1e-4  # errors of equal codebooks: rows at the same distance of two centroids, and other orders of summation


def duration(seconds):
    for scale, unit in (1, "s"), (1e3, "ms"), (1e6, "us"):
        if seconds * scale >= 1 or unit == "us":
            return f"{seconds * scale:.3g} {unit}"
    return None


def spread(figure):
    if figure["count"] == 1:
        return duration(figure["median"])
    return f"{duration(figure['median'])} ({duration(figure['least'])} .. {duration(figure['most'])})"


def error_holds(ours, theirs, rule):
    if rule is None or ours is None or theirs is None:
        return rule is None
    if rule == "same":
        return abs(ours["median"] - theirs["median"]) <= SAME * theirs["median"]
    return ours["median"] <= theirs["median"]


def values_hold(ours, theirs):
    """Quantiles agree but for the order of rounding in the interpolation."""
    return all(abs(a - b) <= 1e-6 * max(1.0, abs(b)) for a, b in zip(ours, theirs))


def versus_row(case, check, ours, theirs):
    ratio = theirs["seconds"]["median"] / ours["seconds"]["median"] if ours["seconds"]["median"] > 0 else float("inf")
    good = error_holds(ours.get("error"), theirs.get("error"), check.error)
    if "values" in ours:
        good = good and values_hold(ours["values"], theirs["values"])
    aimed = check.times is not None or check.error == "not above"
    met = good and ratio >= (check.times or 0.0) if aimed or not good else None
    return {"case": case.name, "title": case.title, "kind": "versus", "peer": check.peer, "ours": ours["seconds"],
            "theirs": theirs["seconds"], "figure": ratio, "target": check.times, "error_rule": check.error, "met": met,
            "error": ours.get("error", {}).get("median"), "peer_error": theirs.get("error", {}).get("median")}


def share_row(case, check, ours):
    share = ours["fill_seconds"]["median"] / ours["seconds"]["median"]
    return {"case": case.name, "title": case.title, "kind": "share", "peer": "streaming fill", "ours": ours["seconds"],
            "theirs": ours["fill_seconds"], "figure": share, "target": check.least,
            "met": None if check.least is None else share >= check.least}


def most_row(case, check, ours):
    figure = ours[check.what]
    return {"case": case.name, "title": case.title, "kind": "most", "what": check.what, "unit": check.unit, "ours": figure,
            "figure": figure["median"], "target": check.limit, "met": figure["median"] <= check.limit}


def rows_of(case, sides, absent):
    rows = []
    for check in case.checks:
        if isinstance(check, Versus):
            if check.peer in absent:
                rows.append({"case": case.name, "title": case.title, "kind": "absent", "peer": check.peer,
                             "why": absent[check.peer], "met": None, "ours": sides["qem"]["seconds"]})
            else:
                rows.append(versus_row(case, check, sides["qem"], sides[check.peer]))
        elif isinstance(check, Share):
            if "fill_seconds" in sides["qem"]:
                rows.append(share_row(case, check, sides["qem"]))
        elif isinstance(check, Most):
            rows.append(most_row(case, check, sides["qem"]))
    return rows


def verdict(row):
    return {None: "", True: "met", False: "MISSED"}[row["met"]]


def errors(row):
    if row.get("error") is None:
        return ""
    if row.get("peer_error") is None:
        return f"{row['error']:.4g}"
    return f"{row['error']:.4g} / {row['peer_error']:.4g}"


def figure(row):
    if row["kind"] == "versus":
        return f"{row['figure']:.3g} x"
    if row["kind"] == "share":
        return f"{100 * row['figure']:.0f} %"
    return f"{row['figure']:.3g} {row['unit']}"


def target(row):
    if row["target"] is None:
        return {"not above": "error not above", "same": "same error"}.get(row.get("error_rule"), "")
    if row["kind"] == "versus":
        return f"{row['target']:g} x"
    if row["kind"] == "share":
        return f"{100 * row['target']:.0f} %"
    return f"at most {row['target']:g} {row['unit']}"


def terminal(rows):
    for row in rows:
        if row["kind"] == "absent":
            yield f"{row['case']:24} qem {spread(row['ours'])}; {row['peer']} is not here: {row['why']}"
            continue
        text = f"{row['case']:24} {figure(row):>14}"
        if row["met"] is not None:
            text += f"  [{target(row)}] {verdict(row)}"
        if row["kind"] != "most":
            text += f"; qem {spread(row['ours'])}, {row['peer']} {spread(row['theirs'])}"
        if errors(row):
            text += f"; MSE {errors(row)}"
        yield text


def heading(about):
    machine = about["qem"]
    peers = [about[side].get("version", f"no {side}") for side in ("faiss", "sklearn", "numpy")]
    return f"{machine['cpu']}, {machine['threads']} threads, {machine['isa']}; {', '.join(peers)}"


def markdown(outcome):
    turns = f"medians of {outcome['rounds']} turns (scikit-learn and FAISS's k-means++: 1)"
    lines = [BEGIN, "", f"{heading(outcome['about'])}; {turns}.", "",
             "| what | qem | beside | | ratio or share | target | MSE qem / peer |",
             "|---|---:|---|---:|---:|---:|---:|"]
    for case in outcome["cases"]:
        if case.get("skipped"):
            lines.append(f"| {case['title']} | | | | not measured | | |")
        for number, row in enumerate(row for row in case["rows"] if row["kind"] != "absent"):
            title = row["title"] if number == 0 else ""
            aim = "" if row["met"] is None else f"{target(row)}: {'met' if row['met'] else '**missed**'}"
            if row["kind"] == "most":
                cells = [title, figure(row), "", "", "", aim, ""]
            else:
                cells = [title, duration(row["ours"]["median"]), row["peer"], duration(row["theirs"]["median"]),
                         figure(row), aim, errors(row)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines + ["", END])


def into_readme(path, outcome):
    with open(path, encoding="utf-8") as file:
        head, begin, rest = file.read().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{path} has no markers for the table of the peers")
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + markdown(outcome) + tail)


def draw(results, path):
    """Horizontal bars of the ratios on a logarithmic axis, each with its target as a line."""
    bars = [row for case in results for row in case["rows"] if row["kind"] == "versus"]
    if not bars:
        print("no ratio to draw", file=sys.stderr)
        return
    data = "\n".join(f"{len(bars) - i} {row['figure']:.6g} {row['target'] or 'NaN'}" for i, row in enumerate(bars))
    names = ", ".join(f'"{row["case"]} ({row["peer"]})" {len(bars) - i}' for i, row in enumerate(bars))
    script = f"""set terminal svg size 900,{90 + 26 * len(bars)} font "sans-serif,12" background "white"
set output "{os.path.abspath(path)}"
$bars << EOD
{data}
EOD
set logscale x
set xlabel "times as fast as the peer"
set yrange [0.4:{len(bars) + 0.6}]
set ytics ({names})
set grid xtics
set key below
set style fill solid 0.8
plot [0.5:] $bars using (sqrt($2)):1:(0.5):($2):($1-0.3):($1+0.3) with boxxyerror lc rgb "#4477aa" title "measured", \\
     "" using 3:1:(0):(0.4) with vectors nohead lw 3 lc rgb "#ee6677" notitle, \\
     "" using 3:1:(0):(-0.4) with vectors nohead lw 3 lc rgb "#ee6677" title "target"
"""
    subprocess.run(["gnuplot"], input=script, text=True, check=True)
