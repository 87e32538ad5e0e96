from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from paglets.cli.app import main
from paglets.config.launch_file import load_launch_config

RIGHT = "[[startup_agents]]\nclass = 'tests.agents.keeper:Keeper'\nagent_id = 'one'\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")

    def begin(*arguments: str) -> tuple[int, str, str]:
        code = main(["config", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return begin


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "launch.toml"


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give what makes an editor that writes these texts, one each time it is opened."""

    def make(*texts: str, code: int = 0) -> None:
        for number, text in enumerate(texts):
            (tmp_path / f"text{number}").write_text(text)
        script = tmp_path / "editor with blanks.py"
        script.write_text(
            "import pathlib, sys\n"
            f"here = pathlib.Path({str(tmp_path)!r})\n"
            "text = sorted(here.glob('text*'))[0]\n"
            "pathlib.Path(sys.argv[1]).write_text(text.read_text())\n"
            "text.unlink()\n"
            f"sys.exit({code})\n"
        )
        monkeypatch.setenv("VISUAL", f"{sys.executable} '{script}'")
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)

    return make


def answers(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    stdin = io.StringIO(text)
    stdin.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", stdin)


def test_check(run: Run, path: Path) -> None:
    path.write_text(RIGHT)
    assert run("check", str(path)) == (0, f"{path} is right: 1 startup agents, 0 resident services\n", "")
    path.write_text(RIGHT + "scop = 'mesh'\n")
    code, out, err = run("check", str(path))
    assert (code, out) == (1, "")
    assert err.startswith(f"{path}:4:1: [[startup_agents]] number 1: unknown key 'scop'; allowed are class, enabled")
    code, out, _ = run("check", str(path), "--json")
    (problem,) = json.loads(out)["problems"]
    assert (code, problem["line"], problem["column"], problem["key"]) == (1, 4, 1, "startup_agents[1].scop")


def test_check_with_classes(run: Run, path: Path) -> None:
    path.write_text(RIGHT.replace("Keeper", "Absent"))
    assert run("check", str(path))[0] == 0
    code, _, err = run("check", str(path), "--classes")
    assert (code, "Absent" in err) == (1, True)


def test_an_absent_file(run: Run, path: Path) -> None:
    code, _, err = run("check", str(path))
    assert (code, "No such file" in err) == (1, True)
    code, out, err = run("show", str(path))
    assert code == 0
    assert "launch.sync_demo_config" in out
    assert "does not exist" in err


def test_show(run: Run, path: Path) -> None:
    path.write_text(RIGHT)
    code, out, _ = run("show", str(path))
    rows = {words[0]: words[1:] for line in out.splitlines() if (words := line.split()) and "." in words[0]}
    assert code == 0
    assert rows["startup_agents[1].agent_id"] == ['"one"', "line", "3"]
    assert rows["startup_agents[1].enabled"] == ["true", "default"]
    values = {each["key"]: each for each in json.loads(run("show", str(path), "--json")[1])["values"]}
    assert values["startup_agents[1].class"] == {
        "key": "startup_agents[1].class",
        "value": "tests.agents.keeper:Keeper",
        "origin": "file",
        "line": 2,
    }


def test_edit_puts_a_right_file_in_place(run: Run, path: Path, editor: Callable[..., None], tmp_path: Path) -> None:
    path.write_text(RIGHT)
    path.chmod(0o640)
    editor(RIGHT.replace("one", "two"))
    code, out, err = run("edit", str(path))
    assert (code, err) == (0, "")
    assert out == f"changed {path}; hosts read it when they start\n"
    assert load_launch_config(path).startup_agents[0].agent_id == "two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.glob("paglets-config-*")) == []


def test_edit_leaves_the_file_alone_while_it_is_wrong(run: Run, path: Path, editor: Callable[..., None]) -> None:
    path.write_text(RIGHT)
    editor("[launch\n")
    code, _, err = run("edit", str(path))
    assert (code, path.read_text()) == (1, RIGHT)
    assert ":1:8: no valid TOML" in err
    kept = Path(err.rsplit("what you wrote is in ", 1)[1].strip())
    assert kept.read_text() == "[launch\n"


def test_edit_asks_and_opens_the_copy_again(
    run: Run, path: Path, editor: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(RIGHT)
    editor("[launch\n", RIGHT + "enabled = false\n")
    answers(monkeypatch, "\n")
    code, _, err = run("edit", str(path))
    assert (code, "no valid TOML" in err) == (0, True)
    assert load_launch_config(path).startup_agents[0].enabled is False
    editor("[launch\n", RIGHT)
    answers(monkeypatch, "n\n")
    assert run("edit", str(path))[0] == 1
    assert load_launch_config(path).startup_agents[0].enabled is False


def test_edit_of_an_absent_file_begins_with_the_bundled_one(run: Run, path: Path, editor: Callable[..., None]) -> None:
    editor(RIGHT)
    assert run("edit", str(path))[0] == 0
    assert path.read_text() == RIGHT


def test_edit_does_not_undo_what_somebody_else_wrote(
    run: Run, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(RIGHT)
    script = tmp_path / "both.py"
    script.write_text(
        "import pathlib, sys\n"
        f"pathlib.Path({str(path)!r}).write_text('# theirs')\n"
        "pathlib.Path(sys.argv[1]).write_text('# mine')\n"
    )
    monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")
    code, _, err = run("edit", str(path))
    assert (code, path.read_text(), "changed by somebody else" in err) == (1, "# theirs", True)


def test_an_editor_that_fails_or_is_not_there(
    run: Run, path: Path, editor: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(RIGHT)
    editor("# other", code=3)
    code, _, err = run("edit", str(path))
    assert (code, "ended with 3" in err, path.read_text()) == (1, True, RIGHT)
    monkeypatch.setenv("VISUAL", "no-such-editor-anywhere")
    code, _, err = run("edit", str(path))
    assert (code, "cannot start the editor" in err) == (1, True)


def test_a_host_says_file_and_line(run: Run, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text("[launch]\nsync_demo_config = 3\n")
    assert main(["host", "--name", "x", "--port", "0", "--launch-config", str(path)]) == 1
    assert (
        f"Launch config {path}, line 2: [launch]: 'sync_demo_config' must be true or false" in capsys.readouterr().err
    )
