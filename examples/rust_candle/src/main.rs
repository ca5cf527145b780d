//! Trains a network of Candle's on two spirals, and prints how well it tells them apart.
//!
//! Candle computes outputs and gradients; Grapnel has the loop, the optimizer, the schedule, the
//! average and the checkpoints. Candle's variables are copies of the parameters, written when those
//! have moved.

mod host;
mod network;
mod spirals;

use std::path::Path;
use std::process::ExitCode;

use grapnel::{CallbackResult, Mode, Runner, SharedTensors};
use network::Network;

const CONFIG: &str = r#"
    train_dataloader { batch_size: 32 sampler { shuffle: true } }
    val_dataloader { batch_size: 100 }
    val_evaluator { accuracy { topk: 1 } }
    train_cfg { max_epochs: 150 }
    optim_wrapper { optimizer { adamw { lr: 0.02 } } }
    param_scheduler { cosine_annealing { eta_min: 0.0002 } }
    custom_hooks { config { [hooks/EMAHook] { momentum: 0.02 } } }
    default_hooks { checkpoint { interval: 50 } }
    randomness { seed: 1 }
"#;

fn train(work_dir: &Path) -> CallbackResult<f64> {
    let mut runner = Runner::builder()
        .config_text(CONFIG)
        .work_dir(work_dir)
        .tensors(Mode::Train, spirals::spirals(0)?)
        .tensors(Mode::Val, spirals::spirals(1)?)
        .model(Network::new()?, Network::parameters()?, SharedTensors::none()?)
        .log_to_stderr()
        .build()?;
    runner.train()?;
    Ok(runner.val()?.get("accuracy/top1").ok_or("there is no accuracy")?)
}

fn main() -> ExitCode {
    let Some(work_dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: rust_candle WORK_DIR");
        return ExitCode::from(2);
    };
    match train(Path::new(&work_dir)) {
        Ok(accuracy) => {
            println!("accuracy/top1 {accuracy:.4}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rust_candle: {error}");
            ExitCode::FAILURE
        }
    }
}
