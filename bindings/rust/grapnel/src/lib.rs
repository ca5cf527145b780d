//! Training runs for LibTorch models, from Rust.
//!
//! A run is made of a config and of what is given in code: hooks, data, losses, metrics, or a model
//! of another engine's. It writes checkpoints that survive a crash, and resumes from them to the
//! bit.
//!
//! ```
//! use grapnel::{hook_fn, Mode, Runner, Stage, Tensor, Tensors};
//!
//! # fn main() -> Result<(), grapnel::Error> {
//! # let dir = std::env::temp_dir().join(format!("grapnel_doc_{}", std::process::id()));
//! let samples = Tensors::from_named([
//!     ("input", Tensor::from_vec(vec![0.0f32, 1.0, 2.0, 3.0], &[4, 1])?),
//!     ("target", Tensor::from_vec(vec![1.0f32, 3.0, 5.0, 7.0], &[4, 1])?),
//! ])?;
//! let mut runner = Runner::builder()
//!     .config_text(
//!         "model { sequential { layers { linear { out_features: 1 } } loss { mse {} } } }
//!          train_dataloader { batch_size: 2 sampler { shuffle: true } }
//!          train_cfg { max_epochs: 3 }
//!          optim_wrapper { optimizer { sgd { lr: 0.05 } } }",
//!     )
//! #   .work_dir(&dir)
//!     .tensors(Mode::Train, samples)
//!     .hook("print", hook_fn(Stage::AfterTrainEpoch, |_, run| {
//!         println!("epoch {}: loss {}", run.epoch() + 1, run.scalar("train/loss")?);
//!         Ok(())
//!     }))
//!     .build()?;
//! runner.train()?;
//! assert_eq!(runner.iter(), 6);
//! # drop(runner);
//! # std::fs::remove_dir_all(dir).unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! # Threads
//!
//! | type | `Send` | `Sync` |
//! |---|---|---|
//! | [`Runner`] | yes | no: one thread at a time trains, steps or asks |
//! | [`StopHandle`] | yes | yes: any thread stops the run, at any time |
//! | [`PredictorHandle`] | yes | yes: any thread makes predictors, while the run trains |
//! | [`Predictor`] | yes | yes: several threads predict while the run trains |
//! | [`Run`] | no: it ends with the callback that it is handed to | no |
//! | [`Tensor`], [`Tensors`], [`Scalars`], [`Checkpoint`], [`Scheduler`], [`Average`] | yes | no |
//!
//! Hooks, models, losses and metrics are called on the thread that called the runner; datasets and
//! streams also on the library's, as `num_workers` says; sinks of logs and records on one of the
//! runner's. All of them are `Send`, and a [`SyncDataset`] is `Sync`.
//!
//! # Errors and panics
//!
//! What a callback returns as an error ends the call on the runner, whose [`Error`] has it as its
//! source. A panic in a callback doesn't cross the border to C++: it becomes an error too, and can
//! be resumed ([`Error::into_panic`]). Either way the run isn't lost.
//!
//! # Memory
//!
//! A [`Tensor`] has memory that nobody else has: [`Tensor::from_vec`] takes a vector's without a
//! copy, and slices of it are as safe as a vector's. What callbacks are handed is lent to them, and
//! only to be read. To keep it, copy it.
//!
//! # Features
//!
//! * `tracing`, by default: [`Builder::log_to_tracing`], [`set_process_log_to_tracing`].
//! * `ndarray`: views of tensors as arrays, and tensors of arrays.
//! * `tch`: models of tch's tensors, whose memory is shared. Only sharing them is `unsafe`, as
//!   nothing keeps tch from writing or moving them meanwhile.
//!
//! How the library itself is found: [`grapnel_sys`].

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![warn(missing_debug_implementations, rust_2018_idioms)]

mod average;
mod builder;
mod bytes;
mod callback;
mod checkpoint;
mod dataset;
mod dlpack;
mod element;
mod error;
mod hook;
mod lent;
mod log;
mod loss;
mod metric;
mod model;
mod model_tensor;
mod name;
#[cfg(feature = "ndarray")]
mod ndarray;
pub mod pb;
mod predictor;
mod process;
mod run;
mod runner;
mod running;
pub mod safetensors;
mod scalars;
mod scheduler;
mod stage;
mod state;
mod status;
mod steps;
mod stop_handle;
mod stream;
#[cfg(feature = "tch")]
mod tch;
mod tensor;
mod tensors;
mod text_format;
mod thread;

pub use average::{Average, AverageState};
pub use builder::Builder;
pub use checkpoint::Checkpoint;
pub use dataset::{Access, Dataset, SyncDataset};
pub use dlpack::DlTensor;
pub use element::{Bfloat16, Dtype, Element, Float16};
pub use error::{BoxError, CallbackResult, Code, Error, Result};
pub use hook::{hook_fn, Hook, HookFn};
#[cfg(feature = "tracing")]
pub use log::set_process_log_to_tracing;
pub use log::{reset_process_log, set_process_log, Record};
pub use loss::Loss;
pub use metric::Metric;
pub use model::{Gradients, Model, SharedTensors, Weights};
pub use model_tensor::{ModelTensor, ModelTensorMut};
pub use predictor::{Predictor, PredictorHandle, PredictorWeights};
pub use process::{build_info, live_objects, registered_configs, version, Version, VERSION};
pub use run::Run;
pub use runner::Runner;
pub use scalars::{Scalars, ScalarsIter, ScalarsRef};
pub use scheduler::Scheduler;
pub use stage::{Mode, Priority, Severity, Stage, Stages, StopAt};
pub use state::State;
pub use steps::{Step, Steps};
pub use stop_handle::StopHandle;
pub use stream::Stream;
pub use tensor::{Tensor, TensorRef};
pub use tensors::{Tensors, TensorsIter, TensorsRef};
