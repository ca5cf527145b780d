//! The training of tests/capi/runs/digits_train.c, with the same hook.

use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use grapnel::{
    Access, CallbackResult, Dataset, Hook, Mode, Priority, Run, Runner, ScalarsRef, Severity,
    Stage, Stages, State, SyncDataset, TensorsRef,
};

use crate::hex_float::hex_float;
use crate::idx::{Digits, PIXELS};
use crate::weights::bytes_of_weights;

/// digits_config of digits_train.c.
const CONFIG: &str = r#"
model {
  sequential {
    layers { flatten {} }
    layers { linear { out_features: 24 } }
    layers { relu {} }
    layers { dropout { p: 0.2 } }
    layers { linear { out_features: 10 } }
    loss { cross_entropy {} }
  }
}
train_dataloader {
  batch_size: 64
  num_workers: 2
  sampler { shuffle: true }
}
val_dataloader { batch_size: 90 }
train_cfg { max_epochs: 3 }
optim_wrapper {
  optimizer { adamw { lr: 0.01 weight_decay: 0.05 } }
  accumulative_counts: 2
}
param_scheduler { linear { start_factor: 0.1 by_epoch: false end: 20 } }
val_evaluator { accuracy { topk: 1 } }
default_hooks {
  checkpoint {
    interval: 1
    save_best: "accuracy/top1"
    rule: "greater"
  }
}
custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
randomness { seed: 3 }
"#;

/// What is to be done, as digits_plan of digits_train.h.
pub struct Plan<'a> {
    pub data_dir: &'a Path,
    pub work_dir: &'a Path,
    /// Steps before the rest is trained in one call; all of it by steps if there is no number.
    pub steps: Option<u64>,
    /// After those steps the runner is dropped, and another one resumes.
    pub resume: bool,
    /// Then: an evaluation, training until a time that is past, an evaluation, and training until a
    /// time that doesn't come.
    pub mixture: bool,
}

/// What came of it.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// Of the hook.
    pub trace: String,
    /// Name and bytes of each tensor.
    pub weights: Vec<u8>,
    /// Of validations outside of the training.
    pub metrics: String,
}

/// Trains as the plan says.
pub fn train(plan: &Plan<'_>) -> CallbackResult<Outcome> {
    let trace = Arc::new(Mutex::new(String::new()));
    let mut metrics = String::new();
    let mut runner = new_runner(plan, false, &trace)?;
    let mut more = true;
    let mut left = plan.steps;
    while more && left != Some(0) {
        more = runner.step()?;
        left = left.map(|steps| steps - 1);
    }
    if plan.resume {
        drop(runner);
        runner = new_runner(plan, true, &trace)?;
    }
    if plan.mixture {
        validate(&mut runner, &mut metrics)?;
        more = runner.train_until(std::time::UNIX_EPOCH)?;
        if !more {
            return Err("there was nothing left to train".into());
        }
        validate(&mut runner, &mut metrics)?;
        let never = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000_000);
        more = runner.train_until(never)?;
    }
    if more {
        runner.train()?;
    }
    let weights = bytes_of_weights(&runner)?;
    validate(&mut runner, &mut metrics)?;
    drop(runner);
    let trace = trace.lock().map_err(|_| "the tracer panicked")?.clone();
    Ok(Outcome { trace, weights, metrics })
}

fn validate(runner: &mut Runner, metrics: &mut String) -> CallbackResult {
    let values = runner.val()?;
    note_scalars(metrics, &values);
    Ok(())
}

fn new_runner(plan: &Plan<'_>, resume: bool, trace: &Arc<Mutex<String>>) -> CallbackResult<Runner> {
    let mut builder = Runner::builder()
        .config_text(CONFIG)
        .work_dir(plan.work_dir)
        .log(|_, _| {})
        .dataset(Mode::Train, BySample(Digits::read(plan.data_dir, "train")?))
        .sync_dataset(Mode::Val, ByBatch(Digits::read(plan.data_dir, "test")?))
        .hook("tracer", Tracer { trace: Arc::clone(trace), events: 0 });
    if resume {
        builder = builder.set("resume=true");
    }
    Ok(builder.build()?)
}

// -------------------------------------------------------------------- data

struct BySample(Digits);

impl Dataset for BySample {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&mut self, index: usize, sample: &mut TensorsRef) -> CallbackResult {
        let image = sample.insert_zeros::<f32>("input", &[1, 8, 8])?;
        self.0.write_image(index, image);
        sample.insert_slice("target", &[self.0.label(index)], &[])?;
        Ok(())
    }
}

struct ByBatch(Digits);

impl SyncDataset for ByBatch {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn access(&self) -> Access {
        Access::Batches
    }

    fn get_batch(&self, indices: &[usize], batch: &mut TensorsRef) -> CallbackResult {
        let images = batch.insert_zeros::<f32>("input", &[indices.len(), 1, 8, 8])?;
        for (image, &index) in images.chunks_exact_mut(PIXELS).zip(indices) {
            self.0.write_image(index, image);
        }
        let labels = indices.iter().map(|&index| self.0.label(index));
        batch.insert_from_iter("target", &[indices.len()], labels)?;
        Ok(())
    }
}

// -------------------------------------------------------------------- hook

/// Writes down what it sees.
struct Tracer {
    trace: Arc<Mutex<String>>,
    events: i64,
}

fn note_number(trace: &mut String, name: &str, value: f64) {
    writeln!(trace, "  {name} {}", hex_float(value)).expect("a String takes all");
}

fn note_text(trace: &mut String, name: &str, value: &str) {
    writeln!(trace, "  {name} {value}").expect("a String takes all");
}

fn note_scalars(trace: &mut String, scalars: &ScalarsRef) {
    for (name, value) in scalars {
        note_number(trace, name, value);
    }
}

fn note_batch(trace: &mut String, run: &Run<'_>) -> CallbackResult {
    let batch = run.batch()?;
    let input = batch.require("input")?;
    let pixels = input.data::<f32>()?;
    let labels = batch.require("target")?.data::<i64>()?;
    note_number(trace, "size", input.shape()[0] as f64);
    note_number(trace, "pixels", pixels.iter().map(|&pixel| f64::from(pixel)).sum());
    note_number(trace, "label", labels[0] as f64);
    Ok(())
}

fn note_after_train_iter(trace: &mut String, run: &mut Run<'_>) -> CallbackResult {
    note_scalars(trace, run.log_vars()?);
    let loss = run.scalar("train/loss")?;
    note_number(trace, "train/loss", loss);
    run.add_scalar("train/twice", 2.0 * loss)?;
    Ok(())
}

fn note_saved(trace: &mut String, run: &Run<'_>) -> CallbackResult {
    let name = run.saved_path()?.file_name().ok_or("the path has no name")?;
    note_text(trace, "saved", &name.to_string_lossy());
    Ok(())
}

impl Hook for Tracer {
    fn stages(&self) -> Stages {
        Stages::ALL
    }

    fn priority(&self) -> Priority {
        Priority::LOWEST
    }

    fn on_stage(&mut self, stage: Stage, run: &mut Run<'_>) -> CallbackResult {
        self.events += 1;
        let mut trace = self.trace.lock().map_err(|_| "the trace is half written")?;
        let trace = &mut *trace;
        let or_minus_one = |value: Option<usize>| value.map_or(-1, |value| value as i64);
        writeln!(
            trace,
            "{stage} epoch {} of {} iter {} of {} mode {} training {} batch {} of {}",
            run.epoch(),
            run.max_epochs(),
            run.iter(),
            run.max_iters(),
            run.mode() as i32,
            i32::from(run.is_training()),
            or_minus_one(run.batch_index()),
            or_minus_one(run.num_batches()),
        )?;
        match stage {
            Stage::BeforeTrainIter | Stage::BeforeValIter => note_batch(trace, run)?,
            Stage::AfterTrainIter => note_after_train_iter(trace, run)?,
            Stage::AfterOptimizerStep => {
                let bias = run.tensor("1.bias")?.data::<f32>()?[0];
                note_number(trace, "bias", bias.into());
            }
            Stage::AfterTrainEpoch if run.epoch() + 1 == 2 => run.save("extra_2")?,
            Stage::AfterValIter => {
                let logits = run.predictions()?.require("output")?.data::<f32>()?;
                note_number(trace, "logit", logits[0].into());
            }
            Stage::AfterValEpoch => note_scalars(trace, run.metrics()?),
            Stage::AfterSaveCheckpoint => note_saved(trace, run)?,
            Stage::AfterRun => run.log(Severity::Info, "the tracer is done")?,
            Stage::OnError => note_text(trace, "error", run.error()?.message()),
            _ => {}
        }
        Ok(())
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

impl State for Tracer {
    fn save(&mut self, to: &mut Vec<u8>) -> CallbackResult {
        to.extend(self.events.to_ne_bytes());
        Ok(())
    }

    fn load(&mut self, from: &[u8]) -> CallbackResult {
        self.events = i64::from_ne_bytes(from.try_into()?);
        let mut trace = self.trace.lock().map_err(|_| "the trace is half written")?;
        note_number(&mut trace, "loaded", self.events as f64);
        Ok(())
    }
}
