"""Building what the benchmarks load, and the virtual environment of the peers."""
import os
import subprocess
import sys


def build(root, directory, targets):
    """Configures once (a release build with benchmarks and the shared library) and builds the targets."""
    if not os.path.exists(os.path.join(directory, "CMakeCache.txt")):
        subprocess.run(["cmake", "-S", root, "-B", directory, "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON",
                        "-DQEM_BUILD_BENCH=ON", "-DQEM_BUILD_TESTS=OFF"], check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", directory, "-j", str(os.cpu_count()), "--target", *targets], check=True,
                   stdout=sys.stderr)


def virtual_environment(directory, requirements):
    """Path of a Python with what `requirements` pins; made anew when they changed."""
    python, stamp = os.path.join(directory, "bin", "python"), os.path.join(directory, "requirements.txt")
    with open(requirements, encoding="utf-8") as file:
        wanted = file.read()
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as file:
            if file.read() == wanted:
                return python
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements],
                       check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError:
        sys.exit(f"no virtual environment in {directory}: it takes python3-venv and a network; --python takes "
                 f"a Python that has what {requirements} names")
    with open(stamp, "w", encoding="utf-8") as file:
        file.write(wanted)
    return python
