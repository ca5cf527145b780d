"""net.pt is export_net.py's, and Python loads what the fine-tuned model was exported to."""

import json
import os
import runpy
import subprocess
import sys
import unittest

DIR = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(DIR, "../../tests/interop"))
import slim_torch

GRAPNEL = os.path.abspath(sys.argv.pop(1))
TMP = os.environ["TEST_TMPDIR"]
torch = slim_torch.load(GRAPNEL)
torch.set_num_threads(1)

# With torch there already.
from safetensors.torch import load_file


def grapnel(verb, *args):
    command = [GRAPNEL, verb, f"{DIR}/finetune.textproto", "--work-dir", f"{TMP}/run",
               "--threads", "1", *args]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


class FinetunePythonTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.script = runpy.run_path(f"{DIR}/export_net.py")
        cls.images = cls.read("test-images-idx3-ubyte")[:, None] / 16
        cls.labels = cls.read("test-labels-idx1-ubyte").long()

    @classmethod
    def read(cls, name):
        return cls.script["read_idx"](f"{DIR}/../digits/{name}")

    def test_net_is_the_scripts(self):
        loaded = torch.jit.load(f"{DIR}/net.pt").eval()
        net = self.script["Net"]().eval()
        net.load_state_dict(loaded.state_dict())  # Strict: the same names.
        with torch.no_grad():
            torch.testing.assert_close(loaded(self.images), net(self.images))

    def test_tuned_is_the_average_and_computes_the_same(self):
        grapnel("train", "--cfg-options", "train_cfg.max_epochs=2")
        tuned = f"{TMP}/tuned.pt"
        grapnel("export", "--output", tuned)
        metrics = json.loads(grapnel("test"))

        net = torch.jit.load(tuned).eval()
        weights = load_file(f"{TMP}/run/epoch_2/model.safetensors")
        average = load_file(f"{TMP}/run/epoch_2/ema.safetensors")
        self.assertEqual(set(net.state_dict()), set(weights))
        for name, tensor in net.state_dict().items():
            self.assertTrue(torch.equal(tensor, average.get(name, weights[name])), name)
        for name, _ in net.named_parameters():
            self.assertFalse(torch.equal(average[name], weights[name]), name)

        with torch.no_grad():
            logits = net(self.images)
            loss = torch.nn.functional.cross_entropy(logits, self.labels).item()
        right = (logits.argmax(1) == self.labels).float().mean().item()
        self.assertAlmostEqual(metrics["accuracy/top1"], 100 * right, places=4)
        self.assertAlmostEqual(metrics["loss"], loss, places=5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
