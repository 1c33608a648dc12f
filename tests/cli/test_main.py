"""The entry point: every command's help, versions and refusals."""

import errno
import os
import subprocess
import sys

import pytest

from comedian.cli.main import COMMANDS, main
from match_factory import write_matches


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_without_importing_torch(command):
    script = (
        "import sys; from comedian.cli.main import main\n"
        f"try: main(['{command}', '--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"usage: comedian {command}" in done.stdout


def test_top_level_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    listed = capsys.readouterr().out
    assert all(command in listed for command in COMMANDS)


def test_version(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("comedian")


def test_unknown_command_and_argument_exit_with_2(capsys):
    assert main(["dance"]) == 2
    assert "unknown command `dance`" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "a", "b", "--nonsense"])
    assert stop.value.code == 2


def test_a_reader_that_goes_is_no_error(tmp_path):
    """As `comedian evaluate ... | head -1`, with more to print than a pipe holds."""
    code = "import sys; from comedian.cli import main as m; import types\n"
    code += "many = types.SimpleNamespace(EXAMPLE='', add_arguments=lambda p: None, run=lambda a: print('x' * 1_000_000))\n"
    code += "m.importlib.import_module = lambda name: many; sys.exit(m.main(['spot']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (141, b"")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_cannot_be_written_is_one_line(number, monkeypatch, tmp_path, capsys):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), str(tmp_path / "store"))

    root = write_matches(tmp_path / "root", num_frames=4)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert main(["prepare", str(root), str(tmp_path / "store"), "--fps", "2", "--height", "16"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and str(tmp_path / "store") in lines[0] and os.strerror(number) in lines[0]


def test_ctrl_c_is_one_line(monkeypatch, tmp_path, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("comedian.soccernet.prepare.prepare", interrupt)
    assert main(["prepare", str(tmp_path), str(tmp_path / "store")]) == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["comedian prepare: interrupted; rerun the same command to continue"]


def test_no_command_lists_them_and_exits_with_2(capsys):
    assert main([]) == 2
    assert "comedian COMMAND --help" in capsys.readouterr().out


def test_other_errors_keep_their_traceback(monkeypatch, tmp_path):
    def break_off(*_, **__):
        raise OSError(errno.EIO, "the disk is broken")

    root = write_matches(tmp_path / "root", num_frames=4)
    monkeypatch.setattr("pathlib.Path.mkdir", break_off)
    with pytest.raises(OSError, match="the disk is broken"):
        main(["prepare", str(root), str(tmp_path / "store"), "--fps", "2", "--height", "16"])
