//! A long run with a dataset, a hook and a metric of Rust's: STEPS
//!
//! Prints one line of JSON: bytes in memory after a tenth and at the end, threads after 100 steps,
//! at the end, and after 16 runners more, one after the other, and live objects at the end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, process};

use grapnel::{live_objects, CallbackResult, Metric, Mode, Runner, ScalarsRef, TensorsRef};
use trials::guest::{builder, Plan, SumHook};
use trials::resources::{num_threads, resident_bytes};

fn main() -> ExitCode {
    let Some(steps) = env::args().nth(1).and_then(|steps| steps.parse().ok()) else {
        eprintln!("usage: soak STEPS");
        return ExitCode::from(99);
    };
    let dir = env::temp_dir().join(format!("grapnel_soak_{}", process::id()));
    let result = run(&dir, steps);
    let removed = fs::remove_dir_all(&dir);
    match result.and(removed.map_err(Into::into)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The largest output.
struct Largest(f32);

impl Metric for Largest {
    fn reset(&mut self) -> CallbackResult {
        self.0 = f32::NEG_INFINITY;
        Ok(())
    }

    fn process(&mut self, predictions: &TensorsRef, _batch: &TensorsRef) -> CallbackResult {
        let outputs = predictions.require("output")?.data::<f32>()?;
        self.0 = outputs.iter().copied().fold(self.0, f32::max);
        Ok(())
    }

    fn compute(&mut self, metrics: &mut ScalarsRef) -> CallbackResult {
        metrics.insert("largest", self.0.into())?;
        Ok(())
    }
}

fn new_runner(work_dir: &Path, steps: u64) -> CallbackResult<Runner> {
    let plan = Plan {
        work_dir,
        max_iters: steps,
        seed: 1,
        num_workers: 2,
        interval: (steps / 100).max(1),
        resume: false,
    };
    let hook = SumHook::default();
    Ok(builder(&plan).hook("sum", hook).metric(Mode::Val, Largest(0.0)).build()?)
}

fn run(dir: &Path, steps: u64) -> CallbackResult {
    let work_dir = |number: u32| -> PathBuf { dir.join(number.to_string()) };
    let mut runner = new_runner(&work_dir(0), steps)?;
    let (mut resident_after_tenth, mut threads_after_100) = (0, 0);
    for (number, step) in (1..).zip(runner.steps()) {
        step?;
        if number == 100.min(steps) {
            threads_after_100 = num_threads();
        }
        if number == (steps / 10).max(1) {
            resident_after_tenth = resident_bytes();
        }
    }
    let (resident_at_end, threads_at_end) = (resident_bytes(), num_threads());
    drop(runner);
    let threads_before_16_runners = num_threads();
    for number in 1..=16 {
        let mut runner = new_runner(&work_dir(number), 10)?;
        runner.train()?;
    }
    println!(
        "{{\"steps\": {steps}, \"resident_bytes_after_tenth\": {resident_after_tenth}, \
         \"resident_bytes_at_end\": {resident_at_end}, \"threads_after_100\": {threads_after_100}, \
         \"threads_at_end\": {threads_at_end}, \
         \"threads_before_16_runners\": {threads_before_16_runners}, \
         \"threads_after_16_runners\": {}, \"live_objects_at_end\": {}}}",
        num_threads(),
        live_objects(),
    );
    Ok(())
}
