//! The small run of tests/capi/runs/guest.c: data, and a hook with a state.

use std::path::Path;
use std::sync::{Arc, Mutex};

use grapnel::{
    Access, Builder, CallbackResult, Hook, Mode, Run, Runner, Stage, Stages, State, SyncDataset,
    TensorsRef,
};

const CONFIG: &str = r#"
model {
  sequential {
    layers { linear { out_features: 8 } }
    layers { batch_norm1d {} }
    layers { relu {} }
    layers { dropout { p: 0.25 } }
    layers { linear { out_features: 1 } }
    loss { mse {} }
  }
}
val_dataloader { batch_size: 8 }
val_evaluator { mse {} }
optim_wrapper { optimizer { adamw { lr: 0.01 } } }
custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
"#;

const SAMPLES: usize = 32;
const FEATURES: usize = 2;

/// How the run is.
pub struct Plan<'a> {
    pub work_dir: &'a Path,
    pub max_iters: u64,
    pub seed: u64,
    pub num_workers: u32,
    /// Iterations between validations, and between saves.
    pub interval: u64,
    pub resume: bool,
}

/// The run, without its hook.
pub fn builder(plan: &Plan<'_>) -> Builder {
    let Plan { work_dir, max_iters, seed, num_workers, interval, resume } = plan;
    let config = format!(
        "{CONFIG}
         train_dataloader {{ batch_size: 4 num_workers: {num_workers} sampler {{ shuffle: true }} }}
         train_cfg {{ by_epoch: false max_iters: {max_iters} val_interval: {interval} }}
         default_hooks {{
           checkpoint {{ by_epoch: false interval: {interval} max_keep_ckpts: 2 }}
         }}
         randomness {{ seed: {seed} }}
         resume: {resume}"
    );
    Runner::builder()
        .config_text(&config)
        .work_dir(work_dir)
        .log(|_, _| {})
        .sync_dataset(Mode::Train, Plane)
        .sync_dataset(Mode::Val, Plane)
}

/// y = x0 + 2 x1.
struct Plane;

fn sample(index: usize) -> ([f32; FEATURES], f32) {
    let input = [index as f32 / SAMPLES as f32, (index % 3) as f32];
    (input, input[0] + 2.0 * input[1])
}

impl SyncDataset for Plane {
    fn len(&self) -> usize {
        SAMPLES
    }

    fn access(&self) -> Access {
        Access::Both
    }

    fn get(&self, index: usize, to: &mut TensorsRef) -> CallbackResult {
        let (input, target) = sample(index);
        to.insert_slice("input", &input, &[FEATURES])?;
        to.insert_slice("target", &[target], &[1])?;
        Ok(())
    }

    fn get_batch(&self, indices: &[usize], to: &mut TensorsRef) -> CallbackResult {
        let inputs = to.insert_zeros::<f32>("input", &[indices.len(), FEATURES])?;
        for (input, &index) in inputs.chunks_exact_mut(FEATURES).zip(indices) {
            input.copy_from_slice(&sample(index).0);
        }
        let targets = indices.iter().map(|&index| sample(index).1);
        to.insert_from_iter("target", &[indices.len(), 1], targets)?;
        Ok(())
    }
}

/// What the hook keeps in checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sum {
    pub iters: i64,
    /// Of their losses.
    pub losses: f64,
}

impl Sum {
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.iters.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.losses.to_ne_bytes());
        bytes
    }
}

/// Sums losses, and fails where its state is of another iteration.
#[derive(Default)]
pub struct SumHook(pub Arc<Mutex<Sum>>);

impl Hook for SumHook {
    fn stages(&self) -> Stages {
        Stage::BeforeTrain | Stage::BeforeTrainIter | Stage::AfterTrainIter
    }

    fn on_stage(&mut self, stage: Stage, run: &mut Run<'_>) -> CallbackResult {
        let mut sum = self.0.lock().map_err(|_| "the sum is half written")?;
        if run.iter() != sum.iters {
            return Err("the hook's state is of another iteration".into());
        }
        if stage != Stage::AfterTrainIter {
            return Ok(());
        }
        let loss = run.log_vars()?.get("loss").ok_or("there is no loss")?;
        run.add_scalar("train/sum", sum.losses)?;
        sum.iters += 1;
        sum.losses += loss;
        Ok(())
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

impl State for SumHook {
    fn save(&mut self, to: &mut Vec<u8>) -> CallbackResult {
        to.extend(self.0.lock().map_err(|_| "the sum is half written")?.to_bytes());
        Ok(())
    }

    fn load(&mut self, from: &[u8]) -> CallbackResult {
        if from.len() != 16 {
            return Err("no state of ours".into());
        }
        let (iters, losses) = from.split_at(8);
        *self.0.lock().map_err(|_| "the sum is half written")? = Sum {
            iters: i64::from_ne_bytes(iters.try_into()?),
            losses: f64::from_ne_bytes(losses.try_into()?),
        };
        Ok(())
    }
}
