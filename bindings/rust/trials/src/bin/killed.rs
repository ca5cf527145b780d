//! Trains, from where it was before if it was: WORK_DIR MAX_ITERS OUTCOME
//!
//! The file OUTCOME is what there is in the end: that of tests/capi/runs/killed.c.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::{env, fs};

use grapnel::CallbackResult;
use trials::guest::{builder, Plan, Sum, SumHook};
use trials::weights::bytes_of_weights;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [work_dir, max_iters, outcome] = &arguments[..] else {
        eprintln!("usage: killed WORK_DIR MAX_ITERS OUTCOME");
        return ExitCode::from(99);
    };
    match run(work_dir, max_iters, outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("killed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(work_dir: &str, max_iters: &str, outcome: &str) -> CallbackResult {
    let sum = Arc::new(Mutex::new(Sum::default()));
    let mut runner = builder(&Plan {
        work_dir: Path::new(work_dir),
        max_iters: max_iters.parse()?,
        seed: 3,
        num_workers: 1,
        interval: 20,
        resume: true,
    })
    .hook("sum", SumHook(Arc::clone(&sum)))
    .build()?;
    runner.train()?;
    let mut bytes = bytes_of_weights(&runner)?;
    bytes.extend(sum.lock().map_err(|_| "the hook panicked")?.to_bytes());
    fs::write(outcome, bytes)?;
    Ok(())
}
