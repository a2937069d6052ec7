"""What the page says on each claim: theirs, ours, the verdict, the conditions, and the reason."""
import claims
import methods
import tables


def percent(value):
    return "-" if value is None else f"{value:+.1f} %"


def is_change(claim):
    """A change gets a sign, a share of PQ's does not."""
    return claim.key.startswith(("hyperchr", "intervals", "conclusion"))


def figure(claim, value):
    """Our figure in the claim's unit."""
    if value is None:
        return "-"
    if claim.unit == "%":
        return percent(value) if is_change(claim) else f"{value:.1f} %"
    return f"{value:.4g} {claim.unit}".strip()


def stated(claim):
    """The paper's figure, or its words."""
    if isinstance(claim.stated, str):
        return claim.stated
    if claim.unit == "%":
        return percent(claim.stated) if is_change(claim) else f"{claim.stated:g} %"
    return f"{claim.stated:g} {claim.unit}".strip()


# ---------------------------------------------------------------- reasons

def cell_of(found, method, theta):
    rows = tables.where(found.get("accuracy", []), dataset="synthetic", method=method, theta=theta, accounting="honest",
                        status="ok")
    return rows[0] if rows else None


def outlier_share(found, method, theta):
    """Percent of the squared error of the synthetic data that its outliers carry."""
    row = cell_of(found, method, theta)
    if row is None or not row["mse"]:
        return None
    return 100.0 * max(0.0, 1.0 - row["mse_inliers"] * (1 - 1e-4) / row["mse"])


def gain_without_cells(found, theta):
    """Change of the inliers' MSE from hyperchr to vq where vq is better."""
    vq, hyperchr = cell_of(found, "vq", theta), cell_of(found, "hyperchr", theta)
    if vq is None or hyperchr is None or vq["mse_inliers"] >= hyperchr["mse_inliers"]:
        return None
    return claims.change(vq["mse_inliers"], hyperchr["mse_inliers"])


def on_errors(found, claim):
    yield ("Both methods store codes and codebooks; HyperChr's one codebook is shared by all column groups, so the "
           "same bytes hold as many centroids as there are groups times PQ's.")
    theta = max(methods.LOW if claim.key.endswith(f"-{methods.LOW[0]}") else methods.HIGH)
    shares = [outlier_share(found, name, theta) for name in ("pq", "hyperchr")]
    if claim.key.startswith("hyperchr-mse") and None not in shares:
        yield (f"The synthetic data have an outlier in 10 000 elements; at theta {theta} they carry {shares[0]:.1f} "
               f"% of PQ's squared error and {shares[1]:.1f} % of HyperChr's, and one "
               "that gets no centroid of its own can decide the total.")
    gain = gain_without_cells(found, theta)
    if gain is not None:
        yield (f"The same codebook without cells (vq) has an MSE {percent(gain)} beside HyperChr's on the synthetic "
               f"inliers at theta {theta}: the sharing is what gains, the cells only make the fit faster.")


def on_times(found, claim):
    del found
    if claim.key == "hyperchr-dqt":
        yield ("The paper derives a factor of 1/m, from m reads of codebooks for PQ and one for HyperChr; but both "
               "read one centroid a sub-vector, and the methods differ only in where the codebooks lie in the "
               "caches. Both decoders are vectorized here; the paper's were Python.")
    else:
        yield ("Both fit by k-means. HyperChr's cells make many small problems of one large one; PQ's problems are "
               "small from the start, and here both are searched with pruning.")


def on_intervals(found, claim):
    del found, claim
    yield ("The paper contradicts itself: its section 4.3 says that MAE and MSE increase with the number of "
           "intervals, and a few lines on that finer partitioning reduces them; and its reason for a falling DQT, "
           "fewer centroids to search, is a reason for a falling QT.")


def on_levels(found, claim):
    level = int(claim.key[-1])
    yield f"The maps take {level / 2:g} bits an element."
    rows = tables.where(found.get("subspaces", []), m=8, level=level, maps="counted", status="ok")
    if rows:
        first, last = rows[0], rows[-1]
        yield (f"They are {100 * first['swap_map']:.0f} % of the memory at theta {first['theta']} and "
               f"{100 * last['swap_map']:.0f} % at theta {last['theta']}.")
    if level == 1:
        yield "The paper does not say at which ratios its figures hold; ours are means over those that were measured."
        if claims.maps_left_out(found):
            yield "Its table 1 fits budgets that leave the maps out, and none that count them (below)."
        yield ("Eight subspaces of 128 columns are sub-vectors of 16 elements, with so few rows that the codebooks "
               "take most of the memory: a method that needs fewer centroids gains there and less elsewhere (see "
               "the other numbers of subspaces).")


def on_conclusions(found, claim):
    del found
    if claim.key.endswith("opq"):
        yield ("The rotation is cols * cols floats, whatever the number of rows: it decides on a matrix of 1024 rows, "
               "and hardly counts on one of 100 000.")
    else:
        yield "Each level takes half a bit an element off the codes; it pays while the codes have bits to spare."


def on_proportions(found, claim):
    del found, claim
    yield ("The paper says neither the number of subspaces nor whether the maps count, but its four proportions fix "
           "both: with 1024 rows, 128 columns, 32-bit codebooks and whole code bits, codebooks take 4 k bits of a "
           "row and codes m ceil(log2 k), of 4096 / theta; the map of a level would take 64. The conditions that "
           "hold name what fits.")


def on_ranges(found, claim):
    del found
    yield ("The range of the matrix is that of its outliers, so this ratio says how well the worst element is met, "
           "not the typical one.")
    if claim.ours is not None and claim.ours < 1 / claims.FACTOR:
        yield ("Ours is far lower: k-means++ tends to give an outlier a centroid of its own, where random seeds "
               "leave several in one cluster. The paper does not say how it seeds.")


def on_variance(found, claim):
    del found, claim
    yield ("Exactly it is 1 - 1/pi = 0.6817, for both halves. It is the variance of a single element; that the MSE "
           "falls by the same factor would need the same number of centroids, and the map's bits come out of them.")


REASONS = {"hyperchr-mse": on_errors, "hyperchr-mae": on_errors, "hyperchr-": on_times, "intervals": on_intervals,
           "conclusion": on_conclusions, "qet-codebook": on_proportions, "qet-range": on_ranges,
           "qet-variance": on_variance, "qet-": on_levels}  # the first that a claim's key begins with
MOST_FAILURES = 8  # conditions that do not hold, in a paragraph; claims.csv has all


def reason(found, claim):
    write = next(each for beginning, each in REASONS.items() if claim.key.startswith(beginning))
    return " ".join(write(found, claim))


# ---------------------------------------------------------------- a paragraph

def conditions(claim):
    """Sentences on the conditions beside the first."""
    named = [(f"{name} ({figure(claim, value)})", met) for name, value, met in claim.conditions[1:] if met is not None]
    holds, fails = [words for words, met in named if met], [words for words, met in named if not met]
    if holds:
        also = "It also holds" if claim.verdict == claims.REPRODUCED else "It holds"
        yield f"{also}: {'; '.join(holds)}."
    if fails:
        more = f"; and {len(fails) - MOST_FAILURES} more" if len(fails) > MOST_FAILURES else ""
        yield f"It does not: {'; '.join(fails[:MOST_FAILURES])}{more}."


def paragraph(found, claim, said):
    """Lines on one claim. `said` holds the reasons that were given already: none is given twice."""
    title = claim.words[0].upper() + claim.words[1:]
    yield f"**{title}** ({claim.paper}: {stated(claim)}; holds if {claim.rule}): {claim.verdict}."
    if claim.ours is not None:
        yield f"Ours: {figure(claim, claim.ours)}, {claim.conditions[0][0]}."
        yield from conditions(claim)
    why = reason(found, claim)
    if why not in said:
        said.add(why)
        yield why
