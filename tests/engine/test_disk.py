"""Files that cannot be written, for real: a limit of this process on the size of files, as a full disk."""

import contextlib
import errno
import logging
import resource

import pytest

pytest.importorskip("mmengine")

from mmgn.engine.disk import explain, quiet_logging, readable, told, watch_log


@contextlib.contextmanager
def limit(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(path, size=5000):
    with open(path, "w") as file:
        file.write("x" * size)
        file.flush()


def test_a_write_that_fails_is_told_with_its_file_and_the_limit(tmp_path):
    with limit(1000), pytest.raises(OSError) as caught:
        write(tmp_path / "file")
    # Python's own error does not name it.
    assert caught.value.filename is None
    with limit(1000):
        said = explain(caught.value)
    assert said == (
        f"{tmp_path}/file cannot be written: File too large; ulimit -f allows files of 0.0 MiB. "
        "Free some room, or give another --work-dir."
    )
    assert told(caught.value).endswith("Free some room, or write elsewhere.")


def test_room_is_told_where_it_is_short(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "file"))
    assert " MiB are free there. Free some room" in explain(error)


def test_of_a_quota_the_disks_room_is_not_told(tmp_path):
    error = OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path / "file"))
    assert explain(error).endswith(
        "file cannot be written: Disk quota exceeded. Free some room, or give another --work-dir."
    )


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ECONNRESET, None])
def test_other_errors_are_no_disks(number):
    assert explain(OSError(number, "something")) is None


def test_a_tool_tells_it_in_a_line_and_leaves_other_errors_alone(tmp_path):
    with limit(1000), pytest.raises(SystemExit, match=r"file cannot be written: File too large; .* write elsewhere\.$"):
        readable(lambda: write(tmp_path / "file"))()
    with pytest.raises(FileNotFoundError):
        readable((tmp_path / "none").read_text)()


def test_a_line_that_a_log_has_no_room_for_raises_once_without_a_traceback(tmp_path, capsys):
    logger, handler = logging.Logger("a log"), logging.FileHandler(tmp_path / "a.log")
    logger.addHandler(handler)
    watch_log(logger)
    logger.info("a line")
    with limit(1000):
        with pytest.raises(OSError, match=r"File too large: '.*/a\.log'"):
            logger.info("x" * 5000)
        logger.info("y" * 5000)
        with pytest.raises(OSError):
            handler.flush()
    handler.close()
    assert capsys.readouterr().err == ""


def test_a_line_that_was_lost_before_the_log_is_watched_raises(tmp_path, capsys):
    logger, handler = logging.Logger("a log"), logging.FileHandler(tmp_path / "a.log")
    logger.addHandler(handler)
    with limit(1000):
        with quiet_logging():
            logger.info("x" * 5000)
        with pytest.raises(OSError, match="File too large"):
            watch_log(logger)
    handler.close()
    assert capsys.readouterr().err == "" and logging.raiseExceptions


def test_events_that_tensorboard_has_no_room_for_are_told_with_their_file_without_its_threads_traceback(
    tmp_path, capsys
):
    from torch.utils.tensorboard import SummaryWriter

    def main():
        writer = SummaryWriter(tmp_path)
        with limit(1000):
            writer.add_text("text", "x" * 5000)
            writer.flush()

    with pytest.raises(SystemExit, match=r"tfevents\S+ cannot be written: File too large"):
        readable(main)()
    assert capsys.readouterr().err == ""
