"""Ranks are killed at random, under a launcher that starts them again: the run
comes to the end of one that nobody disturbed, to the bit, and what was saved
stays saved.

Usage: kill_test.py PROGRAM launch|torchrun. GRAPNEL_KILLS and GRAPNEL_SEED are
in the environment.
"""

import collections
import glob
import os
import random
import re
import shutil
import signal
import sys
import time

import rank_runs

KILLS = int(os.environ.get("GRAPNEL_KILLS", "4"))
SEED = int(os.environ.get("GRAPNEL_SEED", "1"))
# Of one run, at most.
KILLS_OF_A_RUN = 6
# A restart: the launcher's grace for ranks that were told to end, and a start.
PATIENCE = 40

# When a kill comes, and how often each is drawn.
MOMENTS = {"start": 2, "save": 3, "validation": 2, "any": 3}
# A launcher that is killed takes its ranks with it, and is started again. That
# of torchrun doesn't.
VICTIMS = {"launch": {"one": 6, "launcher": 1, "all": 2, "keeper": 1},
           "torchrun": {"one": 3, "all": 1}}


def draws(rng, weights):
    """Each once, so that a few kills have all of it; then at random, for ever."""
    yield from weights
    while True:
        yield rng.choices(list(weights), list(weights.values()))[0]


def check(condition, said, job):
    if not condition:
        sys.exit(f"{said}; the end of {job.log}:\n{job.output()[-4000:]}")


def saved_epoch(work_dir):
    """The last that a reader of last_checkpoint finds; 0 if there is none."""
    try:
        with open(f"{work_dir}/last_checkpoint") as f:
            return int(f.read().rpartition("_")[2])
    except FileNotFoundError:
        return 0


class Run:
    """One run, with its kills."""

    def __init__(self, program, launcher, folder, ranks, kills=0, plan=None):
        self.program, self.launcher, self.folder = program, launcher, folder
        self.ranks, self.kills = ranks, kills
        self.rng, self.moments, self.victims = plan or (None, None, None)
        self.work_dir = f"{folder}/w"
        self.starts = 0
        self.hits = collections.Counter()
        self.training = 0  # The last attempt, from its ranks' start.
        self.slowest = 0  # From a kill to the next attempt's training.
        rank_runs.write_inputs(folder)

    def start(self):
        """The launcher; one that was killed is started again by hand."""
        more = ["--resume"] if self.starts or self.launcher == "torchrun" else []
        build = {"launch": rank_runs.launch, "torchrun": rank_runs.torchrun}[self.launcher]
        command = build(self.program, self.folder, self.ranks, KILLS_OF_A_RUN, *more)
        self.starts += 1
        return rank_runs.Job(command, self.folder, f"start_{self.starts}")

    def moment(self, job, longest):
        """Waits for the time of a kill; returns what it is, or None if the run
        has ended."""
        kind = next(self.moments)
        log = job.output()
        before = log.count("Epoch(val)")

        def reached():
            if job.process.poll() is not None:
                return True
            if kind == "save":
                return glob.glob(f"{self.work_dir}/.tmp-*")
            return kind == "validation" and job.output().count("Epoch(val)") > before

        if kind == "start":
            time.sleep(self.rng.random() * 0.6)
        else:
            time.sleep(self.rng.random() * longest)
        if kind in ("save", "validation"):
            rank_runs.wait_for(reached, longest, pause=0.0005)
        return kind if job.process.poll() is None else None

    def kill(self, job, attempt):
        """Kills somebody; returns who it was, or None if it had ended."""
        victim = next(self.victims)
        if victim == "launcher":
            return victim if rank_runs.send(job.process.pid, signal.SIGKILL) else None
        if victim == "keeper":
            keeper = [pid for pid, e in rank_runs.processes(job.mark).items()
                      if "RANK" not in e and pid != job.process.pid]
            return victim if keeper and rank_runs.send(keeper[0], signal.SIGKILL) else None
        ranks = job.ranks(attempt)
        pids = list(ranks.values())
        if victim == "one" and pids:
            pids = [self.rng.choice(pids)]
        return victim if any([rank_runs.send(pid, signal.SIGKILL) for pid in pids]) else None

    def go(self, whole):
        """Trains to the end. Returns how many kills hit."""
        killed = attempt = 0
        job = self.start()
        try:
            while True:
                rank_runs.wait_for(
                    lambda: len(job.ranks(attempt)) == self.ranks
                    or job.process.poll() is not None, PATIENCE)
                began = time.monotonic()
                if killed == self.kills:
                    break
                moment = self.moment(job, whole / 3)
                saved, log_before = saved_epoch(self.work_dir), len(job.output())
                victim = moment and self.kill(job, attempt)
                if victim is None:
                    break  # It came to its end before.
                in_save = bool(glob.glob(f"{self.work_dir}/.tmp-*"))
                if victim in ("launcher", "keeper"):
                    code, _ = job.wait(PATIENCE)
                    if code == 0:
                        break
                    check(code == 137, f"a launcher that was killed ended with {code}", job)
                    check(not job.left_behind(), f"left behind: {job.left_behind()}", job)
                    job.__exit__()
                    job, attempt = self.start(), 0
                    log_before = 0
                else:
                    attempt += 1
                if not self.goes_on(job, attempt, saved, log_before):
                    break
                killed += 1
                self.hits.update([moment, victim] + ["in a save"] * in_save)
            code, _ = job.wait(10 * whole + PATIENCE)
            self.training = time.monotonic() - began
            check(code == 0, f"it ended with {code}", job)
            check(not job.left_behind(), f"left behind: {job.left_behind()}", job)
        finally:
            job.__exit__()
        return killed

    def goes_on(self, job, attempt, saved, log_before):
        """Whether there is another attempt: all ranks may have ended just before
        the kill. It begins with what was saved before that, or later."""
        said = re.compile(r"resumed epoch: (\d+)|Epoch\(train\) +\[1\]\[2/")
        begin = time.monotonic()
        found = rank_runs.wait_for(
            lambda: said.search(job.output(), log_before) or job.process.poll() is not None,
            PATIENCE, pause=0.01)
        found = said.search(job.output(), log_before)
        if not found and job.process.poll() == 0:
            return False
        self.slowest = max(self.slowest, time.monotonic() - begin)
        check(found, f"attempt {attempt} did not begin within {PATIENCE} s", job)
        epoch = int(found[1] or 0)
        check(epoch >= saved, f"LOST: epoch {saved} was saved, and it goes on from {epoch}", job)
        return True


def main():
    rank_runs.end_by_exit()
    program, launcher = os.path.abspath(sys.argv[1]), sys.argv[2]
    root = os.path.join(os.environ.get("TEST_TMPDIR", "/tmp"), f"kill_{launcher}")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    rng = random.Random(SEED)
    plan = rng, draws(rng, MOMENTS), draws(rng, VICTIMS[launcher])
    print(f"seed {SEED}, {KILLS} kills", flush=True)

    alone, whole = {}, 0

    def expected(ranks):
        nonlocal whole
        if ranks not in alone:
            run = Run(program, launcher, f"{root}/alone_{ranks}", ranks)
            run.go(60)
            whole = max(whole, run.training)
            alone[ranks] = rank_runs.outcome(run.work_dir)
        return alone[ranks]

    expected(2)
    hits = collections.Counter()
    killed = runs = slowest = 0
    begin = time.monotonic()
    while killed < KILLS:
        ranks = 3 if runs % 4 == 3 else 2
        kills = min(KILLS_OF_A_RUN, KILLS - killed)
        run = Run(program, launcher, f"{root}/run_{runs}", ranks, kills, plan)
        killed += run.go(whole)
        different = rank_runs.differences(expected(ranks), rank_runs.outcome(run.work_dir))
        if different:
            sys.exit(f"run {runs} in {run.folder} came to another end: {different}")
        shutil.rmtree(run.folder)
        hits += run.hits
        slowest = max(slowest, run.slowest)
        runs += 1
    print(f"{killed} kills in {runs} runs, 0 lost; {whole:.1f} s alone, "
          f"{time.monotonic() - begin:.0f} s in all, {slowest:.1f} s for the slowest restart")
    print(", ".join(f"{name} {count}" for name, count in sorted(hits.items())))


main()
