"""Ranks that are killed, stopped, slow, different or in the wrong place: each
run ends in time with a line that says why on every rank, or goes on.

Usage: faults_test.py PROGRAM, with //tests/dist:faulty_grapnel.
"""

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import rank_runs

PROGRAM = os.path.abspath(sys.argv.pop(1))
ROOT = os.path.join(os.environ.get("TEST_TMPDIR", "/tmp"), "faults")

# In seconds. What is seen to run out, and what isn't to.
TIMEOUT = 6
LONG = 60
# What a busy machine may add to a limit.
BUSY = 15
# What the runner promises: in training, if a timeout has to run out and if not, and at the start.
IN_TRAINING = TIMEOUT + 5 + BUSY
AT_ONCE = 5 + BUSY
AT_START = 2 * TIMEOUT + 30

# It saves nothing by itself, and doesn't end.
ENDLESS = rank_runs.CONFIG.replace(
    'checkpoint { interval: 1 max_keep_ckpts: 2 save_best: "accuracy/top1" }',
    "checkpoint { interval: -1 save_last: false }").replace(
        "max_epochs: 40", "max_epochs: 1000000 val_interval: 1000000").replace(
            "by_epoch: true end: 40", "by_epoch: true end: 1000000").replace(
                "interval: 2 }", "interval: 20 }")
ENDLESS = ENDLESS[:ENDLESS.index("distributed")]

TRAINS = "Epoch(train)"


# Bound to ports that nobody else is to get.
RESERVED = []


def free_port():
    RESERVED.append(socket.socket())
    RESERVED[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    RESERVED[-1].bind(("127.0.0.1", 0))
    return RESERVED[-1].getsockname()[1]


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def joins(pid):
    """Whether a process that comes or waits to come to others has the thread that does so."""
    for thread in glob.glob(f"/proc/{pid}/task/*/comm"):
        with contextlib.suppress(OSError), open(thread) as f:
            if f.read() == "grapnel-store\n":
                return True
    return False


@contextlib.contextmanager
def listener(answer=None):
    """The port of something else: it takes connections, and answers as a web
    server would, or not at all."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    peer.sendall(answer)
                    time.sleep(0.05)
                    peer.close()

        if answer:
            threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


class FaultsTest(unittest.TestCase):

    def setUp(self):
        self.folder = f"{ROOT}/{self.id().rpartition('.')[2]}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def write(self, config=ENDLESS, fault=None, timeout=LONG, join_timeout=LONG):
        if "distributed" not in config:
            config += (f"distributed {{ timeout_seconds: {timeout} "
                       f"join_timeout_seconds: {join_timeout} }}\n")
        if fault:
            config += f"custom_hooks {{ config {{ [testing/FaultHook] {{ {fault} }} }} }}\n"
        rank_runs.write_inputs(self.folder, config)

    def rank(self, rank, world_size, port, more=(), program=PROGRAM, cwd=".", **environment):
        """One that was started by hand."""
        environment = {"RANK": str(rank), "WORLD_SIZE": str(world_size),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
        return self.stack.enter_context(rank_runs.Job(
            ["env", f"--chdir={cwd}", *rank_runs.train(program, self.folder, *more)],
            self.folder, f"rank_{rank}", environment))

    def start(self, world_size, **more):
        port = free_port()
        return [self.rank(rank, world_size, port, **more) for rank in range(world_size)]

    def start_and_train(self, world_size, **more):
        ranks = self.start(world_size, **more)
        ranks[0].wait_for_line(TRAINS)
        return ranks

    def launch(self, ranks, *more, restarts=0):
        return self.stack.enter_context(rank_runs.Job(
            rank_runs.launch(PROGRAM, self.folder, ranks, restarts, *more), self.folder, "job"))

    def expect_end(self, job, code, within, *lines):
        got, took = job.wait(within)
        output = job.output()
        self.assertIsNotNone(got, f"it doesn't end within {within} s:\n{output[-3000:]}")
        self.assertEqual(got, code, output[-3000:])
        for line in lines:
            self.assertIn(line, output[-6000:])
        return took

    def expect_no_checkpoint(self):
        work_dir = f"{self.folder}/w"
        self.assertEqual(rank_runs.checkpoints(work_dir), set())
        self.assertFalse(os.path.exists(f"{work_dir}/last_checkpoint"))
        self.assertEqual([n for n in os.listdir(work_dir) if n.startswith(".tmp-")], [])

    def expect_one_checkpoint(self):
        names = rank_runs.checkpoints(f"{self.folder}/w")
        self.assertEqual(len(names), 1, names)

    # ------------------------------------------------------------ in training

    def test_killed_rank_is_named_by_the_others(self):
        self.write()
        ranks = self.start_and_train(3)
        rank_runs.send(ranks[1].process.pid, signal.SIGKILL)
        for rank in (0, 2):
            self.expect_end(ranks[rank], 1, AT_ONCE, "rank 1 ended without a message")

    def test_killed_host_of_the_store_is_named_by_the_others(self):
        self.write()
        ranks = self.start_and_train(3)
        rank_runs.send(ranks[0].process.pid, signal.SIGKILL)
        for rank in (1, 2):
            self.expect_end(ranks[rank], 1, AT_ONCE,
                            "rank 0 has ended or stands still: its store at")

    def test_stopped_rank_is_named_within_the_timeout(self):
        for stopped in (1, 0):
            with self.subTest(stopped=stopped):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.write(timeout=TIMEOUT)
                ranks = self.start_and_train(3)
                rank_runs.send(ranks[stopped].process.pid, signal.SIGSTOP)
                said = ("rank 0 has ended or stands still" if stopped == 0
                        else f"rank 1 gave no answer within {TIMEOUT}s")
                end = time.monotonic() + IN_TRAINING
                for rank in {0, 1, 2} - {stopped}:
                    self.expect_end(ranks[rank], 1, end - time.monotonic(), said)
                self.stack.close()

    def test_rank_that_is_ten_times_slower_is_waited_for(self):
        config = rank_runs.CONFIG.replace("max_epochs: 40", "max_epochs: 15")
        outcomes = []
        for slow in (False, True):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.write(config)
            ranks = self.start_and_train(2)
            while slow and ranks[1].process.poll() is None:
                for number, seconds in ((signal.SIGSTOP, 0.09), (signal.SIGCONT, 0.01)):
                    rank_runs.send(ranks[1].process.pid, number)
                    time.sleep(seconds)
            for job in ranks:
                self.expect_end(job, 0, 60)
            outcomes.append(rank_runs.outcome(f"{self.folder}/w"))
            self.stack.close()
        self.assertEqual(rank_runs.differences(*outcomes), [])

    def test_the_launchers_store_may_go_while_nobody_asks_it(self):
        self.write(rank_runs.CONFIG)
        job = self.stack.enter_context(rank_runs.Job(
            rank_runs.torchrun(PROGRAM, self.folder, 2, 0), self.folder, "job"))
        job.wait_for_line("Saving checkpoint at 3 epochs")
        rank_runs.send(job.process.pid, signal.SIGKILL)
        # torchrun leaves its ranks behind: they come to their end.
        self.assertEqual(job.left_behind(120), {})
        self.assertIn("epoch_40", rank_runs.checkpoints(f"{self.folder}/w"))

    def test_the_launchers_store_is_missed_where_a_rank_fails(self):
        self.write()
        job = self.stack.enter_context(rank_runs.Job(
            rank_runs.torchrun(PROGRAM, self.folder, 2, 0), self.folder, "job"))
        job.wait_for_line(TRAINS)
        ranks = job.ranks()
        rank_runs.send(job.process.pid, signal.SIGKILL)
        time.sleep(0.5)
        rank_runs.send(ranks[1], signal.SIGKILL)
        self.assertEqual(job.left_behind(AT_ONCE), {})
        self.assertIn("the launcher has ended or stands still: its store at", job.output())

    def test_a_hooks_error_is_told_on_every_rank(self):
        self.write(fault="fault: FAIL rank: 1 iter: 5")
        ranks = self.start(3)
        message = 'hook "fault": AfterTrainIter: the dog ate it'
        self.expect_end(ranks[1], 1, LONG, message)
        for rank in (0, 2):
            self.expect_end(ranks[rank], 1, AT_ONCE, f"rank 1: {message}")
        self.expect_no_checkpoint()

    def test_an_invalid_loss_of_one_rank_ends_all_in_its_iteration(self):
        self.write(ENDLESS + "custom_hooks { config { [hooks/CheckInvalidLossHook] "
                   "{ interval: 1 } } }\n", fault="fault: INVALID_LOSS rank: 1 iter: 7")
        ranks = self.start(2)
        self.expect_end(ranks[1], 1, LONG, "iteration 7", "loss")
        self.expect_end(ranks[0], 1, AT_ONCE, "rank 1: ", "iteration 7")
        self.expect_no_checkpoint()

    def test_a_stop_of_one_rank_saves_the_run_of_all(self):
        self.write(fault="fault: STOP rank: 1 iter: 5")
        ranks = self.start(2)
        for job in ranks:
            self.expect_end(job, 0, 60)
        self.assertIn("stopping: rank 1: it is enough", ranks[0].output())

    # -------------------------------------------------------------- interrupts

    def test_an_interrupt_of_one_rank_saves_the_run_of_all(self):
        self.write()
        ranks = self.start_and_train(3)
        rank_runs.send(ranks[1].process.pid, signal.SIGTERM)
        said = {0: "stopped with another rank; --resume goes on",
                1: "stopped by signal 15 (Terminated); --resume goes on",
                2: "stopped with another rank; --resume goes on"}
        for rank, line in said.items():
            self.expect_end(ranks[rank], 128 + signal.SIGTERM, AT_ONCE, line)
        self.assertIn("interrupted on rank 1: saving ", ranks[0].output())
        self.expect_one_checkpoint()
        again = self.start_and_train(3, more=["--resume"])
        self.assertIn("resumed epoch: ", again[0].output())

    def test_signals_come_twice_and_of_a_closed_terminal(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.write()
                job = self.launch(2)
                job.wait_for_line(TRAINS)
                # Whoever ends a job tells all of its processes, and the launcher
                # passes it on. A closed terminal is its own.
                told = [job.process.pid] if number == signal.SIGHUP else [
                    *rank_runs.processes(job.mark)]
                for pid in told:
                    rank_runs.send(pid, number)
                self.expect_end(job, 128 + number, AT_ONCE)
                self.expect_one_checkpoint()
                self.assertEqual(job.left_behind(), {})
                self.stack.close()

    def test_an_interrupt_beside_a_dead_rank_saves_nothing(self):
        for dead, timeout, bound in ((signal.SIGKILL, LONG, AT_ONCE),
                                     (signal.SIGSTOP, TIMEOUT, IN_TRAINING)):
            with self.subTest(dead):
                shutil.rmtree(self.folder, ignore_errors=True)
                self.write(timeout=timeout)
                ranks = self.start_and_train(2)
                rank_runs.send(ranks[1].process.pid, dead)
                rank_runs.send(ranks[0].process.pid, signal.SIGTERM)
                self.expect_end(ranks[0], 1, bound, "rank 1 ")
                self.expect_no_checkpoint()
                self.stack.close()

    def test_an_interrupt_while_ranks_are_awaited_ends_at_once(self):
        self.write()
        port = free_port()
        for rank in (0, 1):  # Which listens, and which looks for it.
            with self.subTest(rank=rank):
                job = self.rank(rank, 2, port)
                self.assertTrue(rank_runs.wait_for(lambda: joins(job.process.pid), LONG / 2),
                                job.output())
                rank_runs.send(job.process.pid, signal.SIGTERM)
                self.expect_end(job, 128 + signal.SIGTERM, LONG / 3,
                                f"launcher: joining as rank {rank} of 2: interrupted")
                self.stack.close()

    # ------------------------------------------------------------ at the start

    def test_rank_that_does_not_come_is_named(self):
        self.write(join_timeout=2 * TIMEOUT)
        port = free_port()
        # So that rank 0 doesn't wait for both of the others.
        second = self.rank(2, 3, port)
        self.assertTrue(rank_runs.wait_for(lambda: joins(second.process.pid), LONG))
        for job in (second, self.rank(0, 3, port)):
            self.expect_end(job, 1, AT_START, "rank 1 of 3 did not come to 127.0.0.1:")

    def test_rank_that_stands_still_at_the_start_is_named(self):
        self.write(join_timeout=TIMEOUT)
        port = free_port()
        first = self.rank(0, 2, port)
        self.assertTrue(rank_runs.wait_for(lambda: listens(port), LONG))
        rank_runs.send(first.process.pid, signal.SIGSTOP)
        self.expect_end(self.rank(1, 2, port), 1, AT_START, f"127.0.0.1:{port} takes connections, "
                        f"and does not answer within {TIMEOUT}s: it has stopped")

    def test_masters_port_is_in_use(self):
        self.write(join_timeout=TIMEOUT)
        with listener() as port:
            ranks = [self.rank(rank, 2, port) for rank in range(2)]
            self.expect_end(ranks[0], 2, AT_START,
                            f"MASTER_PORT: {port} is in use by another program")
            self.expect_end(ranks[1], 1, AT_START, f"127.0.0.1:{port} takes connections, and "
                            f"does not answer within {TIMEOUT}s")

    def test_nothing_listens_at_the_masters_address(self):
        self.write(join_timeout=TIMEOUT)
        port = free_port()
        self.expect_end(self.rank(1, 2, port), 1, AT_START,
                        f"rank 0 does not answer at 127.0.0.1:{port} within {TIMEOUT}s: "
                        "Connection refused")

    def test_what_listens_at_the_masters_address_is_no_store(self):
        self.write(join_timeout=TIMEOUT)
        with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
            self.expect_end(self.rank(1, 2, port), 2, AT_START,
                            f"what listens at 127.0.0.1:{port} is no store of c10d")

    def test_configurations_that_differ_are_told_with_the_line(self):
        self.write()
        port = free_port()
        ranks = [self.rank(0, 2, port),
                 self.rank(1, 2, port, more=["--cfg-options", "train_cfg.max_epochs=7"])]
        for job in ranks:
            self.expect_end(job, 2, AT_START, "rank 1 isn't like rank 0: its configuration has "
                            '"max_epochs: 7" and not "max_epochs: 1000000"')

    def test_a_file_that_one_rank_lacks_is_told_on_all(self):
        for lacking in (0, 1):
            with self.subTest(lacking=lacking):
                shutil.rmtree(self.folder, ignore_errors=True)
                # The same path, and another file for each rank.
                self.write(ENDLESS.replace('"images"', '"/proc/self/cwd/images"'))
                os.mkdir(f"{self.folder}/empty")
                port = free_port()
                ranks = [self.rank(rank, 2, port,
                                   cwd=f"{self.folder}/empty" if rank == lacking else self.folder)
                         for rank in range(2)]
                said = "train_dataloader: dataset: idx: images: "
                self.expect_end(ranks[lacking], 2, AT_START, f"grapnel: {said}")
                self.expect_end(ranks[1 - lacking], 2, AT_START, f"rank {lacking}: {said}")
                self.stack.close()

    def test_versions_that_differ_are_told(self):
        self.write()
        version = subprocess.run([PROGRAM, "--version"], check=True, stdout=subprocess.PIPE,
                                 text=True).stdout.split()[1]
        other = "9" + version[1:]
        # The same program with another number in it.
        with open(PROGRAM, "rb") as f:
            program = f.read()
        self.assertIn(version.encode() + b"\0", program)
        changed = f"{self.folder}/other"
        with open(changed, "wb") as f:
            f.write(program.replace(version.encode() + b"\0", other.encode() + b"\0"))
        os.chmod(changed, 0o700)
        port = free_port()
        ranks = [self.rank(0, 2, port), self.rank(1, 2, port, program=changed)]
        self.expect_end(ranks[0], 2, AT_START, f"version: is {version} with LibTorch ",
                        f" here, and {other} with LibTorch ", " for rank 1")
        self.expect_end(ranks[1], 2, AT_START, f"version: is {other} with LibTorch ",
                        f" here, and {version} with LibTorch ", " for rank 0")


if __name__ == "__main__":
    rank_runs.end_by_exit()
    unittest.main(verbosity=2)
