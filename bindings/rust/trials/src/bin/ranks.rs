//! One rank of a training: CONFIG WORK_DIR OUT FAILING_RANK
//!
//! Trains for two epochs, and to the end with a second runner. What its hook and the runners say of
//! its place is in OUT.RANK.trace, and the weights are in OUT.RANK.weights: those of
//! tests/capi/runs/ranks.c. On FAILING_RANK, -1 for none, the hook fails in the third epoch.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::{env, fs};

use grapnel::{hook_fn, CallbackResult, Code, Error, Runner, Stage};
use trials::weights::bytes_of_weights;

type Trace = Arc<Mutex<String>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [config, work_dir, out, failing_rank] = &arguments[..] else {
        eprintln!("usage: ranks CONFIG WORK_DIR OUT FAILING_RANK");
        return ExitCode::from(99);
    };
    let error = match run(config, work_dir, out, failing_rank.parse().ok()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    eprintln!("ranks: {error}");
    // What failed here has a code of its own, and what failed on another rank this one.
    if error.downcast_ref::<Error>().is_some_and(|error| error.code() == Code::Unavailable) {
        eprintln!("it is another rank's");
    } else {
        eprintln!("it is this rank's own");
    }
    ExitCode::FAILURE
}

fn run(config: &str, work_dir: &str, out: &str, failing_rank: Option<usize>) -> CallbackResult {
    let trace = Trace::default();
    train(config, work_dir, 2, failing_rank, &trace)?;
    let runner = train(config, work_dir, 4, failing_rank, &trace)?;
    let rank = runner.rank();
    fs::write(format!("{out}.{rank}.weights"), bytes_of_weights(&runner)?)?;
    fs::write(format!("{out}.{rank}.trace"), text(&trace)?.as_bytes())?;
    Ok(())
}

/// Trains to that epoch.
fn train(
    config: &str,
    work_dir: &str,
    max_epochs: i64,
    failing_rank: Option<usize>,
    trace: &Trace,
) -> CallbackResult<Runner> {
    let noted = Arc::clone(trace);
    let hook = hook_fn(Stage::AfterTrainEpoch, move |_stage, run| {
        let (epoch, rank) = (run.epoch() + 1, run.rank());
        let master = i32::from(run.is_master());
        let place = format!("rank {rank} of {}, master {master}", run.world_size());
        writeln!(text(&noted)?, "epoch {epoch}: {place}")?;
        if Some(rank) == failing_rank && epoch == 3 {
            return Err("planted".into());
        }
        Ok(())
    });
    let mut runner = Runner::builder()
        .config_file(config)
        .set(&format!("work_dir={work_dir}"))
        .set(&format!("train_cfg.max_epochs={max_epochs}"))
        .set("resume=true")
        .hook("place", hook)
        .build()?;
    runner.train()?;
    let (rank, local) = (runner.rank(), runner.local_rank());
    let master = i32::from(runner.is_master());
    let place = format!("rank {rank} of {}, local {local}, master {master}", runner.world_size());
    writeln!(text(trace)?, "runner: {place}")?;
    Ok(runner)
}

fn text(trace: &Trace) -> CallbackResult<std::sync::MutexGuard<'_, String>> {
    trace.lock().map_err(|_| "a hook panicked".into())
}
