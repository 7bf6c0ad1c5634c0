"""The page on engines: its program for Ray runs, and its commands answer one part of the rows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from extras import needs_ray
from test_docs import BLOCK

import rxllm

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray warns of its own settings, and of having few rows

PAGE = Path(rxllm.__file__).parents[1] / "docs" / "how-to" / "engines.md"
ROWS = 80


def blocks(language):
    """Return the blocks of a language."""
    return [block[3] for block in BLOCK.finditer(PAGE.read_text("utf-8")) if block[1] == language]


@needs_ray
def test_the_program_for_ray_runs(ray_data, tmp_path, monkeypatch, capsys):
    """It prints a line for each row. Ray accepts the second block."""
    monkeypatch.chdir(tmp_path)
    program, failures, *_ = blocks("py")
    names = {}
    exec(program, names)  # noqa: S102  (the program is the page's own)
    exec(failures, names)  # noqa: S102  (the same)
    printed = set(capsys.readouterr().out.splitlines())
    assert {f"The {each}? Oh, sparkling water None" for each in ("sea", "moon")} == printed


def test_all_programs_are_python():
    """Those that need a cluster are not run."""
    programs = blocks("py")
    assert 4 == len(programs)
    for program in programs:
        compile(program, str(PAGE), "exec")


def commands():
    """Return the command for Slurm and the one for Kubernetes, with the variables that they read."""
    [slurm] = blocks("sh")
    [kubernetes] = blocks("yaml")
    command = re.search(r"exec rxllm .*?(?=\n +envFrom)", kubernetes, re.DOTALL)[0]
    return [(slurm, {"SLURM_ARRAY_TASK_ID": "3"}), (" ".join(command.split()), {"JOB_COMPLETION_INDEX": "2"})]


@pytest.mark.parametrize(("command", "variables"), commands(), ids=["Slurm", "Kubernetes"])
def test_a_command_answers_its_part(command, variables, tmp_path):
    """A dry run of the third part finds some of the rows."""
    rows = [{"custom_id": str(number), "text": "The sea?"} for number in range(ROWS)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    programs = {"rxllm": f'exec {sys.executable} -m rxllm "$@" --dry-run', "srun": 'exec "$@"'}
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-c", command.replace("/data/", "")],  # noqa: S607
        cwd=tmp_path,
        env={**os.environ, **variables, "PATH": path, "OPENAI_API_KEY": "key"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("", 0) == (done.stderr, done.returncode)
    assert 0 < int(re.search(r"to ask +(\d+)", done.stdout)[1]) < ROWS / 4
