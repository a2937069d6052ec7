"""One side of one case in a process of its own: two OpenMP runtimes in one process disturb each other.

Reads one JSON object a line (prepare, run) and answers each with one; between two it sleeps in read().
"""
import importlib
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))


def answer(task, request):
    if request["do"] == "about":
        side = importlib.import_module("side_" + request["side"])
        return task, {"about": side.about(request["environment"])}
    if request["do"] == "prepare":
        side = importlib.import_module("side_" + request["side"])
        task = side.prepare(request["case"], request["environment"])
        return task, {"checksum": task.checksum()}
    return task, task.run()


def main():
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    task = None
    for line in sys.stdin:
        try:
            task, reply = answer(task, json.loads(line))
        except ImportError as error:
            reply = {"missing": str(error)}
        except Exception as error:  # the driver names the case and decides
            reply = {"missing" if type(error).__name__ == "Missing" else "failed": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
