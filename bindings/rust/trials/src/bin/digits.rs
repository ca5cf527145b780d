//! Trains the digits: `DATA_DIR WORK_DIR STEPS RESUME OUT [MIXTURE]`
//!
//! All by steps if STEPS is negative; RESUME and MIXTURE are 0 or 1. Writes OUT.trace, OUT.weights
//! and OUT.metrics, which are those of tests/capi/runs/digits_train.c.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use grapnel::CallbackResult;
use trials::digits::{train, Plan};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if !(5..=6).contains(&arguments.len()) {
        eprintln!("usage: digits DATA_DIR WORK_DIR STEPS RESUME OUT [MIXTURE]");
        return ExitCode::from(99);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("digits: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> CallbackResult {
    let out = &arguments[4];
    let outcome = train(&Plan {
        data_dir: Path::new(&arguments[0]),
        work_dir: Path::new(&arguments[1]),
        steps: u64::try_from(arguments[2].parse::<i64>()?).ok(),
        resume: arguments[3] == "1",
        mixture: arguments.get(5).is_some_and(|mixture| mixture == "1"),
    })?;
    fs::write(format!("{out}.trace"), outcome.trace)?;
    fs::write(format!("{out}.weights"), outcome.weights)?;
    fs::write(format!("{out}.metrics"), outcome.metrics)?;
    Ok(())
}
