"""Work spread over processes: in order, on one thread each, with a clear end when something dies."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from equiscope.errors import DataError, InputError
from equiscope.tasks.datasets import processes
from equiscope.tasks.datasets.processes import THREAD_VARIABLES, available_cores, exclusive, ordered

SCRIPT = """
import time
from equiscope.tasks.datasets.processes import ordered
from tests.tasks.datasets.test_processes import pid
for job, worker in ordered(pid, [0], 1):
    print(worker, flush=True)
    time.sleep(60)
"""


def slow_first_deadly_last(job: int) -> tuple[int, list[str | None]]:
    time.sleep(0.3 if job == 0 else 0.0)
    if job == 12:
        os._exit(9)
    return job * job, [os.environ.get(name) for name in THREAD_VARIABLES]


def pid(job: int) -> int:
    return os.getpid()


def identity(module: ModuleType) -> tuple[object, object]:
    """What says where a module came from; a test worker's main module has no file."""
    return getattr(module, "__spec__", None), getattr(module, "__file__", None)


def test_results_come_in_order_from_one_thread_each_until_a_worker_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    results, before = [], identity(sys.modules["__main__"])
    # Jobs 0-3 are answered before the last one is handed out.
    with pytest.raises(DataError, match="a worker process died"):
        results.extend(ordered(slow_first_deadly_last, range(13), 2))
    assert [(job, square) for job, (square, _) in results] == [(i, i * i) for i in range(len(results))]
    assert len(results) >= 4
    assert all(threads == ["1", "1", "1"] for _, (_, threads) in results)
    # The caller's __main__, hidden from the workers while they start, is as it was.
    assert identity(sys.modules["__main__"]) == before
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_a_script_without_guard_works_and_its_workers_end_with_it(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(SCRIPT)
    path = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_function_of_the_script_itself_is_refused() -> None:
    def inside(job: int) -> None: ...

    inside.__module__ = "__main__"
    with pytest.raises(InputError, match="inside must stand in an importable module"):
        list(ordered(inside, [0], 1))


def test_available_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({"cpu.max": "150000 100000"}, "0::/", [1.5]),
        ({"cpu.max": "max 100000"}, "0::/", []),
        ({"user/job/cpu.max": "300000 100000", "user/cpu.max": "200000 100000"}, "0::/user/job", [3.0, 2.0]),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/", [0.5]),
        ({"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/a", []),
        ({}, "", []),
    ],
)
def test_quotas_of_control_groups(tmp_path, files, own, cores) -> None:
    for name, text in {**files, "own": own}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert processes._quotas(tmp_path, tmp_path / "own") == cores


def test_cores_are_no_more_than_the_quota(monkeypatch) -> None:
    monkeypatch.setattr(processes, "_quotas", lambda: [0.3])
    assert available_cores() == 1


def test_the_lock_keeps_others_out_and_goes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with exclusive(path):
        attempt = subprocess.run(["flock", "--nonblock", str(tmp_path / ".set.npz.lock"), "true"], check=False)
        assert attempt.returncode != 0
        path.touch()
    assert [p.name for p in tmp_path.iterdir()] == ["set.npz"]
