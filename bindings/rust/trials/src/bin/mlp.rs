//! The MLP of tools/bench on demand: for each number that a line of stdin has, makes as many steps
//! and prints the nanoseconds that one took. Data and a hook that does nothing are Rust's.
//! tools/bench/languages.py lets it take turns with others.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs, io, process};

use grapnel::{hook_fn, Access, CallbackResult, Mode, Runner, Stage, SyncDataset, TensorsRef};

const ROWS: usize = 2048;
const FLOATS: usize = 784;
const CLASSES: usize = 10;

const CONFIG: &str = "
model {
  sequential {
    layers { linear { out_features: 128 } }
    layers { relu {} }
    layers { linear { out_features: 10 } }
    loss { cross_entropy {} }
  }
}
train_cfg { by_epoch: false max_iters: 1000000000 }
train_dataloader { batch_size: 32 sampler { type: INFINITE } }
optim_wrapper { optimizer { sgd { lr: 0.01 } } }
default_hooks {
  checkpoint { save_last: false }
  logger { interval: 1000000000 interval_exp_name: 1000000000 }
}
randomness { seed: 0 }
";

struct Table {
    inputs: Vec<f32>,
    targets: Vec<i64>,
}

impl SyncDataset for Table {
    fn len(&self) -> usize {
        ROWS
    }

    fn access(&self) -> Access {
        Access::Batches
    }

    fn get_batch(&self, indices: &[usize], batch: &mut TensorsRef) -> CallbackResult {
        let rows = indices.iter().map(|index| &self.inputs[index * FLOATS..(index + 1) * FLOATS]);
        batch.insert_rows("input", &[indices.len(), FLOATS], rows)?;
        let targets = indices.iter().map(|&index| self.targets[index]);
        batch.insert_from_iter("target", &[indices.len()], targets)?;
        Ok(())
    }
}

fn run(work_dir: &Path) -> CallbackResult {
    let table = Table {
        inputs: (0..ROWS * FLOATS).map(|i| (i * 7919 % 2001) as f32 / 1000.0 - 1.0).collect(),
        targets: (0..ROWS).map(|i| (i * 31 % CLASSES) as i64).collect(),
    };
    let mut runner = Runner::builder()
        .config_text(CONFIG)
        .work_dir(work_dir)
        .log(|_, _| {})
        .sync_dataset(Mode::Train, table)
        .hook("nothing", hook_fn(Stage::AfterTrainIter, |_, _| Ok(())))
        .build()?;
    for line in io::stdin().lines() {
        let steps: u32 = line?.trim().parse()?;
        let begin = Instant::now();
        for _ in 0..steps {
            runner.step()?;
        }
        println!("{:.1}", begin.elapsed().as_nanos() as f64 / f64::from(steps));
    }
    Ok(())
}

fn main() -> ExitCode {
    let dir = env::temp_dir().join(format!("grapnel_mlp_{}", process::id()));
    let result = run(&dir);
    let removed = fs::remove_dir_all(&dir);
    match result.and(removed.map_err(Into::into)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mlp: {error}");
            ExitCode::FAILURE
        }
    }
}
