//! A small run: one layer learns y = x0 + 2 x1.

#![allow(dead_code, reason = "each test uses some of it")]

pub mod failing;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

use grapnel::{Builder, CallbackResult, Dataset, Mode, Runner, TensorsRef};

/// A folder of the test's own, gone with it.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("grapnel_rust_{}_{number}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        TempDir(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

pub const SAMPLES: usize = 32;

/// Input and target of a sample.
pub fn sample(index: usize) -> ([f32; 2], f32) {
    let input = [index as f32 / SAMPLES as f32, (index % 3) as f32];
    (input, input[0] + 2.0 * input[1])
}

pub struct Plane;

impl Dataset for Plane {
    fn len(&self) -> usize {
        SAMPLES
    }

    fn get(&mut self, index: usize, to: &mut TensorsRef) -> CallbackResult {
        let (input, target) = sample(index);
        to.insert_slice("input", &input, &[2])?;
        to.insert_slice("target", &[target], &[1])?;
        Ok(())
    }
}

/// A run with a dropout, so that random numbers count.
pub const CONFIG: &str = r#"
    model {
      sequential {
        layers { linear { out_features: 8 } }
        layers { relu {} }
        layers { dropout { p: 0.25 } }
        layers { linear { out_features: 1 } }
        loss { mse {} }
      }
    }
    train_dataloader { batch_size: 4 sampler { shuffle: true } }
    val_dataloader { batch_size: 8 }
    val_evaluator { mse {} }
    test_dataloader { batch_size: 8 }
    test_evaluator { mae {} }
    train_cfg { max_epochs: 3 }
    optim_wrapper { optimizer { adamw { lr: 0.01 } } }
    custom_hooks { config { [hooks/EMAHook] { momentum: 0.1 } } }
    randomness { seed: 3 }
"#;

pub const ITERS: i64 = 3 * SAMPLES as i64 / 4;

/// With a config, a work_dir, and no data.
pub fn without_data(dir: &TempDir) -> Builder {
    Runner::builder().config_text(CONFIG).work_dir(dir.path()).log(|_, _| {})
}

/// Trained on that.
pub fn with_data_of(dir: &TempDir, data: impl Dataset) -> Builder {
    without_data(dir)
        .dataset(Mode::Train, data)
        .dataset(Mode::Val, Plane)
        .dataset(Mode::Test, Plane)
}

pub fn small(dir: &TempDir) -> Builder {
    with_data_of(dir, Plane)
}

/// All of a model's tensors, by name, bit by bit.
pub fn weights(runner: &Runner) -> Vec<(String, Vec<u32>)> {
    let names = runner.tensor_names().unwrap();
    assert!(!names.is_empty());
    let bits = |name: &String| {
        let values = runner.tensor(name).unwrap().to_vec::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    names.iter().map(|name| (name.clone(), bits(name))).collect()
}
