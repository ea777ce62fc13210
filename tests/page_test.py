#!/usr/bin/env python3
"""The live page in headless Chromium, against `dspark serve` on a tiny model: it chats, tints drafts, and draws.

    tests/page_test.py DSPARK [SCREENSHOT.png]

A proxy appends a few lines of script to the page, which send a message: no driver, no package. Exit code 77: skipped.
"""
import http.server
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from serve_process import ServeProcess  # noqa: E402

# Runs behind the page once the model is known: stops a message before its first byte, starts a new chat while an
# error's body is read, then sends a message and notes when the reply is in the charts. The browser's clock is
# virtual, the server's is not: it stands still while something is fetched.
DRIVER = """
<script>
function idle() { return reading === null && $("send").textContent === "Send" ? messages.length : "busy"; }
function ask(text) { $("prompt").value = text; return send().catch(() => {}); }
async function drive() {
  if (!model) return setTimeout(drive, 50);
  const notes = document.body.dataset, fetched = window.fetch;
  const stopped = ask("never answered");
  send();
  await stopped;
  notes.stopped = idle();
  const json = async () => { $("fresh").click(); throw new DOMException("gone", "AbortError"); };
  window.fetch = async () => ({ok: false, status: 400, json});
  await ask("an error");
  window.fetch = fetched;
  notes.renewed = idle();
  reading = null;
  $("tokens").value = "60";
  await ask("on on on on on on on on");
  notes.answered = idle();
  await fetch("/wait");
  setTimeout(() => notes.done = "yes", 2500);
}
drive();
</script>
"""


class Proxy(http.server.BaseHTTPRequestHandler):
    """The server, but for its page, which gets the driver appended."""
    origin = ""
    protocol_version = "HTTP/1.0"

    def forward(self, body=None):
        request = urllib.request.Request(self.origin + self.path, data=body, method=self.command)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as response:
            data = response.read()
            self.send_response(response.status)
            self.send_header("Content-Type", response.headers["Content-Type"])
            self.end_headers()
        try:
            self.wfile.write(data + (DRIVER.encode() if self.path == "/" else b""))
        except BrokenPipeError:
            pass  # the page stopped reading

    def do_GET(self):
        if self.path == "/favicon.ico":
            return self.send_error(404)
        if self.path == "/wait":
            time.sleep(1.5)
            return self.send_error(404)
        self.forward()

    def do_POST(self):
        self.forward(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_):
        pass


def chromium(browser, url, profile, *flags):
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
               f"--user-data-dir={profile}", "--window-size=1280,900", "--virtual-time-budget=20000", *flags, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def check_page(dom):
    assert 'data-done="yes"' in dom, "the reply did not end"
    assert 'data-stopped="0"' in dom, "a message that was stopped before its answer stays in the history"
    assert 'data-renewed="0"' in dom, "the page is stuck after a new chat in the midst of an error"
    assert 'data-answered="2"' in dom, "the history is not a question and its answer"
    dom = dom.split("<script>")[0]  # what stands in its source is no proof
    assert "tokens a round" in dom, "no timings under the reply"
    turns = dom.split('class="turn"')
    assert len(turns) == 3, f"{len(turns) - 1} turns instead of 2"
    assert "<i>" in turns[2], "no token is tinted, though the text repeats itself"
    assert 'class="turn error"' not in dom, "the reply is an error"
    assert dom.count("<svg") == 5, "charts are missing"
    assert "<path" in dom and "<circle" in dom, "the charts are empty"


def main():
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        print("*** SKIPPED: no chromium; install the package chromium")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as scratch, ServeProcess(sys.argv[1], scratch) as served:
        Proxy.origin = served.url
        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}/"
        check_page(chromium(browser, url, scratch + "/profile", "--dump-dom"))
        if len(sys.argv) > 2:
            chromium(browser, url, scratch + "/profile", f"--screenshot={sys.argv[2]}")
        proxy.shutdown()
    print("the page chats, tints drafts and draws its charts")


if __name__ == "__main__":
    main()
