"""An installed tree serves programs by find_package and by pkg-config."""
import glob
import os
import subprocess
import tempfile
import unittest

import support

STRUCTS = ["context_params", "context_info", "view", "recipe", "plan", "metrics", "artifact_info", "part",
           "tensor_info", "kmeans_params"]
EXAMPLE = os.path.join(support.SOURCE, "examples", "embed_cpu")


def run(*command, **keywords):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=300, **keywords)
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout.decode(errors='replace')}")
    return done.stdout.decode()


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory(prefix="qem-install-")
        cls.prefix = os.path.join(cls.place.name, "prefix")
        run("cmake", "--install", os.environ["QEM_BUILD"], "--prefix", cls.prefix)
        (config,) = glob.glob(os.path.join(cls.prefix, "lib*", "**", "pkgconfig", "qem.pc"), recursive=True)
        cls.pkgconfig = os.path.dirname(config)
        cls.libraries = os.path.dirname(cls.pkgconfig)

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def check_program(self, program, where):
        environment = dict(os.environ, LD_LIBRARY_PATH=self.libraries)
        self.assertIn("MSE", run(program, cwd=where, env=environment))

    def test_find_package(self):
        with tempfile.TemporaryDirectory() as build:
            run("cmake", "-S", EXAMPLE, "-B", build, "-DCMAKE_PREFIX_PATH=" + self.prefix)
            run("cmake", "--build", build)
            (program,) = glob.glob(os.path.join(build, "**", "embed_cpu"), recursive=True)
            self.check_program(program, build)

    def test_pkg_config(self):
        environment = dict(os.environ, PKG_CONFIG_PATH=self.pkgconfig)
        flags = run("pkg-config", "--define-prefix", "--cflags", "--libs", "qem", env=environment).split()
        with tempfile.TemporaryDirectory() as build:
            program = os.path.join(build, "embed_cpu")
            run("cc", "-std=c11", os.path.join(EXAMPLE, "embed_cpu.c"), "-o", program, *flags, "-lm")
            self.check_program(program, build)

    def test_pkg_config_static(self):
        environment = dict(os.environ, PKG_CONFIG_PATH=self.pkgconfig)
        flags = run("pkg-config", "--define-prefix", "--static", "--cflags", "--libs", "qem", env=environment).split()
        flags = [os.path.join(self.libraries, "libqem.a") if flag == "-lqem" else flag for flag in flags]
        with tempfile.TemporaryDirectory() as build:
            program = os.path.join(build, "embed_cpu")
            run("cc", "-std=c11", os.path.join(EXAMPLE, "embed_cpu.c"), "-o", program, *flags)
            self.check_program(program, build)

    def test_header(self):
        """qem.h compiles alone, as C99 and as C++."""
        include = os.path.join(self.prefix, "include")
        for compiler, language, standard in [("cc", "c", "c99"), ("c++", "c++", "c++11")]:
            with tempfile.TemporaryDirectory() as build:
                source = os.path.join(build, "alone." + ("c" if language == "c" else "cpp"))
                with open(source, "w") as file:
                    file.write("#include <qem/qem.h>\nint main(void)\n{\n")
                    for name in STRUCTS:
                        file.write(f"    qem_{name} {name} = QEM_{name.upper()}_INIT;\n")
                    file.write("    return (int)(" + " + ".join(f"{name}.version" for name in STRUCTS) + ");\n}\n")
                run(compiler, "-std=" + standard, "-pedantic", "-Wall", "-Wextra", "-Werror", "-I" + include, "-c",
                    source, "-o", os.path.join(build, "alone.o"))

    def test_exports(self):
        """The shared library exports qem_* alone."""
        libraries = [path for path in glob.glob(os.path.join(self.libraries, "libqem.so*")) if not os.path.islink(path)]
        for library in libraries:
            for line in run("nm", "-D", "--defined-only", library).splitlines():
                self.assertTrue(line.split()[-1].split("@")[0].startswith("qem_"), line)


if __name__ == "__main__":
    support.main()
