"""tools/download_coco.py: its messages and exit status; what it does is tested beside mmgn.datasets.coco_download."""

import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/download_coco.py"


class Handler(BaseHTTPRequestHandler):
    """Serves 100 kB as whatever is asked for; the last of it only when it is let go on."""

    go_on = threading.Event()

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(bytes(60_000))
        self.wfile.flush()
        self.go_on.wait(120)
        self.wfile.write(bytes(40_000))


@pytest.fixture
def url():
    Handler.go_on.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Handler.go_on.set()
    server.shutdown()
    server.server_close()


def test_ctrl_c_keeps_what_is_fetched_and_other_bytes_are_refused(url, tmp_path, run_tool):
    args = ["--root", "coco", "--parts", "annotations", "--url-base", url]
    part = tmp_path / "coco/annotations_trainval2017.zip.part"
    process = subprocess.Popen(
        [sys.executable, TOOL, *args], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 120
    while not part.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "download_coco.py: interrupted; the same command goes on from here" in output
    assert "Traceback" not in output
    assert part.exists()

    Handler.go_on.set()
    status, output = run_tool(tmp_path, "download_coco.py", *args)
    assert status == 1
    assert "the published one is f4bbac642086de4f52a3fdda2de5fa2c" in output
    assert "Traceback" not in output
    assert not part.exists()


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["--parts", "no"], 2, "invalid choice: 'no'"),
        (["--url-base", "file:///etc"], 1, "download_coco.py: url_base must be of the form http://HOST"),
    ],
)
def test_wrong_usage_is_told(args, status, said, tmp_path, run_tool):
    code, output = run_tool(tmp_path, "download_coco.py", *args)
    assert code == status
    assert said in output
