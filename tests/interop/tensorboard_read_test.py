"""Grapnel's event files in TensorBoard's own reader."""

import glob
import math
import os
import subprocess
import sys
import unittest

import numpy as np
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.backend.event_processing import event_file_loader

TOOL = os.path.abspath(sys.argv.pop(1))
DIR = os.path.join(os.environ["TEST_TMPDIR"], "run")
START = 1700000000
Scalar = event_accumulator.ScalarEvent


class TensorBoardTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        subprocess.run([TOOL, DIR, "vis_backends { tensorboard {} }"], check=True)
        cls.dir = os.path.join(DIR, "vis_data")
        # Keep all of them: the default is a sample.
        cls.events = event_accumulator.EventAccumulator(
            cls.dir,
            size_guidance={event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0},
        )
        cls.events.Reload()

    def test_tags(self):
        tags = self.events.Tags()
        self.assertEqual(
            sorted(tags["scalars"]), ["down", "iter", "loss", "nan", "up", "val/acc"]
        )
        self.assertEqual(tags["tensors"], ["config/text_summary"])

    def test_training(self):
        loss = self.events.Scalars("loss")
        iterations = self.events.Scalars("iter")
        self.assertEqual(len(loss), 3000)
        self.assertEqual(len(iterations), 3000)
        for i in range(1, 3001):
            # A row of validation stands after each 1000.
            time = START + i - 1 + (i - 1) // 1000
            self.assertEqual(loss[i - 1], Scalar(time, i, float(np.float32(1 / i))))
            self.assertEqual(iterations[i - 1], Scalar(time, i, float(i)))

    def test_validation(self):
        self.assertEqual(
            self.events.Scalars("val/acc"),
            [
                Scalar(START + 1000, 1, 1.0),
                Scalar(START + 2001, 2, 2.0),
                Scalar(START + 3002, 3, 3.0),
            ],
        )

    def test_what_is_not_finite(self):
        values = {tag: self.events.Scalars(tag)[0] for tag in ("nan", "up", "down")}
        self.assertTrue(math.isnan(values["nan"].value))
        self.assertEqual(values["up"].value, math.inf)
        self.assertEqual(values["down"].value, -math.inf)
        self.assertEqual(values["nan"].step, 3001)

    def test_config(self):
        (event,) = self.events.Tensors("config/text_summary")
        (text,) = event.tensor_proto.string_val
        lines = text.decode().splitlines()
        # A block of code of Markdown, so that "*runs*" stays as it is.
        self.assertTrue(all(line.startswith("    ") for line in lines))
        self.assertEqual(lines[0], '    work_dir: "*runs*"')
        self.assertEqual(lines[1], "    train_cfg { max_epochs: 3 }")
        metadata = self.events.SummaryMetadata("config/text_summary")
        self.assertEqual(metadata.plugin_data.plugin_name, "text")

    def test_a_file_that_is_damaged_is_noticed(self):
        """The checksums are looked at: or this reader would prove nothing."""
        (path,) = glob.glob(os.path.join(self.dir, "events.out.tfevents.*"))
        with open(path, "rb") as f:
            data = bytearray(f.read())
        whole = len(list(event_file_loader.RawEventFileLoader(path).Load()))
        self.assertEqual(whole, 1 + 1 + 3000 + 3 + 1)
        data[len(data) // 2] ^= 1
        damaged = os.path.join(os.environ["TEST_TMPDIR"], "damaged")
        with open(damaged, "wb") as f:
            f.write(data)
        loader = event_file_loader.RawEventFileLoader(damaged)
        self.assertLess(len(list(loader.Load())), whole)


if __name__ == "__main__":
    unittest.main(verbosity=2)
