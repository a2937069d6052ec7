"""The same recipes on the CPU and on a GPU: times, and whether both give the same codes."""
import methods
import tables
from lab import Failed, Infeasible, Refused

TITLE = "CPU and GPU"
NAMES = ("rtn", "pq", "opq", "lopq", "vq", "hyperchr", "qet", "auto")


def run(lab, options, sets, missing):
    if not lab.has_gpu():
        why = "this machine has no GPU, or this build no support for it"
        missing.append({"experiment": "devices", "what": "CPU beside GPU", "reason": why})
        print(f"    left out: {why}", flush=True)
        return {}
    have = [name for name in NAMES if lab.lacks(methods.plain(name).options()) is None]
    rows = []
    for dataset in sets:
        print(f"  {dataset.name}, {dataset.rows} x {dataset.cols}", flush=True)
        try:
            results = lab.compare(dataset.paths[0], have, options.thetas, "--devices", "cpu,cuda", "--repeat",
                                  options.repeat)
        except (Failed, Infeasible, Refused) as why:
            lab.fail(f"devices on {dataset.name}", str(why))
            continue
        rows += [{"dataset": dataset.name, "rows": dataset.rows, "cols": dataset.cols, "method": result["method"],
                  "theta": int(result["theta"]), "device": result["device"], "status": result["status"],
                  "quantize_seconds": result["quantize_seconds"], "dequantize_seconds": result["dequantize_seconds"],
                  "codes_equal": result.get("codes_equal"), "max_device_difference": result.get("max_device_difference")}
                 for result in results]
    return {"devices": rows} if rows else {}


def draw(found, folder):
    del found, folder
    return []


def table(rows):
    """One ratio to read: theta 8, or what is nearest to it."""
    theta = min(dict.fromkeys(row["theta"] for row in rows), key=lambda each: abs(each - 8))
    yield f"| theta {theta} | method | QT CPU / GPU, s | DQT CPU / GPU, s | same codes |"
    yield "|---|---|---:|---:|---|"
    for dataset, method in dict.fromkeys((row["dataset"], row["method"]) for row in rows):
        sides = {row["device"]: row for row in tables.where(rows, dataset=dataset, method=method, theta=theta, status="ok")}
        if len(sides) == 2:
            cpu, gpu = sides["cpu"], sides["cuda"]
            times = [f"{cpu[key]:.3g} / {gpu[key]:.3g}" for key in ("quantize_seconds", "dequantize_seconds")]
            yield f"| {dataset} | {method} | {times[0]} | {times[1]} | {gpu['codes_equal']} |"
