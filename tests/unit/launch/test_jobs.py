"""Commands side by side: failures, progress, and being stopped."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from animegen.launch import jobs
from animegen.launch.jobs import Task, duration, run_all
from animegen.launch.slots import Slot


def task(folder: Path, name: str, code: str, steps: int = 0) -> Task:
    return Task(name, (sys.executable, "-S", "-c", code), folder / f"{name}.txt", steps)


def test_a_crashed_command_ends_nothing_else(tmp_path: Path) -> None:
    crash = "import sys; print('step 1'); sys.exit('animegen: the weights are spoilt.')"
    kill = "import os, signal; print('big', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    tasks = [
        task(tmp_path, "crash", crash),
        task(tmp_path, "kill", kill),
        task(tmp_path, "good", "import os; print(os.environ['OMP_NUM_THREADS'])"),
    ]
    told = io.StringIO()
    failed = run_all(tasks, [Slot(1), Slot(3)], stream=told)
    reasons = {failure.task.name: failure.reason for failure in failed}
    assert reasons == {"crash": "the weights are spoilt.", "kill": "killed by SIGKILL, last line: big"}
    assert (tmp_path / "good.txt").read_text() in ("1\n", "3\n")
    lines = told.getvalue().splitlines()
    assert any(line.startswith("[3/3] ") for line in lines)
    assert any("crash: failed after" in line and line.endswith("the weights are spoilt.") for line in lines)


def test_the_reason_is_of_this_attempt(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("an older mistake\n")
    failed = run_all([task(tmp_path, "a", "raise SystemExit(3)")], [Slot(1)], stream=io.StringIO())
    assert failed[0].reason == "no output"


def test_only_so_many_at_a_time(tmp_path: Path) -> None:
    code = "import time; print(time.time(), flush=True); time.sleep(0.3); print(time.time())"
    run_all([task(tmp_path, name, code) for name in "abc"], [Slot(1)], stream=io.StringIO())
    times = [float(line) for name in "abc" for line in (tmp_path / f"{name}.txt").read_text().split()]
    assert times == sorted(times)


def test_time_left_follows_from_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    tasks = [task(tmp_path, name, "", steps=100) for name in "ab"]
    told = io.StringIO()
    with jobs._display(tasks, told) as display:
        display.bars.get_time = lambda: now[0]
        running = jobs._Running(tasks[0], Slot(1), process, now[0], 0)
        display.started(running)
        for now[0], step in ((1050.0, 10), (1065.0, 40)):
            (tmp_path / "a.txt").write_text(f"step {step}/100  generator 0.5  2.0 steps/s\n")
            display.update([running])
        display.ended(running, None)
    process.wait()
    assert told.getvalue().splitlines() == [
        "a: started, 1 threads",
        "a: step 40 of 100, about 30 s left",  # 30 steps in 15 s
        "0 of 2 done, about 1:20 min left",
        "[1/2] a: finished in 1:05 min",
    ]
    assert [duration(seconds) for seconds in (4.4, 75, 3725)] == ["4 s", "1:15 min", "1:02 h"]


CHILD = """
import signal, sys, time
from pathlib import Path
def stop(*_):
    Path(sys.argv[1]).write_text("saved")
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""

PARENT = """
import signal, sys
from pathlib import Path
from animegen.launch.jobs import Task, run_all
from animegen.launch.slots import Slot
# A shell that started the tests in the background has them ignore Ctrl+C.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
command = (sys.executable, "-S", str(folder / "child.py"), str(folder / "saved.txt"))
try:
    run_all([Task("a", command, folder / "log.txt"), Task("b", command, folder / "b.txt")], [Slot(1)])
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_lets_the_running_commands_save(number: int, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not ((tmp_path / "log.txt").exists() and "ready" in (tmp_path / "log.txt").read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    parent.send_signal(number)
    _, told = parent.communicate(timeout=60)
    assert parent.returncode == 130
    assert (tmp_path / "saved.txt").read_text() == "saved"
    assert "stopping" in told
    assert not (tmp_path / "b.txt").exists()


def test_processes_import_nothing_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('imported from the current folder')\n")
    (tmp_path / "hydra.py").write_text("raise SystemExit('imported from the current folder')\n")
    done = subprocess.run([*jobs.train_command(["--help"])], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "animegen train" in done.stdout
