"""A real Redis for tests, which can be killed and started again."""

import shutil
import signal
import subprocess

import pytest
from ports import free_port

WITHOUT_REDIS = "redis-server is not installed"


class RedisServer:
    """``with RedisServer(tmp_path) as redis``: a server at `redis.url` that writes each command to its file at once."""

    def __init__(self, folder, fsync="always"):
        self.folder = folder
        self.fsync = fsync
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"

    def __enter__(self):
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip(WITHOUT_REDIS)
        options = {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--dir": str(self.folder),
            "--save": "",
            "--appendonly": "yes",
            "--appendfsync": self.fsync,
        }
        words = [word for pair in options.items() for word in pair]
        self.process = subprocess.Popen([program, *words], stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if "Ready to accept connections" in line:
                return self
        raise AssertionError(f"redis-server ended with {self.process.wait()}")

    def __exit__(self, *error):
        self.kill(signal.SIGTERM)

    def kill(self, number=signal.SIGKILL):
        """End the server, by SIGKILL or politely."""
        self.process.send_signal(number)
        self.process.wait()
        self.process.stdout.close()
