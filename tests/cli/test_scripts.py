"""The project's scripts parse and can be run; README's C example compiles."""
import os
import re
import subprocess
import sys
import tempfile
import unittest

import support


class Scripts(unittest.TestCase):
    def test_syntax(self):
        for name in ["tools/quickstart", "tools/test", "tools/results", "tools/setup.sh", "tools/gpu-check", ".ci/run",
                     "bench/peers/run", "bench/scaling/run", "bench/paper/run", "bench/models/run"]:
            path = os.path.join(support.SOURCE, name)
            with open(path, encoding="utf-8") as file:
                first = file.readline()
            check = ["bash", "-n", path]
            if "python" in first:
                check = [sys.executable, "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())", path]
            subprocess.run(check, check=True, stdin=subprocess.DEVNULL)
            if not name.endswith(".sh"):
                self.assertTrue(os.access(path, os.X_OK), name)

    def test_readme_example(self):
        with open(os.path.join(support.SOURCE, "README.md"), encoding="utf-8") as file:
            (code,) = re.findall(r"```c\n(.*?)```", file.read(), re.DOTALL)
        with tempfile.TemporaryDirectory() as place:
            source = os.path.join(place, "example.c")
            with open(source, "w", encoding="utf-8") as file:
                file.write(code)
            include = "-I" + os.path.join(support.SOURCE, "include")
            subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", include, "-c", source, "-o",
                            os.path.join(place, "example.o")], check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    support.main()
