"""COCO's download against a local server: whole, interrupted, damaged, hostile, and without room."""

import hashlib
import io
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mmgn.datasets import coco_download, transfer
from mmgn.datasets.coco_download import ARCHIVES, DEFAULT_PARTS, Archive, DownloadError, download_coco


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


PANOPTIC = zipped({f"panoptic_train2017/{i}.png": b"p" * 50 for i in range(3)})
FILES = {
    "/zips/val2017.zip": zipped({f"val2017/{i:012}.jpg": bytes([i]) * 100_000 for i in range(20)}),
    "/annotations/annotations_trainval2017.zip": zipped({"annotations/instances_val2017.json": '{"images": []}'}),
    "/annotations/panoptic_annotations_trainval2017.zip": zipped(
        {"annotations/panoptic_train2017.json": "{}", "annotations/panoptic_train2017.zip": PANOPTIC}
    ),
}
HOLDS = {
    "/zips/val2017.zip": {"val2017": 20},
    "/annotations/annotations_trainval2017.zip": {"annotations/instances_val2017.json": 1},
    "/annotations/panoptic_annotations_trainval2017.zip": {"annotations/panoptic_train2017": 1},
}


class Server(ThreadingHTTPServer):
    """Serves files with ranges; ``breaks`` are the sizes after which the next answers break off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.breaks = dict(FILES), [], []
        self.ranges, self.busy = True, 0


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, content = self.server, self.server.files.get(self.path)
        server.asked.append((self.command, self.path, self.headers.get("Range")))
        if server.busy:
            server.busy -= 1
            return self.send_error(503)
        if content is None:
            return self.send_error(404)
        begin = int(self.headers["Range"][6:-1]) if server.ranges and "Range" in self.headers else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[begin:][: server.breaks.pop(0) if server.breaks else None])
            self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, "_PAUSES", (0.01, 0.02))
    monkeypatch.setattr(transfer, "_CHUNK", 10_000)
    archives = {
        part: Archive(archive.path, hashlib.md5(FILES[f"/{archive.path}"]).hexdigest(), HOLDS[f"/{archive.path}"])
        for part, archive in ARCHIVES.items()
        if f"/{archive.path}" in FILES
    }
    monkeypatch.setattr(coco_download, "ARCHIVES", archives)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def get(server, root, *parts, **kwargs):
    download_coco(root, parts or ("annotations", "val"), url_base=f"http://127.0.0.1:{server.server_port}", **kwargs)


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name[0] != ".")


WHOLE = ["annotations/instances_val2017.json", *(f"val2017/{i:012}.jpg" for i in range(20))]


def test_the_layout_is_mmdets_and_a_second_run_asks_for_nothing(server, tmp_path, capsys):
    get(server, tmp_path / "coco")
    assert files(tmp_path / "coco") == WHOLE
    assert (tmp_path / "coco/val2017/000000000007.jpg").read_bytes() == bytes([7]) * 100_000
    server.asked.clear()
    get(server, tmp_path / "coco")
    assert server.asked == []
    assert "val2017.zip: unpacked in" in capsys.readouterr().out


def test_archives_can_be_kept(server, tmp_path, capsys):
    get(server, tmp_path, "val", keep_archives=True)
    assert (tmp_path / "val2017.zip").read_bytes() == FILES["/zips/val2017.zip"]
    server.asked.clear()
    (tmp_path / "val2017/000000000003.jpg").unlink()
    get(server, tmp_path, "val")
    assert server.asked == []
    # What this run has not fetched, it does not remove.
    assert files(tmp_path) == ["val2017.zip", *WHOLE[1:]]
    assert "the archive was there before, and is left" in capsys.readouterr().out


def test_an_archive_that_another_tool_has_begun_is_left(server, tmp_path):
    begun = tmp_path / "val2017.zip"
    begun.write_bytes(FILES["/zips/val2017.zip"][:700_000])
    with pytest.raises(DownloadError, match=r"was there before .*rename it val2017\.zip\.part to have the rest"):
        get(server, tmp_path)
    assert begun.read_bytes() == FILES["/zips/val2017.zip"][:700_000]
    # Told before the others are fetched.
    assert server.asked == []
    begun.rename(f"{begun}.part")
    get(server, tmp_path)
    assert server.asked[-1] == ("GET", "/zips/val2017.zip", "bytes=700000-")
    assert files(tmp_path) == WHOLE


def test_an_archive_that_comes_from_elsewhere_meanwhile_is_left(server, tmp_path, monkeypatch):
    def go_on(url, part, show):
        (tmp_path / "val2017.zip").write_bytes(b"another tool's")
        return real(url, part, show)

    real = transfer._go_on
    monkeypatch.setattr(transfer, "_go_on", go_on)
    with pytest.raises(DownloadError, match="has come from elsewhere meanwhile"):
        get(server, tmp_path, "val")
    assert (tmp_path / "val2017.zip").read_bytes() == b"another tool's"


def test_nothing_is_unpacked_over_files_of_the_users(server, tmp_path):
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017/000000000003.jpg").write_bytes(b"retouched")
    with pytest.raises(DownloadError, match=r"000000000003\.jpg is there and not as large as val2017\.zip has it"):
        get(server, tmp_path, "val")
    assert (tmp_path / "val2017/000000000003.jpg").read_bytes() == b"retouched"
    assert files(tmp_path) == ["val2017.zip", "val2017/000000000003.jpg"]


def test_archives_in_an_archive_are_unpacked_too(server, tmp_path):
    get(server, tmp_path, "panoptic")
    assert files(tmp_path) == ["annotations/panoptic_train2017.json"] + [
        f"annotations/panoptic_train2017/{i}.png" for i in range(3)
    ]


def test_broken_connections_are_gone_on_with(server, tmp_path):
    server.breaks = [700_000, 0, 500_000]
    get(server, tmp_path, "val")
    assert files(tmp_path) == WHOLE[1:]
    ranges = [asked for command, _, asked in server.asked if command == "GET"]
    assert ranges == ["bytes=0-", "bytes=700000-", "bytes=700000-", "bytes=1200000-"]


def test_an_interrupted_run_is_gone_on_with(server, tmp_path):
    server.breaks = [600_000, *[0] * 5]
    with pytest.raises(DownloadError, match=r"closed after 600000 bytes.*the same command goes on"):
        get(server, tmp_path, "val", tries=5)
    assert (tmp_path / "val2017.zip.part").stat().st_size == 600_000
    server.asked.clear()
    server.breaks = []
    get(server, tmp_path, "val")
    assert server.asked[-1] == ("GET", "/zips/val2017.zip", "bytes=600000-")
    assert files(tmp_path) == WHOLE[1:]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.breaks = False, [600_000]
    get(server, tmp_path, "val")
    assert files(tmp_path) == WHOLE[1:]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path, capsys):
    server.busy = 3
    get(server, tmp_path, "annotations")
    assert capsys.readouterr().out.count("HTTP Error 503: Service Unavailable; again in 0.0") == 3
    assert files(tmp_path) == WHOLE[:1]
    server.asked.clear()
    del server.files["/zips/val2017.zip"]
    with pytest.raises(DownloadError, match=r"/zips/val2017.zip: HTTP Error 404"):
        get(server, tmp_path, "val")
    assert len(server.asked) == 1


def test_other_bytes_are_refused_and_removed(server, tmp_path):
    server.files["/zips/val2017.zip"] = FILES["/zips/val2017.zip"][:-1] + b"!"
    with pytest.raises(DownloadError, match=r"val2017.zip has the MD5 checksum \w{32}, the published one is \w{32}"):
        get(server, tmp_path, "val")
    assert files(tmp_path) == []


def test_no_room_is_told_before_anything_is_fetched(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 3_000_000))
    with pytest.raises(DownloadError, match=r"has 0.00 GiB free, and .* take 0.00 GiB more.*--parts"):
        get(server, tmp_path, "val")
    assert all(command == "HEAD" for command, _, _ in server.asked)
    # Half of it is there.
    (tmp_path / "val2017.zip.part").write_bytes(FILES["/zips/val2017.zip"][:1_500_000])
    get(server, tmp_path, "val")
    assert files(tmp_path) == WHOLE[1:]


def serve_as_val(server, monkeypatch, content, **holds):
    server.files["/zips/val2017.zip"] = content
    archive = Archive("zips/val2017.zip", hashlib.md5(content).hexdigest(), holds or {"val2017": 1})
    monkeypatch.setitem(coco_download.ARCHIVES, "val", archive)


@pytest.mark.parametrize("name", ["../escaped.jpg", "/escaped.jpg", "val2017/../../escaped.jpg", "..\\escaped.jpg"])
def test_members_that_lead_out_are_refused(name, server, tmp_path, monkeypatch):
    serve_as_val(server, monkeypatch, zipped({"val2017/1.jpg": b"1", name: b"evil"}))
    with pytest.raises(DownloadError, match=r"leads out of .*; nothing is unpacked"):
        get(server, tmp_path / "coco", "val")
    assert files(tmp_path) == ["coco/val2017.zip"]


def test_links_are_refused(server, tmp_path, monkeypatch):
    link = zipfile.ZipInfo("val2017/link")
    link.external_attr = 0o120777 << 16
    serve_as_val(server, monkeypatch, zipped({link: "/etc/passwd"}))
    with pytest.raises(DownloadError, match="'val2017/link' is a link"):
        get(server, tmp_path, "val")


def test_a_bomb_is_not_unpacked(server, tmp_path, monkeypatch):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("val2017/1.jpg", bytes(20_000_000))
    serve_as_val(server, monkeypatch, file.getvalue())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, 10_000_000))
    with pytest.raises(DownloadError, match=r"holds 0.02 GiB, and .* has 0.01 GiB free"):
        get(server, tmp_path, "val")
    assert files(tmp_path) == ["val2017.zip"]


def test_a_damaged_member_is_told_and_not_left(server, tmp_path, monkeypatch):
    content = zipped({"val2017/1.jpg": b"1" * 1000, "val2017/2.jpg": b"2" * 1000})
    serve_as_val(server, monkeypatch, content.replace(b"2" * 1000, b"2" * 999 + b"3"))
    with pytest.raises(DownloadError, match="cannot be unpacked: Bad CRC-32"):
        get(server, tmp_path, "val")
    assert files(tmp_path) == ["val2017.zip", "val2017/1.jpg"]


def test_an_archive_of_something_else_is_told(server, tmp_path, monkeypatch):
    serve_as_val(server, monkeypatch, zipped({"test2017/1.jpg": b"1"}))
    with pytest.raises(DownloadError, match="has not all of val2017"):
        get(server, tmp_path, "val")


def test_one_download_at_a_time(server, tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".download.lock"), pytest.raises(DownloadError, match="another download into"):
        get(server, tmp_path, "val")


@pytest.mark.parametrize("url", ["file:///etc", "ftp://host", "images.cocodataset.org", "http://"])
def test_only_http_is_asked(url, tmp_path):
    with pytest.raises(ValueError, match="url_base must be of the form"):
        download_coco(tmp_path, url_base=url)


def test_what_is_published_is_named_as_the_configs_name_it():
    assert set(DEFAULT_PARTS) < set(ARCHIVES)
    held = {path for part in DEFAULT_PARTS for path in ARCHIVES[part].holds}
    assert {
        "annotations/instances_train2017.json",
        "annotations/instances_val2017.json",
        "train2017",
        "val2017",
    } <= held
    assert len({archive.md5 for archive in ARCHIVES.values()}) == len(ARCHIVES)
    with pytest.raises(ValueError, match=r"parts must be of annotations, val, train.*got no"):
        download_coco("nowhere", ("no",))
