"""Killed half way, full disks, closed outputs, terminals."""
import os
import pty
import resource
import signal
import subprocess
import time

import support
from support import CliTest, normal, np


def no_room():
    """Every write past 2000 bytes fails, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


class Crash(CliTest):
    def test_killed(self):
        """Whenever it is killed, the final name holds a whole file or none."""
        self.save("x.npy", normal(2000, 64, 1))
        command = [support.QEM, "quantize", "x.npy", "-o", "out.safetensors", "--method", "rtn", "--ratio", "2"]
        started = time.monotonic()
        subprocess.run(command, cwd=self.dir, check=True, capture_output=True)
        duration = time.monotonic() - started
        os.remove(self.path("out.safetensors"))
        survived = killed = 0
        for step in range(24):
            process = subprocess.Popen(command, cwd=self.dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(duration * step / 20)
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
            if os.path.exists(self.path("out.safetensors")):
                self.qem("inspect", "out.safetensors")
                os.remove(self.path("out.safetensors"))
                survived += 1
        self.assertGreater(killed, 0)
        self.assertEqual(np.load(self.path("x.npy")).shape, (2000, 64))

    def test_killed_over_an_old_file(self):
        self.save("x.npy", normal(2000, 64, 1))
        old = self.write("out.safetensors", b"old")
        command = [support.QEM, "quantize", "x.npy", "-o", old, "--method", "rtn", "--ratio", "2"]
        for step in range(6):
            process = subprocess.Popen(command, cwd=self.dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.004 * step)
            process.send_signal(signal.SIGKILL)
            process.wait()
            if self.read(old) != b"old":
                self.qem("inspect", old)
                self.write(old, b"old")

    def test_full_disk(self):
        self.save("x.npy", normal(200, 32, 2))
        self.qem("quantize", "x.npy", "-o", "a.safetensors", "--method", "rtn", "--bits", "4.5")
        for command in [["quantize", "x.npy", "-o", "out.safetensors", "--method", "rtn", "--bits", "8.5"],
                        ["dequantize", "a.safetensors", "-o", "out.npy"],
                        ["dequantize", "a.safetensors", "-o", "out.safetensors"],
                        ["generate", "synthetic", "-o", "out.npy"]]:
            self.refused(1, "out.", *command, preexec_fn=no_room)
        kept = self.read("a.safetensors")
        self.refused(1, "a.safetensors", "quantize", "x.npy", "-o", "a.safetensors", "--method", "rtn", "--bits", "9",
                     preexec_fn=no_room)
        self.assertEqual(self.read("a.safetensors"), kept)

    def test_stdout_is_full(self):
        self.save("x.npy", normal(8, 8, 3))
        with open("/dev/full", "wb") as full:
            for command in [["inspect", "x.npy"], ["inspect", "x.npy", "--json"], ["--help"], ["device"]]:
                done = subprocess.run([support.QEM, *command], cwd=self.dir, stdout=full, stderr=subprocess.PIPE,
                                      stdin=subprocess.DEVNULL)
                self.assertEqual((done.returncode, done.stderr.count(b"\n")), (1, 1), (command, done.stderr))


class Progress(CliTest):
    COMMAND = ["quantize", "x.npy", "-o", "a.safetensors", "--method", "pq", "--ratio", "4"]

    def setUp(self):
        super().setUp()
        self.save("x.npy", normal(400, 32, 4))

    def on_terminal(self, *command):
        """Runs qem with stderr on a terminal; returns what it drew there."""
        master, terminal = pty.openpty()
        process = subprocess.Popen([support.QEM, *command], cwd=self.dir, stdout=subprocess.PIPE, stderr=terminal,
                                   stdin=subprocess.DEVNULL)
        os.close(terminal)
        drawn = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:
                break
            if not piece:
                break
            drawn += piece
        os.close(master)
        out = process.communicate()[0]
        self.assertEqual(process.returncode, 0, drawn)
        return out, drawn

    def test_silent_when_piped(self):
        self.qem(*self.COMMAND)
        self.qem("compare", "x.npy", "--methods", "pq", "--ratios", "2")

    def test_bar_on_a_terminal(self):
        out, drawn = self.on_terminal(*self.COMMAND, "--json")
        self.assertTrue(out.startswith(b"{"))
        self.assertIn(b"%", drawn)
        self.assertTrue(drawn.endswith(b"\r\x1b[K"), drawn[-40:])


if __name__ == "__main__":
    support.main()
