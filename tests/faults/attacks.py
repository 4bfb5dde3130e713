"""Attacks on run folders, locks, stored settings, data, models in threads and shown text; each must be held.

A class of attacks is a function of a folder that yields ``(name, attempt)``; an attempt returns where the attack was
held, and raises where something was lost, run, shown or accepted that must not be.
"""

import csv
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from equiscope import records, words, writing
from equiscope.decomposition.preserve import untouched
from equiscope.errors import EquiscopeError, InputError, IntegrityError, ModelError, RunError
from equiscope.report import build
from equiscope.runs import checkpoint
from equiscope.runs.config import configuration
from equiscope.runs.folder import RunFolder
from equiscope.runs.train import train
from equiscope.runs.trained import open_run
from equiscope.tasks.datasets import mapped
from equiscope.tasks.datasets.blocks import Block
from tests.faults.data_files import damaged_files
from tests.faults.disks import disk_errors
from tests.faults.faults import Tally, in_child
from tests.faults.harness import command, holds, quietly, refused
from tests.runs import toy
from tests.runs.ends import assert_same_end

SECRET = b"what somebody else keeps\n" * 40


def stopped(root: Path, at: int = 24, **changes) -> RunFolder:
    """A toy run that was interrupted; its last checkpoint is that of step 20."""
    right, calls = toy.Toy.training_loss, [0]

    def stopping(self, *arguments):
        calls[0] += 1
        if calls[0] > at:
            raise KeyboardInterrupt
        return right(self, *arguments)

    toy.Toy.training_loss = stopping
    config = toy.config(root, **changes)
    try:
        train(config, show_progress=False)
    except KeyboardInterrupt:
        return RunFolder(config["root"], "toy", config["run"])
    finally:
        toy.Toy.training_loss = right
    raise AssertionError("the run was not stopped")


def copied(folder: RunFolder, root: Path) -> RunFolder:
    made = RunFolder(root, "toy", "a")
    shutil.copytree(folder.path, made.path)
    return made


def victim_at(path: Path, place: Path) -> Path:
    """``path`` becomes a link to a file of somebody else."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(SECRET)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(place)
    return place


REPORTED = (
    ".lock", "report.html", ".report.html.tmp", "figures/percent.png", "figures/losses.png", "figures/relative.png",
    "figures/panels.png", "figures/.percent.png.tmp", ".records.jsonl.count.tmp", ".config.yaml.tmp",
    "figures/beside.png", "records.jsonl.torn",
)  # fmt: skip
RESUMED = (
    ".lock", "records.jsonl", "records.jsonl.count", "config.yaml", "checkpoints/last.ckpt.sha256",
    "checkpoints/.last.ckpt.tmp", "checkpoints/.last.ckpt.sha256.tmp", "checkpoints/step-40.ckpt",
)  # fmt: skip


def links(root: Path):
    """Links in a received folder to files of whoever opens it."""
    half, whole = stopped(root / "half"), train(toy.config(root / "whole"), show_progress=False)
    folder = copied(whole, root / "report")
    victims = {name: victim_at(folder.path / name, root / "victims" / name.replace("/", "-")) for name in REPORTED}
    command("report", folder.path, "--beside", whole.path)
    for name, victim in victims.items():
        yield f"report, {name}", lambda victim=victim: holds(victim.read_bytes() == SECRET, "written through")
    for number, name in enumerate(RESUMED):

        def resume(name=name, number=number):
            folder = copied(half, root / f"resume{number}")
            config = toy.config(root / f"resume{number}", trainer__keep=[40] if "step" in name else 0)
            if "step" in name:
                folder = RunFolder(root / f"kept{number}", "toy", "a")
                config = toy.config(root / f"kept{number}", trainer__keep=[40])
            victim = victim_at(folder.path / name, root / "victims" / f"t{number}")
            with suppress(EquiscopeError):
                quietly(lambda: train(config, show_progress=False))
            holds(victim.read_bytes() == SECRET, f"{name} was written through")

        yield f"train, {name}", resume
    for number, name in enumerate(("figures", "checkpoints", "tensorboard")):

        def folders(name=name, number=number):
            folder = copied(half, root / f"folder{number}")
            elsewhere = root / "victims" / f"folder{number}"
            elsewhere.mkdir(parents=True)
            for own in ("percent.png", "last.ckpt", "losses.png"):
                (elsewhere / own).write_bytes(SECRET)
            shutil.rmtree(folder.path / name, ignore_errors=True)
            (folder.path / name).symlink_to(elsewhere)
            command("report", folder.path)
            config = toy.config(root / f"folder{number}", logger={"name": "tensorboard"})
            with suppress(EquiscopeError):
                quietly(lambda: train(config, show_progress=False))
            holds(sorted(os.listdir(elsewhere)) == ["last.ckpt", "losses.png", "percent.png"], "files were made there")
            holds(all((elsewhere / own).read_bytes() == SECRET for own in os.listdir(elsewhere)), "overwritten")

        yield f"a folder, {name}", folders

    def lock_of_others():
        folder = copied(whole, root / "other-lock")
        (folder.path / ".lock").write_bytes(SECRET)
        with refused(RunError, match="is not what a run writes"):
            folder.acquire()
        holds((folder.path / ".lock").read_bytes() == SECRET)

    yield "a .lock that is a file of others", lock_of_others

    def data_lock():
        from equiscope.tasks.datasets import processes

        victim = victim_at(root / ".data.npz.lock", root / "victims" / "data")
        with refused(RunError, match="is a link"), processes.exclusive(root / "data.npz"):
            pass
        holds(victim.read_bytes() == SECRET)

    yield "the lock of a data file", data_lock


def held(root: Path, name: str) -> RunFolder:
    folder = RunFolder(root / name, "toy", "a")
    folder.path.mkdir(parents=True)
    folder.acquire()
    return folder


def second(folder: RunFolder) -> int:
    """What becomes of a second process that takes the lock: 71 for a RunError."""
    return in_child(RunFolder(folder.path.parent.parent, "toy", "a").acquire)


def locks(root: Path):
    """A second process while the first works, after whatever was done to the lock."""

    def opened(folder):
        for name in (".lock", "records.jsonl"):
            with open(folder.path / name, "a+b") as file:
                file.read()

    deeds = {
        "nothing": lambda f: None,
        "deleted": lambda f: (f.path / ".lock").unlink(),
        "opened and closed in the holder": opened,
        "copied by the holder": lambda f: shutil.copytree(f.path, f.path.with_name("copy")),
        "overwritten": lambda f: (f.path / ".lock").write_bytes(b""),
        "replaced": lambda f: writing.write_atomically(f.path / ".lock", b"process 1 on other, 00"),
        "locked and unlocked by the holder": lambda f: _posix(f.path / ".lock"),
        "after a child of the holder ended": lambda f: in_child(lambda: None),
    }
    for number, (name, deed) in enumerate(deeds.items()):

        def attempt(number=number, deed=deed):
            folder = held(root, f"a{number}")
            deed(folder)
            holds(second(folder) == 71, "a second process was admitted")
            folder.release()
            holds(second(folder) == 0, "the lock was not given back")

        yield f"lock {name}", attempt

    def other_path():
        folder = held(root, "path")
        (root / "elsewhere").symlink_to(root / "path")
        holds(second(RunFolder(root / "elsewhere", "toy", "a")) == 71, "admitted by another path")
        folder.release()

    yield "through another path", other_path
    if _mounted(root, root / "probe"):
        _unmount(root / "probe")

        def bind_mounted():
            folder, place = held(root, "bound"), root / "mounted"
            _mounted(root / "bound", place)
            try:
                holds(second(RunFolder(place, "toy", "a")) == 71, "admitted through a bind mount")
                folder.release()
                holds(second(RunFolder(place, "toy", "a")) == 0, "the lock was not given back")
            finally:
                _unmount(place)

        yield "through a bind mount", bind_mounted

    def renamed():
        folder = held(root, "renamed")
        os.rename(folder.path, folder.path.with_name("b"))
        code = in_child(RunFolder(root / "renamed", "toy", "b").acquire)
        holds(code == 71, "admitted to a renamed folder")
        folder.release()

    yield "folder renamed", renamed

    def orphan():
        ready, say = os.pipe()
        parent = os.fork()
        if parent == 0:
            folder = held(root, "orphan")
            if os.fork() == 0:
                os.close(ready)
                time.sleep(3)
                os._exit(0)
            os.write(say, b"!")
            os._exit(0 if folder else 1)
        os.read(ready, 1)
        os.waitpid(parent, 0)
        RunFolder(root / "orphan", "toy", "a").acquire()

    yield "an orphaned worker", orphan
    for number, (name, deed) in enumerate(
        {
            "appended to": lambda p: p.open("ab").write(b"x\n"),
            "cut": lambda p: os.truncate(p, 10),
            "deleted": lambda p: p.unlink(),
            "replaced": lambda p: writing.write_atomically(p, p.read_bytes()),
            "a folder": lambda p: (p.unlink(), p.mkdir()),
            "a link": lambda p: (p.unlink(), p.symlink_to("/dev/null")),
        }.items()
    ):

        def append(number=number, deed=deed):
            path = root / f"records{number}.jsonl"
            with records.Records(path) as book:
                book.append("train", step=1)
                deed(path)
                kept = path.read_bytes() if path.is_file() else b""
                with refused(RunError, match="nothing"):
                    book.append("train", step=2)
                holds((path.read_bytes() if path.is_file() else b"") == kept, "something was written")

        yield f"records {name} while they are written", append

    def taken_over():
        folder = held(root, "taken")
        with records.Records(folder.records, folder.lock) as book:
            book.append("train", step=1)
            (folder.path / ".lock").write_bytes(b"process 7 on elsewhere, 0123")
            with refused(RunError, match="taken over by process 7 on elsewhere"):
                book.append("train", step=2)
        folder.release()

    yield "another owner signed", taken_over

    def twice():
        with records.Records(root / "twice.jsonl") as book, refused(RunError, match="in use"):
            book.append("train", step=1)
            records.Records(root / "twice.jsonl")
        holds(len(records.read(root / "twice.jsonl")) == 1)

    yield "the same records opened twice", twice
    for number in (fcntl_error for fcntl_error in (37, 38, 95, 22)):

        def without_locks(number=number):
            folder = RunFolder(root / f"nolock{number}", "toy", "a")
            folder.path.mkdir(parents=True)
            with _no_locks(number):
                with pytest.warns(UserWarning, match="has no locks"):
                    folder.acquire()
                other = RunFolder(root / f"nolock{number}", "toy", "a")
                quietly(other.acquire)
                with records.Records(folder.records, folder.lock) as book, refused(RunError, match="taken over"):
                    book.append("train", step=1)
                other.release()
                folder.release()

        yield f"a file system without locks ({os.strerror(number)})", without_locks

    def study():
        from equiscope.runs.study_run import run_study

        folder = root / "studies" / "proteinflow-replicates"
        folder.mkdir(parents=True)
        lock = writing.Lock(folder)
        lock.take()
        with refused(RunError, match="in use"):
            run_study("replicates", ["task=proteinflow", f"root={root}"], show=False)
        lock.close()

    yield "a study started twice", study


def _mounted(folder: Path, place: Path) -> bool:
    """Whether a folder could be mounted at a second place, which only some users may."""
    place.mkdir()
    return subprocess.run(["mount", "--bind", folder, place], capture_output=True).returncode == 0


def _unmount(place: Path) -> None:
    subprocess.run(["umount", place], check=True, capture_output=True)


def _posix(path: Path) -> None:
    with open(path, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)


@contextmanager
def _no_locks(number: int):
    right = fcntl.flock

    def none(*_):
        raise OSError(number, os.strerror(number))

    fcntl.flock = none
    try:
        yield
    finally:
        fcntl.flock = right


def foreign_code(root: Path):
    """Stored settings that name code beside whoever opens the run."""
    folder, here = train(toy.config(root / "run", trainer__keep=[0, 40]), show_progress=False), os.getcwd()
    marker = root / "executed"
    modules = {
        "evil:Task": "evil.py", "evil2.task:Task": "evil2/task.py", "site:Task": "", "os:system": "",
        "equiscope.cli:main": "", "pickle:Unpickler": "",
    }  # fmt: skip
    for name, file in modules.items():
        if file:
            (root / file).parent.mkdir(exist_ok=True)
            (root / file).write_text(f"open({str(marker)!r}, 'w')\nclass Task: pass\n")
        for verb in (("analyse", "layers"), ("sample",), ("report",)):

            def attempt(name=name, verb=verb):
                given = copied(folder, root / f"{name}-{verb[0]}".replace("/", "-"))
                _with_task(given, name)
                os.chdir(root)
                sys.path.insert(0, "")
                try:
                    code, told = command(verb[0], given.path, *verb[1:])
                finally:
                    sys.path.remove("")
                    os.chdir(here)
                holds(not marker.exists(), "code was executed")
                holds(verb[0] == "report" or (code == 2 and "--trust" in told), told[-200:])

            yield f"{verb[0]}, task {name}", attempt

    def trusted():
        (root / "mine.py").write_text("from tests.runs.toy import Toy as Task\n")
        given = copied(folder, root / "trusted")
        _with_task(given, "mine:Task")
        sys.path.insert(0, str(root))
        try:
            with refused(InputError, match="trust"):
                open_run(given.path)
            holds(open_run(given.path, trust=True).step == 40)
        finally:
            sys.path.remove(str(root))

    yield "the same with trust", trusted


def _with_task(folder: RunFolder, name: str) -> None:
    """The run of somebody else: settings, records and checkpoints all say that it is of this task."""
    entries = records.read(folder.records)
    entries[0]["config"]["task"] = name
    _rewrite(folder, entries)
    stored = yaml.safe_load(folder.config.read_bytes()) | {"task": name}
    folder.config.write_text(yaml.safe_dump(stored))


def _rewrite(folder: RunFolder, entries) -> None:
    """Records with right checksums, whatever they hold, and checkpoints that name them."""
    lines = []
    for number, entry in enumerate(entries):
        body = {k: v for k, v in entry.items() if k not in ("sha", "n")}
        made = {"n": number, **body}
        made["sha"] = records.digest(made)
        lines.append(records._encode(made))
    folder.records.write_bytes(b"\n".join(lines) + b"\n")
    (folder.path / "records.jsonl.count").write_bytes(records._count_line(len(lines)))
    run = json.loads(lines[0])["sha"]
    for path in folder.checkpoint.parent.glob("*.ckpt"):
        io_ = checkpoint.VerifiedCheckpointIO()
        io_.run = run
        io_.save_checkpoint({k: v for k, v in checkpoint.load(path).items() if k != checkpoint.RUN}, path)


def settings(root: Path):
    """Stored settings changed, damaged or lost behind the back of a run."""
    half, whole = stopped(root / "half"), train(toy.config(root / "whole"), show_progress=False)
    stored = yaml.safe_load(whole.config.read_bytes())
    free = ("root", "progress", "threads", "logger", "trainer.keep")
    for key, value in words.leaves(stored):
        if key in free:
            continue
        new = value + 1 if isinstance(value, int | float) and not isinstance(value, bool) else f"{value}x"

        def changed(key=key, new=new):
            config = json.loads(json.dumps(stored))
            place = config
            *way, last = key.split(".")
            for part in way:
                place = place[part]
            place[last] = new
            whole.config.write_text(yaml.safe_dump(config))
            with refused(IntegrityError, match=key):
                open_run(whole.path)

        yield f"config.yaml, {key} changed", changed

    def lost():
        folder = copied(half, root / "lost")
        folder.config.unlink()
        with refused(RunError, match="batch_size (was 8, now 4)"):
            train(toy.config(root / "lost", batch_size=4), show_progress=False)
        undisturbed = train(toy.config(root / "undisturbed"), show_progress=False)
        assert_same_end(train(toy.config(root / "lost"), show_progress=False), undisturbed)
        holds(folder.config.exists(), "config.yaml was not written again")

    yield "config.yaml lost, the run gone on with other settings", lost
    bombs = {
        "aliases": "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwx")).encode(),
        "deep": b"[" * 100_000,
        "large": b"a: b\n" * 400_000,
        "not UTF-8": b"\xff\xfe\x00",
        "a tag": b"!!python/object/apply:os.system ['true']",
        "a list": b"- a",
        "empty": b"",
    }  # fmt: skip
    for name, content in bombs.items():

        def bomb(content=content):
            whole.config.write_bytes(content)
            begun = time.perf_counter()
            with refused(IntegrityError, match="config.yaml"):
                open_run(whole.path)
            holds(time.perf_counter() - begun < 10, "it took long")

        yield f"config.yaml, {name}", bomb

    def pipe():
        whole.config.unlink(missing_ok=True)
        os.mkfifo(whole.config)
        with refused(IntegrityError, match="config.yaml"):
            open_run(whole.path)
        whole.config.unlink()

    yield "config.yaml, a pipe", pipe


def exchanged(root: Path):
    """Checkpoints and data of another run in the place of a run's own."""
    half = stopped(root / "half", trainer__keep=[0, 20])
    other = stopped(root / "other", trainer__keep=[0, 20])
    kept = half.kept(20), other.kept(20)

    def whole_checkpoint(folder, theirs):
        for path, to in ((theirs, folder.checkpoint), (_sha(theirs), _sha(folder.checkpoint))):
            shutil.copyfile(path, to)

    def attempt_train():
        folder = copied(half, root / "a")
        whole_checkpoint(folder, other.checkpoint)
        with refused(IntegrityError, match="of another run"):
            quietly(lambda: train(toy.config(root / "a", trainer__keep=[0, 20]), show_progress=False))

    yield "a checkpoint of another run, train", attempt_train

    def attempt_open():
        folder = copied(half, root / "b")
        whole_checkpoint(folder, other.checkpoint)
        with refused(IntegrityError, match="of another run"):
            open_run(folder.path)

    yield "a checkpoint of another run, open_run", attempt_open

    def attempt_kept():
        folder = copied(half, root / "c")
        for path, to in ((kept[1], folder.kept(20)), (_sha(kept[1]), _sha(folder.kept(20)))):
            shutil.copyfile(path, to)
        with refused(IntegrityError, match="of another run"):
            open_run(folder.path, step=20)

    yield "a kept checkpoint of another run", attempt_kept

    def attempt_step():
        folder = copied(half, root / "d")
        shutil.copyfile(half.kept(0), folder.kept(20))
        _sha(folder.kept(20)).write_text(_sha(half.kept(0)).read_text().replace("step-0.ckpt", "step-20.ckpt"))
        with refused(IntegrityError, match="is the checkpoint of step 0"):
            open_run(folder.path, step=20)

    yield "a kept checkpoint of another step", attempt_step
    shapes = {
        "a list": [1, 2], "no weights": {"global_step": 20}, "weights of text": {"global_step": 20, "state_dict": "x"},
        "step of text": {"global_step": "x", "state_dict": {}}, "none": {"global_step": 20, "state_dict": {}},
        "wrong shapes": None,
    }  # fmt: skip
    for name, content in shapes.items():
        for verb in ("open", "train"):

            def shaped(name=name, content=content, verb=verb):
                folder = copied(half, root / f"shape-{name}-{verb}".replace(" ", "-"))
                if content is None:
                    content = checkpoint.load(folder.checkpoint)
                    content["state_dict"] = {k: v[:1] for k, v in content["state_dict"].items()}
                torch.save(content, folder.checkpoint)
                with open(folder.checkpoint, "rb") as file:
                    checkpoint._list(folder.checkpoint, [checkpoint.sha256(file)])
                config = toy.config(folder.path.parent.parent, trainer__keep=[0, 20])
                with refused(IntegrityError, RunError):
                    open_run(folder.path) if verb == "open" else quietly(lambda: train(config, show_progress=False))

            yield f"a checkpoint that is {name}, {verb}", shaped

    def strange_name():
        folder = copied(half, root / "e")
        (folder.checkpoint.parent / "step-².ckpt").write_bytes(b"")
        holds(folder.kept_steps() == [0, 20])

    yield "a checkpoint of step ²", strange_name

    def data():
        toy.Toy.checksum = lambda self: "0" * 64
        try:
            folder = stopped(root / "f")
            before = folder.records.read_bytes()
            toy.Toy.checksum = lambda self: "1" * 64
            with refused(RunError, match="the data are not those the run began with"):
                train(toy.config(root / "f"), show_progress=False)
        finally:
            del toy.Toy.checksum
        holds(folder.records.read_bytes() == before, "something was recorded")

    yield "other data after a kill", data
    frames = _frames(root / "frames")
    about = json.loads((frames / "metadata.json").read_text())
    for key, value in words.leaves(about):
        if key.startswith("arrays.") and key.endswith("bytes"):
            continue

        def described(key=key, value=value):
            changed = json.loads(json.dumps(about))
            place = changed
            *way, last = key.split(".")
            for part in way:
                place = place[part]
            place[last] = value + 1 if isinstance(value, int) else f"{value}x"
            (frames / "metadata.json").write_text(json.dumps(changed))
            with refused():
                mapped.read(frames)

        yield f"metadata.json of frames, {key}", described

    def split_without_checksum():
        changed = {**about, "groups": about["groups"] + 1}
        changed.pop("sha256")
        (frames / "metadata.json").write_text(json.dumps(changed))
        with refused(IntegrityError, match="groups"):
            mapped.read(frames)

    yield "metadata.json of frames of before, groups", split_without_checksum


def _sha(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _frames(path: Path) -> Path:
    rng = np.random.default_rng(0)
    blocks = [
        Block(group=group, numbers=np.array([6, 1]), positions=rng.normal(size=(3, 2, 3)), energy=rng.normal(size=3),
              forces=rng.normal(size=(3, 2, 3)))
        for group in "abcd"
    ]  # fmt: skip
    return mapped.write(path, blocks, {"config": {"file": "x"}, "description": {"orientation": None}})


def live(root: Path, reads: int = 150):
    """A report's reading of records while they grow."""
    path = root / "live.jsonl"
    for number in range(reads // 50):

        def attempt(number=number):
            stop, seen = threading.Event(), [0]

            def write():
                with records.Records(path) as book:
                    while not stop.is_set():
                        book.append("train", step=len(book.entries), text="x" * 200)

            thread = threading.Thread(target=write)
            with records.Records(path) as book:
                book.append("train", step=len(book.entries))
            thread.start()
            try:
                for _ in range(50):
                    found = quietly(lambda: records.read(path))
                    holds(len(found) >= seen[0], "records were lost from sight")
                    seen[0] = len(found)
            finally:
                stop.set()
                thread.join()

        yield f"reads {50 * number} to {50 * number + 49}", attempt


def writers(root: Path, rounds: int = 6):
    """Several processes that write one path while it is read."""
    for number in range(rounds):

        def attempt(number=number):
            path = root / f"shared{number}"
            writing.write_atomically(path, b"0" * 1000)

            def write():
                for i in range(40):
                    writing.write_atomically(path, bytes([48 + i % 10]) * 1000)

            children = []
            for _ in range(2):
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        write()
                        code = 0
                    finally:
                        os._exit(code)
                children.append(child)
            for _ in range(200):
                content = path.read_bytes()
                holds(len(content) == 1000 and len(set(content)) == 1, "a torn file was read")
            holds([os.waitpid(child, 0)[1] for child in children] == [0, 0], "a writer failed")
            holds(not list(root.glob(f".shared{number}*")), "temporary files are left")

        yield f"two writers, round {number}", attempt


def threads(root: Path, pairs: int = 10):
    """One model in two threads."""
    import equiscope as eq

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3))
    (probe,) = toy.Toy(0, 8).probes("track")

    def measure():
        return eq.measure(net, probe.batches, declaration=probe.declaration, forward=probe.forward).equivariance

    due = measure()
    for number in range(pairs):

        def together():
            found = []
            both = [threading.Thread(target=lambda: found.append(measure())) for _ in range(2)]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
            holds(found == [due, due], f"{found} for {due}")
            holds(all(m.training for m in net.modules()), "left in eval mode")

        yield f"measured in two threads, pair {number}", together
    for number in range(3):

        def trained(number=number):
            before, stop = net[0].weight.detach().clone(), threading.Event()

            def step():
                while not stop.is_set():
                    with torch.no_grad():
                        net[0].weight.add_(1e-3)
                    time.sleep(1e-4)

            thread = threading.Thread(target=step)
            thread.start()
            try:
                with refused(ModelError, match="another thread changed"), untouched(net):
                    time.sleep(0.05)
            finally:
                stop.set()
                thread.join()
            holds((net[0].weight > before).all(), "a training step was undone")

        yield f"trained meanwhile {number}", trained


FORMULAS = (
    "=1+1", "=cmd|' /C calc'!A0", "+1+1", "-1+cmd|x", "@SUM(A1)", "\t=1", "\r=1", "=HYPERLINK(\"x\")", "-2+3", "+x",
)  # fmt: skip
CONTROLS = (
    "\x1b]0;title\x07", "\x1b]8;;http://x\x07", "\x1b]52;c;eA==\x07", "\x1bP1$r0m\x1b\\", "\x1b[2;5H", "\x1b[?1049h",
    "\x1bc", "\x08\x08", "\x9b31m", "\x00", "\x07", "\x1b[6n",
)  # fmt: skip
TAGS = (
    "<!--<script>", "</script><script>x()</script>", "<!--", "-->", "<script>", "</SCRIPT >", "<![CDATA[",
    "\u2028<!--<script ",
)  # fmt: skip


def shown(root: Path):
    """Names that spreadsheets and terminals would obey."""
    for text in FORMULAS:

        def formula(text=text):
            ((found, number),) = csv.reader(io.StringIO(words.as_csv([(text, -1.5)]).decode()))
            holds(found[:1] == "'" and found[1:] == text and number == "-1.5", found)

        yield f"CSV {text!r}", formula
    for text in CONTROLS:

        def control(text=text):
            left = [c for c in words.harmless(f"a{text}b") if ord(c) < 32 or 127 <= ord(c) < 160]
            holds(not left, f"{left} came through")

        yield f"terminal {text!r}", control

    def command_line():
        code, told = command("report", root / "no\x1b]0;x\x07run")
        holds(code == 2 and "\x1b" not in told and "\x07" not in told, repr(told))

    yield "terminal, a path in an error", command_line


def pages(root: Path):
    """Names on a page of a run."""
    whole = train(toy.config(root / "run"), show_progress=False)
    for number, text in enumerate((*TAGS, "$\\frac{1}$", "$x", "\x1b[31m", "\ud7ff\uffff")):

        def page(text=text, number=number):
            folder = copied(whole, root / f"page{number}")
            entries = records.read(folder.records)
            entries[0]["name"] = entries[0]["model"] = text
            points = {text: [[1, 2.0]], "y": [[1, 2.0], [9, 1.0]]}
            entries[0]["reference"] = {"label": text, "points": points, "source": text}
            for entry in entries:
                if entry["kind"] == "measure":
                    entry["probe"] = text
            _rewrite(folder, entries)
            code, told = command("report", folder.path)
            holds(code == 0, told)
            _swallows_nothing(folder.report.read_text())

        yield f"page, {text!r}", page


def _swallows_nothing(page: str) -> None:
    """Every script element ends where it was written to end: none holds what opens a comment or a script in it."""
    for script in page.split("<script")[1:]:
        inside = script.partition(">")[2].partition("</script")[0]
        holds("<!--" not in inside or len(inside) > 500_000, "a comment opens inside a script")


def secrets(root: Path):
    """Keys and passwords of loggers must stand in no file."""
    keys = {
        "api_key": "hunter2-a", "token": "hunter2-b", "password": "hunter2-c", "client_secret": "hunter2-d",
        "credentials": "hunter2-e", "tracking_uri": "https://me:hunter2-f@host/x", "auth": "hunter2-g",
    }  # fmt: skip
    config = toy.config(root, logger={"name": "none", **keys, "deep": {"key": "hunter2-h"}})
    folder = train(config, show_progress=False)
    build(folder.path)
    for name in ("config.yaml", "records.jsonl", "report.html"):
        for key in (*keys, "deep.key"):

            def attempt(name=name, key=key):
                value = keys.get(key, "hunter2-h").partition("me:")[2].partition("@")[0] or keys.get(key, "hunter2-h")
                holds(value not in (folder.path / name).read_text(), f"{value} stands in {name}")

            yield f"{name}, {key}", attempt

    def goes_on():
        holds(train(config, show_progress=False).path == folder.path)

    yield "the run goes on with its keys", goes_on


def odd_records(root: Path):
    """Whole records that no run writes: a page, or words that say why not."""
    whole = train(toy.config(root / "run"), show_progress=False)
    entries = records.read(whole.records)
    kinds = {entry["kind"]: number for number, entry in enumerate(entries)}
    changes = [(kind, key) for kind in kinds for key in entries[kinds[kind]] if key not in ("n", "sha", "kind")]
    chosen = [c for i, c in enumerate(changes) if i % 3 == 0]
    for number, (kind, key) in enumerate(chosen):

        def attempt(number=number, kind=kind, key=key):
            odd = json.loads(json.dumps(entries))
            if number % 2:
                odd[kinds[kind]][key] = [{"x": None}, "²", -1e300, [], {}][number // 2 % 5]
            else:
                del odd[kinds[kind]][key]
            folder = copied(whole, root / f"odd{number}")
            _rewrite(folder, odd)
            command("report", folder.path)

        yield f"{kind}.{key}", attempt

    def newer():
        folder = copied(whole, root / "newer")
        odd = json.loads(json.dumps(entries))
        odd[0]["format"] = records.FORMAT + 1
        _rewrite(folder, odd)
        code, told = command("report", folder.path)
        holds(code == 2 and "upgrade equiscope" in told, told)

    yield "records of a newer version", newer

    def older():
        folder = copied(whole, root / "older")
        odd = json.loads(json.dumps(entries))
        for key in ("format", "data_sha256"):
            odd[0].pop(key, None)
        _rewrite(folder, odd)
        holds(command("report", folder.path)[0] == 0)

    yield "records of an older version", older

    def deep():
        folder = copied(whole, root / "deep")
        folder.records.write_bytes(b"[" * 200_000 + b"\n")
        holds(command("report", folder.path)[0] == 2)

    yield "records that nest without end", deep

    def pipe():
        folder = copied(whole, root / "pipe")
        folder.records.unlink()
        os.mkfifo(folder.records)
        holds(command("report", folder.path)[0] == 2)

    yield "records that are a pipe", pipe


ROOTS = (",", "=", "[", "]", "{", "}", "'", '"', "#", "ü", "(", ")", " ", "~", "%", "$", ":", "\\", "日", "'\\")


def roots(root: Path):
    """Folders of any name."""
    for letters in ROOTS:

        def attempt(letters=letters):
            place = f"{root}/a{letters}b"
            holds(configuration(["task=proteinflow", "run=x", f"root={place}"])["root"] == place)

        yield f"root=a{letters}b", attempt
    whole = train(toy.config(root / "plain", trainer__keep=[40]), show_progress=False)

    def here():
        before = os.getcwd()
        os.chdir(whole.path)
        try:
            holds(command("report", ".")[0] == 0)
            holds(open_run(".").step == 40)
        finally:
            os.chdir(before)

    yield "analyse and report of .", here

    def renamed():
        folder = whole.path.with_name("new name")
        shutil.copytree(whole.path, folder)
        holds(command("report", folder)[0] == 0)
        holds(open_run(folder).step == 40)

    yield "a renamed run", renamed


CLASSES = {
    "links in a received folder": links,
    "a second process, and locks": locks,
    "code of others": foreign_code,
    "stored settings": settings,
    "checkpoints and data of others": exchanged,
    "reports of a run that trains": live,
    "several writers of one path": writers,
    "models in threads": threads,
    "names in tables and terminals": shown,
    "names on pages and in figures": pages,
    "keys and passwords": secrets,
    "records of others": odd_records,
    "names of folders": roots,
    "errors of the disk": disk_errors,
    "damaged data files": damaged_files,
}


def tried(name: str, root: Path, every: int = 1) -> Tally:
    """Every attack of a class, or the first of every so many."""
    tally = Tally(name)
    for number, (attack, attempt) in enumerate(CLASSES[name](root)):
        if number % every:
            continue
        tally.done += 1
        try:
            attempt()
            tally.outcomes["held"] += 1
        except Exception as error:
            tally.lost.append(f"{attack}: {type(error).__name__}: {str(error)[:300]}")
    return tally
