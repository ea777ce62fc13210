"""`dspark serve` on a tiny model, for tests: started, asked for its address, and ended in order."""
import os
import pathlib
import signal
import subprocess

from tiny_gguf import write_model


class ServeProcess:
    """with ServeProcess(dspark, folder, "--parallel", "4") as served: … served.url …"""

    def __init__(self, dspark, folder, *flags):
        model = pathlib.Path(folder, "tiny.gguf")
        write_model(model)
        self.log = pathlib.Path(folder, "log")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([dspark, "serve", "-m", model, "--port", "0", "-t", "2", *flags],
                                            stdout=subprocess.PIPE, stderr=log, text=True,
                                            env={**os.environ, "XDG_CACHE_HOME": str(folder)})
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://"), f"it does not say when it is ready: {self.log.read_text()}"

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if kind is None:
            assert code == 0, f"exit code {code} on SIGTERM: {self.log.read_text()}"
