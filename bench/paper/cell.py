"""One cell of a table: a method at a budget on a data set, with the errors of all elements and of the inliers."""
import numpy as np

import tables
from lab import Failed, Infeasible, Refused

ERRORS = ("mae", "mre", "mse", "nmse", "mse_inliers", "mae_inliers")
SHARES = ("codes", "codebook", "swap_map")
FIGURES = ("k", "bits", *ERRORS, *SHARES, "quantize_seconds")


def inlier_errors(lab, dataset, path, artifact):
    original, decoded = np.load(path).astype(np.float64), np.load(lab.decode(artifact)).astype(np.float64)
    low, high = dataset.inliers
    errors = (decoded - original)[(original >= low) & (original <= high)]
    return {"mse_inliers": float(np.square(errors).mean()), "mae_inliers": float(np.abs(errors).mean()),
            "range_ratio": float(np.ptp(decoded - original) / np.ptp(original))}


def sample(lab, dataset, path, arguments):
    """What one run says. Without outliers that are known all elements are inliers."""
    artifact = lab.file("artifact.safetensors")
    report = lab.quantize(path, arguments, artifact)
    found = {key: report[key] for key in ("k", "mae", "mre", "mse", "nmse", "quantize_seconds")}
    found["bits"] = report["bits_per_element"]
    found["picked"] = (report.get("recipe") or {}).get("method", report["method"])
    for part in SHARES:
        found[part] = report["parts"][part] / report["stored_bytes"] if report["stored_bytes"] else None
    if dataset.inliers:
        return {**found, **inlier_errors(lab, dataset, path, artifact)}
    return {**found, "mse_inliers": report["mse"], "mae_inliers": report["mae"]}


def measure(lab, dataset, arguments, figures=FIGURES):
    """-> status, reason, the number of seeds, means of the figures over them, and the deviation of the MSE. A budget that
    one seed cannot meet counts as one that cannot be met."""
    samples, status, reason = [], "ok", None
    for path in dataset.paths:
        try:
            samples.append(sample(lab, dataset, path, arguments))
        except Infeasible as why:
            status, reason, samples = "infeasible", str(why), []
            break
        except (Failed, Refused) as why:
            lab.fail(f"{dataset.name}, {' '.join(map(str, arguments))}", str(why))
            status, reason, samples = "failed", str(why), []
            break
    picked = sorted({found["picked"] for found in samples})
    return {"status": status, "seeds": len(samples), **tables.over_seeds(samples, figures),
            "mse_deviation": tables.deviation(found["mse"] for found in samples), "picked": "+".join(picked),
            "reason": reason}


def available(lab, methods, missing, experiment):
    """The methods that this build has; the others get a line in `missing`."""
    have = []
    for method in methods:
        why = lab.lacks(method.options())
        if why is None:
            have.append(method)
        else:
            entry = {"experiment": experiment, "what": method.name, "reason": why}
            if entry not in missing:  # once an experiment, not for every data set
                missing.append(entry)
                print(f"    {method.name}: left out, {why}", flush=True)
    return have
