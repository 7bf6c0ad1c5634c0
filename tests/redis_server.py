"""A real Redis for tests, which can be killed, stopped and started again."""

import shutil
import signal
import subprocess

import pytest
from ports import free_port

WITHOUT_REDIS = "redis-server is not installed"


class RedisServer:
    """``with RedisServer(tmp_path) as redis``: a server at `redis.url`.

    It writes each command to its file at once; with ``fsync=None`` it forgets everything when it ends. A `certificate`
    makes it speak TLS.
    """

    def __init__(self, folder, fsync="always", certificate=None):
        self.folder = folder
        self.port = free_port()
        self.options = {"--bind": "127.0.0.1", "--dir": folder, "--save": "", "--port": self.port}
        if fsync is not None:
            self.options |= {"--appendonly": "yes", "--appendfsync": fsync}
        if certificate is None:
            self.url = f"redis://127.0.0.1:{self.port}"
        else:
            self.url = f"rediss://127.0.0.1:{self.port}?ssl_ca_certs={certificate}"
            self.options |= {"--port": 0, "--tls-port": self.port, "--tls-auth-clients": "no"}
            self.options |= {f"--tls-{name}-file": certificate for name in ("cert", "key", "ca-cert")}

    def __enter__(self):
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip(WITHOUT_REDIS)
        words = [str(word) for pair in self.options.items() for word in pair]
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
