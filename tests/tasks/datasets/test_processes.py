"""Work spread over processes: in order, on one thread each, with a clear end when something dies."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equiscope.errors import DataError
from equiscope.tasks.datasets.processes import THREAD_VARIABLES, available_cores, exclusive, ordered

SCRIPT = """
import time
from equiscope.tasks.datasets.processes import ordered
if __name__ == "__main__":
    for job, pid in ordered(GETPID, [0], 1):
        print(pid, flush=True)
        time.sleep(60)
""".replace("GETPID", "__import__('tests.tasks.datasets.test_processes', fromlist=['pid']).pid")


def slow_first(job: int) -> tuple[int, list[str | None]]:
    time.sleep(0.3 if job == 0 else 0.0)
    return job * job, [os.environ.get(name) for name in THREAD_VARIABLES]


def die(job: int) -> None:
    os._exit(9)


def pid(job: int) -> int:
    return os.getpid()


def test_results_come_in_order_from_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    results = list(ordered(slow_first, range(12), 2))
    assert [job for job, _ in results] == list(range(12))
    assert [square for _, (square, _) in results] == [i * i for i in range(12)]
    assert all(threads == ["1", "1", "1"] for _, (_, threads) in results)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_a_dead_worker_is_a_clear_error() -> None:
    with pytest.raises(DataError, match="a worker process died"):
        list(ordered(die, [0], 1))


def test_workers_end_with_a_killed_parent() -> None:
    root = Path(__file__).parents[3]
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
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


def test_available_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


def test_the_lock_keeps_others_out_and_goes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    with exclusive(path):
        attempt = subprocess.run(["flock", "--nonblock", str(tmp_path / ".set.npz.lock"), "true"], check=False)
        assert attempt.returncode != 0
        path.touch()
    assert [p.name for p in tmp_path.iterdir()] == ["set.npz"]
