//! Trains a network on handwritten digits, and prints how many of those by writers that it has
//! never seen it tells apart.

mod arguments;
mod config;
mod digits;
mod idx;
mod loss_curve;
mod signals;

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use arguments::Arguments;
use digits::Digits;
use grapnel::{CallbackResult, Mode, Runner};
use loss_curve::LossCurve;
use signals::StopOnSignal;

// Exit codes, as of the command `grapnel`.
const RUN_FAILED: u8 = 1;
const BAD_INPUT: u8 = 2;
const STOPPED: u8 = 128;

/// What became of a run that has not failed.
enum Outcome {
    Trained {
        /// Of the test images, in percent.
        accuracy: f64,
    },
    Stopped {
        /// The signal's number.
        signal: u8,
    },
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    grapnel::set_process_log_to_tracing();
    let arguments = match Arguments::parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{}", arguments::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => return failed(BAD_INPUT, format!("{error}\n{}", arguments::USAGE)),
    };
    let runner = match runner(&arguments) {
        Ok(runner) => runner,
        Err(error) => return failed(BAD_INPUT, error),
    };
    match train(runner) {
        Ok(Outcome::Trained { accuracy }) => {
            println!("accuracy {accuracy:.1} %");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Stopped { signal }) => failed(STOPPED + signal, "stopped; --resume goes on"),
        Err(error) => failed(RUN_FAILED, error),
    }
}

fn failed(code: u8, why: impl Display) -> ExitCode {
    eprintln!("rust_train: {why}");
    ExitCode::from(code)
}

fn runner(arguments: &Arguments) -> CallbackResult<Runner> {
    let Arguments { data_dir, work_dir, resume, assignments } = arguments;
    let builder = Runner::builder()
        .config(&config::config(work_dir, *resume))
        .sync_dataset(Mode::Train, Digits::read(data_dir, "train")?)
        .sync_dataset(Mode::Val, Digits::read(data_dir, "test")?)
        .hook("loss_curve", LossCurve::new(work_dir))
        .log_to_tracing();
    let builder = assignments.iter().fold(builder, |builder, assignment| builder.set(assignment));
    Ok(builder.build()?)
}

fn train(mut runner: Runner) -> CallbackResult<Outcome> {
    let signals = StopOnSignal::new(runner.stop_handle())?;
    runner.train()?;
    if let Some(signal) = signals.finish() {
        return Ok(Outcome::Stopped { signal });
    }
    let accuracy = runner.val()?.get("accuracy/top1").ok_or("there is no accuracy/top1")?;
    Ok(Outcome::Trained { accuracy })
}
