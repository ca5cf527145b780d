"""Grapnel's offline runs in the wandb package: read, and uploaded by it.

The server that `wandb sync` uploads to stands in this file. It answers as much
of the protocol as the upload of a run needs, and keeps what it was sent.
"""

import glob
import http.server
import json
import math
import os
import subprocess
import sys
import threading
import unittest

TOOL = os.path.abspath(sys.argv.pop(1))
TMP = os.environ["TEST_TMPDIR"]
START = 1700000000
# wandb looks at it when it is imported.
os.environ["WANDB_ERROR_REPORTING"] = "false"
os.environ["HOME"] = TMP

import wandb  # noqa: E402
from wandb.proto import wandb_internal_pb2  # noqa: E402
from wandb.sdk.internal import datastore  # noqa: E402

CONFIG = """
vis_backends {
  wandb {
    project: 'digits' name: 'first' run_id: 'grapnel-1' group: 'g' job_type: 'train'
    tags: 'a' tags: 'b c' notes: 'A note.'
  }
}
"""
# What a row must say, without its time and number.
ROWS = []
for i in range(1, 3001):
    ROWS.append({"loss": 1 / i, "iter": i, "step": i})
    if i % 1000 == 0:
        ROWS.append({"val/acc": i / 1000, "step": i // 1000})
ROWS.append({"nan": math.nan, "up": math.inf, "down": -math.inf, "step": 3001})


def expected_rows():
    rows = []
    for i, row in enumerate(ROWS):
        rows.append(dict(row, _step=i, _runtime=float(i), _timestamp=float(START + i)))
    return rows


def check_config(test, config):
    test.assertEqual(config["work_dir"], "*runs*")
    test.assertEqual(config["train_cfg"], {"max_epochs": 3})
    test.assertEqual(config["optim_wrapper"], {"optimizer": {"sgd": {"lr": 0.1}}})
    test.assertEqual(
        config["param_scheduler"],
        [{"linear": {"end": 5}}, {"cosine_annealing": {"t_max": 19}}],
    )
    test.assertEqual(config["experiment_name"], "x" * 70000)


def by_name(items):
    for item in items:
        (name,) = item.nested_key
        yield name, json.loads(item.value_json)


def write_run(name):
    directory = os.path.join(TMP, name)
    subprocess.run([TOOL, directory, CONFIG], check=True)
    (run,) = glob.glob(os.path.join(directory, "vis_data", "wandb", "offline-run-*"))
    return run


class ReadTest(unittest.TestCase):
    """The file, by wandb's own reader and messages."""

    @classmethod
    def setUpClass(cls):
        cls.run_dir = write_run("read")
        wandb._set_internal_process(disable=True)
        store = datastore.DataStore()
        store.open_for_scan(os.path.join(cls.run_dir, "run-grapnel-1.wandb"))
        cls.records = []
        while True:
            data = store.scan_data()
            if data is None:
                break
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            cls.records.append(record)
        store.close()

    def of_type(self, name):
        return [getattr(r, name) for r in self.records if r.WhichOneof("record_type") == name]

    def test_every_record_is_known_and_numbered(self):
        self.assertEqual([r.num for r in self.records], list(range(1, len(self.records) + 1)))
        kinds = {r.WhichOneof("record_type") for r in self.records}
        self.assertEqual(kinds, {"header", "run", "files", "history", "summary", "exit"})

    def test_run(self):
        (run,) = self.of_type("run")
        self.assertEqual(
            (run.run_id, run.project, run.entity, run.display_name, run.run_group),
            ("grapnel-1", "digits", "", "first", "g"),
        )
        self.assertEqual((run.job_type, run.notes), ("train", "A note."))
        self.assertEqual(list(run.tags), ["a", "b c"])
        self.assertEqual(run.start_time.seconds, START)
        check_config(self, dict(by_name(run.config.update)))

    def test_history(self):
        rows = [(h.step.num, dict(by_name(h.item))) for h in self.of_type("history")]
        self.assertEqual(len(rows), len(ROWS))
        for i, expected in enumerate(expected_rows()[:-1]):
            self.assertEqual(rows[i], (i, expected))
        last = rows[-1][1]
        self.assertTrue(math.isnan(last["nan"]))
        self.assertEqual((last["up"], last["down"]), (math.inf, -math.inf))

    def test_exit(self):
        (end,) = self.of_type("exit")
        self.assertEqual((end.exit_code, end.runtime), (0, len(ROWS)))

    def test_files(self):
        (files,) = self.of_type("files")
        (file,) = files.files
        with open(os.path.join(self.run_dir, "files", file.path)) as f:
            self.assertTrue(f.read().startswith('work_dir: "*runs*"\n'))


class FakeServer(http.server.ThreadingHTTPServer):
    """Keeps the run, rows, files and end that it was sent."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.upserts, self.rows, self.summaries, self.files = [], [], [], {}
        self.end = None

    def graphql(self, query, variables):
        if "upsertBucket" in query:
            self.upserts.append(variables)
            project = {"name": variables["project"], "entity": {"name": "me"}}
            run = {"id": "1", "name": variables["name"], "project": project}
            return {"upsertBucket": {"bucket": run, "inserted": True}}
        if "viewer" in query:
            return {"viewer": {"id": "1", "entity": "me", "flags": "{}"}, "serverInfo": {}}
        if "uploadHeaders" in query:
            nodes = [
                {"node": {"name": f, "url": f"{self.url}/upload/{f}", "updatedAt": None}}
                for f in variables["files"]
            ]
            return {"model": {"bucket": {"id": "1", "files": {"uploadHeaders": [], "edges": nodes}}}}
        return {}

    def stream(self, body):
        for name, part in body.get("files", {}).items():
            content = [json.loads(line) for line in part["content"]]
            if name == "wandb-history.jsonl":
                self.rows += content
            elif name == "wandb-summary.json":
                self.summaries += content
        if body.get("complete"):
            self.end = body["exitcode"]


class Handler(http.server.BaseHTTPRequestHandler):

    def log_message(self, *args):
        pass

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = {}
        if self.path == "/graphql":
            request = json.loads(body)
            answer = {"data": self.server.graphql(request["query"], request["variables"])}
        elif self.path.endswith("/file_stream"):
            self.server.stream(json.loads(body))
        elif self.path.startswith("/upload/"):
            self.server.files[self.path[len("/upload/"):]] = body
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = handle_request


class SyncTest(unittest.TestCase):
    """`wandb sync`, as a user calls it."""

    @classmethod
    def setUpClass(cls):
        cls.run_dir = write_run("sync")
        cls.server = FakeServer()
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        env = dict(os.environ, WANDB_API_KEY="0" * 40, WANDB_BASE_URL=cls.server.url)
        cls.sync = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", cls.run_dir],
            cwd=TMP,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()

    def test_says_that_it_is_done(self):
        self.assertEqual(self.sync.returncode, 0, self.sync.stdout)
        self.assertIn("/me/digits/runs/grapnel-1 ... done.", self.sync.stdout)
        self.assertTrue(glob.glob(os.path.join(self.run_dir, "*.wandb.synced")))

    def test_run(self):
        first = self.server.upserts[0]
        self.assertEqual(
            (first["name"], first["project"], first["displayName"], first["groupName"]),
            ("grapnel-1", "digits", "first", "g"),
        )
        self.assertEqual((first["jobType"], first["notes"]), ("train", "A note."))
        self.assertEqual(first["tags"], ["a", "b c"])
        config = json.loads(first["config"])
        check_config(self, {name: c["value"] for name, c in config.items() if name != "_wandb"})

    def test_rows(self):
        self.assertEqual(len(self.server.rows), len(ROWS))
        self.assertEqual(self.server.rows[:-1], expected_rows()[:-1])
        self.assertTrue(math.isnan(self.server.rows[-1]["nan"]))

    def test_summary(self):
        summary = self.server.summaries[-1]
        self.assertEqual(
            (summary["loss"], summary["iter"], summary["val/acc"]), (1 / 3000, 3000, 3.0)
        )

    def test_files(self):
        self.assertTrue(self.server.files["config.textproto"].startswith(b"work_dir:"))

    def test_end(self):
        self.assertEqual(self.server.end, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
