"""Published weights: the cache, and a download that resumes, verifies and never shows half a file."""

import hashlib
import http.server
import threading

import pytest

from hdcid_cli.backbones import weights
from hdcid_cli.backbones.weights import Published, find_weights
from hdcid_cli.core.errors import HdcidError, InputError

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, with ranges; after `cut` bytes of an answer the connection breaks."""

    requests: list
    cut: int | None = None
    ranges = True

    def do_GET(self):
        wanted = self.headers.get("Range") if self.ranges else None
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.requests.append(start)
        if start >= len(CONTENT):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][: self.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Server,), {"requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        handler.url = f"http://127.0.0.1:{running.server_port}/net.pth"
        yield handler
        running.shutdown()


@pytest.fixture
def publish(server, monkeypatch, tmp_path):
    """Put the server's file into the table; returns where the cache will have it."""
    monkeypatch.setenv("HDCID_HOME", str(tmp_path))

    def add(digest=DIGEST):
        monkeypatch.setitem(weights.PUBLISHED, "net", Published(server.url, "sha256", digest))
        return tmp_path / "weights" / "net.pth"

    return add


def test_weights_are_downloaded_once(publish, server):
    path = publish()
    assert find_weights("net") == path
    assert path.read_bytes() == CONTENT
    assert find_weights("net") == path
    assert server.requests == [0]
    assert [file.name for file in path.parent.iterdir()] == ["net.pth"]


def test_the_leading_digits_of_a_digest_suffice(publish):
    path = publish(DIGEST[:8])
    assert find_weights("net") == path


def test_a_broken_download_goes_on_where_it_stopped(publish, server):
    path = publish()
    server.cut = 500_000
    with pytest.raises(HdcidError, match=r"cannot be downloaded .*ended after 500000 of 1280000"):
        find_weights("net")
    assert not path.exists()
    server.cut = None
    find_weights("net")
    assert path.read_bytes() == CONTENT
    assert server.requests == [0, 500_000]


def test_a_server_without_ranges_sends_all_of_it_again(publish, server):
    path = publish()
    path.parent.mkdir()
    (path.parent / "net.pth.part").write_bytes(b"something else")
    server.ranges = False
    find_weights("net")
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_complete_is_only_verified(publish):
    path = publish()
    path.parent.mkdir()
    (path.parent / "net.pth.part").write_bytes(CONTENT)
    find_weights("net")
    assert path.read_bytes() == CONTENT


def test_a_damaged_download_is_refused_and_fetched_anew(publish, server):
    path = publish()
    path.parent.mkdir()
    (path.parent / "net.pth.part").write_bytes(b"x" * 1000)
    with pytest.raises(HdcidError, match="damaged"):
        find_weights("net")
    assert not path.exists()
    find_weights("net")
    assert path.read_bytes() == CONTENT


def test_offline_the_error_says_what_to_fetch_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HDCID_HOME", str(tmp_path))
    monkeypatch.setitem(weights.PUBLISHED, "net", Published("http://127.0.0.1:9/net.pth", "sha256", "00"))
    with pytest.raises(
        HdcidError, match=r"fetch http://127.0.0.1:9/net.pth and put it at .*weights/net.pth, .*--weights"
    ):
        find_weights("net")


def test_a_file_of_ones_own_is_taken_as_it_is(tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"")
    assert find_weights(str(path)) == path
    with pytest.raises(InputError, match=r"no file of weights .*other.pth; published ones are vgg19"):
        find_weights(str(tmp_path / "other.pth"))
