//! Runners: one run each.

use std::cell::Cell;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, mem};

use grapnel_sys as sys;
use prost::Message;

use crate::builder::Builder;
use crate::bytes::{path_text, Bytes};
use crate::callback::Shared;
use crate::error::{Code, Error, Result};
use crate::pb::RunnerConfig;
use crate::predictor::{Predictor, PredictorHandle, PredictorWeights};
use crate::running::Running;
use crate::scalars::Scalars;
use crate::status;
use crate::steps::Steps;
use crate::stop_handle::StopHandle;
use crate::tensor::{Tensor, TensorRef};
use crate::thread;

/// One run: a model, its optimizer, hooks and data.
///
/// `Send`, but not `Sync`: it may go from thread to thread, and is used by one at a time. Others
/// have a [`StopHandle`] to stop it, and a [`Predictor`] or [`PredictorHandle`] for its weights.
///
/// ```
/// fn is_send<T: Send>() {}
/// is_send::<grapnel::Runner>();
/// ```
///
/// ```compile_fail,E0277
/// fn is_sync<T: Sync>() {}
/// is_sync::<grapnel::Runner>();
/// ```
///
/// Dropping it waits for its threads, and then drops hooks, data and the rest, on this thread. In a
/// callback that comes on a thread of the library's own, which can't wait for itself, another
/// thread does so, soon after; and sinks of logs and records stay.
pub struct Runner {
    runner: NonNull<sys::grapnel_runner>,
    running: Arc<Running>,
    shared: Arc<Shared>,
    /// What the run uses; dropped after it.
    kept: Vec<Box<dyn Send>>,
    _not_sync: PhantomData<Cell<()>>,
}

// SAFETY: a runner may be called on any thread; what users put in is `Send`.
unsafe impl Send for Runner {}

impl Runner {
    /// Makes a runner.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(
        runner: NonNull<sys::grapnel_runner>,
        shared: Arc<Shared>,
        kept: Vec<Box<dyn Send>>,
    ) -> Runner {
        let running = Arc::new(Running::new(runner));
        Runner { runner, running, shared, kept, _not_sync: PhantomData }
    }

    fn as_ptr(&self) -> *mut sys::grapnel_runner {
        self.runner.as_ptr()
    }

    /// Trains until done, stopped or failed; from where `resume` or `load_from` say, or an earlier
    /// call has ended. `Ok` if it was stopped. A run that has failed isn't lost: the next call goes
    /// on where it was.
    pub fn train(&mut self) -> Result<()> {
        // SAFETY: it is a runner, and nobody else's; here and below.
        unsafe { self.shared.call(|| sys::grapnel_runner_train(self.as_ptr())) }
    }

    /// One training iteration, with all that is due in it and after it. `true` if there is more to
    /// do. Training is steps to the end, and any mixture of the two is the same run.
    pub fn step(&mut self) -> Result<bool> {
        let mut more = 0;
        // SAFETY: as above.
        unsafe { self.shared.call(|| sys::grapnel_runner_step(self.as_ptr(), &mut more))? };
        Ok(more != 0)
    }

    /// Steps to the end, one for each item.
    ///
    /// ```no_run
    /// # fn f(mut runner: grapnel::Runner) -> Result<(), grapnel::Error> {
    /// for step in runner.steps() {
    ///     println!("{} iterations", step?.iter);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn steps(&mut self) -> Steps<'_> {
        Steps::new(self)
    }

    /// Trains until a time, and saves. `true` if there is more to do.
    pub fn train_until(&mut self, time: SystemTime) -> Result<bool> {
        let seconds = match time.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        };
        let mut more = 0;
        // SAFETY: as above.
        unsafe {
            self.shared
                .call(|| sys::grapnel_runner_train_until(self.as_ptr(), seconds, &mut more))?;
        }
        Ok(more != 0)
    }

    /// One validation: its metrics, but for texts.
    pub fn val(&mut self) -> Result<Scalars> {
        let mut metrics = Scalars::new()?;
        // SAFETY: as above.
        unsafe {
            self.shared.call(|| sys::grapnel_runner_val(self.as_ptr(), metrics.as_mut_ptr()))?;
        }
        Ok(metrics)
    }

    /// One test: its metrics, but for texts.
    pub fn test(&mut self) -> Result<Scalars> {
        let mut metrics = Scalars::new()?;
        // SAFETY: as above.
        unsafe {
            self.shared.call(|| sys::grapnel_runner_test(self.as_ptr(), metrics.as_mut_ptr()))?;
        }
        Ok(metrics)
    }

    /// Writes the model to a file in its own format. [`Code::Unimplemented`] if it has none.
    pub fn export(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path_text(path.as_ref())?;
        // SAFETY: as above, and the path is as long as it says.
        unsafe {
            let path = (path.as_ptr().cast(), path.len());
            self.shared.call(|| sys::grapnel_runner_export(self.as_ptr(), path.0, path.1))
        }
    }

    /// Writes a checkpoint of that name, "iter_100", at once. Between two steps.
    pub fn save(&mut self, name: &str) -> Result<()> {
        // SAFETY: as above, and the name is as long as it says.
        unsafe {
            let name = (name.as_ptr().cast(), name.len());
            self.shared.call(|| sys::grapnel_runner_save(self.as_ptr(), name.0, name.1))
        }
    }

    /// What stops it from another thread, or from a callback.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle::new(Arc::clone(&self.running))
    }

    /// Why it was stopped, if it was asked to.
    pub fn stop_reason(&self) -> Result<Option<String>> {
        let reason = self.text(sys::grapnel_runner_stop_reason)?;
        Ok((!reason.is_empty()).then_some(reason))
    }

    /// Completed epochs.
    pub fn epoch(&self) -> i64 {
        // SAFETY: as above.
        unsafe { sys::grapnel_runner_epoch(self.as_ptr()) }
    }

    /// Completed iterations.
    pub fn iter(&self) -> i64 {
        // SAFETY: as above.
        unsafe { sys::grapnel_runner_iter(self.as_ptr()) }
    }

    /// The place of this process among those that train together, as the config's `launcher`
    /// found them: 0 to `world_size() - 1`; 0 where it trains alone.
    pub fn rank(&self) -> usize {
        // SAFETY: as above. It isn't negative, nor are those below.
        unsafe { sys::grapnel_runner_rank(self.as_ptr()) as usize }
    }

    /// The same among those of this machine: for a device of its own.
    pub fn local_rank(&self) -> usize {
        // SAFETY: as above.
        unsafe { sys::grapnel_runner_local_rank(self.as_ptr()) as usize }
    }

    /// How many processes train together; 1 where this one trains alone.
    pub fn world_size(&self) -> usize {
        // SAFETY: as above.
        unsafe { sys::grapnel_runner_world_size(self.as_ptr()) as usize }
    }

    /// Whether this is the rank that writes files and logs.
    pub fn is_master(&self) -> bool {
        // SAFETY: as above.
        unsafe { sys::grapnel_runner_is_master(self.as_ptr()) != 0 }
    }

    /// The newest value of a history of the message hub: "train/loss". [`Code::NotFound`] if there
    /// is none.
    pub fn scalar(&self, name: &str) -> Result<f64> {
        let mut value = 0.0;
        // SAFETY: as above, and the name is as long as it says.
        unsafe {
            let name = (name.as_ptr().cast(), name.len());
            let status = sys::grapnel_runner_scalar(self.as_ptr(), name.0, name.1, &mut value);
            status::take(status)?;
        }
        Ok(value)
    }

    /// Names of all histories: "train/loss", "train/lr" and the like.
    pub fn scalar_names(&self) -> Result<Vec<String>> {
        Ok(self.bytes(sys::grapnel_runner_scalar_names)?.to_lines())
    }

    /// A fact of the message hub, "experiment_name", as text. [`Code::NotFound`] if there is none.
    pub fn info(&self, name: &str) -> Result<String> {
        // SAFETY: as above, and the name is as long as it says.
        let value = Bytes::of(|value| unsafe {
            sys::grapnel_runner_info(self.as_ptr(), name.as_ptr().cast(), name.len(), value)
        })?;
        Ok(value.to_text())
    }

    /// A copy of the model's parameter or buffer of that name.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let mut out = ptr::null_mut();
        // SAFETY: as above, and the name is as long as it says; a copy is nobody else's.
        unsafe {
            let name = (name.as_ptr().cast(), name.len());
            let status = sys::grapnel_runner_get_tensor(self.as_ptr(), name.0, name.1, &mut out);
            status::take(status)?;
            Ok(Tensor::from_raw(out))
        }
    }

    /// Copies a value into the model's parameter or buffer of that name.
    pub fn set_tensor(
        &mut self,
        name: &str,
        value: &(impl AsRef<TensorRef> + ?Sized),
    ) -> Result<()> {
        let value = value.as_ref();
        // SAFETY: as above, and the name is as long as it says.
        unsafe {
            let name = (name.as_ptr().cast(), name.len());
            let status =
                sys::grapnel_runner_set_tensor(self.as_ptr(), name.0, name.1, value.as_ptr());
            status::take(status)
        }
    }

    /// Names of the model's parameters, then of its buffers.
    pub fn tensor_names(&self) -> Result<Vec<String>> {
        Ok(self.bytes(sys::grapnel_runner_tensor_names)?.to_lines())
    }

    /// For people: a line for each stage where hooks act, with those in order.
    pub fn stage_table(&self) -> Result<String> {
        self.text(sys::grapnel_runner_stage_table)
    }

    /// Where the run writes.
    pub fn work_dir(&self) -> Result<PathBuf> {
        Ok(self.bytes(sys::grapnel_runner_work_dir)?.to_path())
    }

    /// The config that is run: overrides and the work_dir are in it, with absolute paths. A field
    /// that nobody set stays unset.
    pub fn config(&self) -> Result<RunnerConfig> {
        let bytes = self.encoded_config(sys::GRAPNEL_BINARY)?;
        RunnerConfig::decode(bytes.as_slice())
            .map_err(|error| Error::new(Code::Internal, format!("config: {error}")))
    }

    /// The same in protobuf's text format.
    pub fn config_text(&self) -> Result<String> {
        Ok(self.encoded_config(sys::GRAPNEL_TEXT)?.to_text())
    }

    /// The same in JSON.
    pub fn config_json(&self) -> Result<String> {
        Ok(self.encoded_config(sys::GRAPNEL_JSON)?.to_text())
    }

    fn encoded_config(&self, encoding: sys::grapnel_encoding) -> Result<Bytes> {
        // SAFETY: as above.
        Bytes::of(|config| unsafe { sys::grapnel_runner_config(self.as_ptr(), encoding, config) })
    }

    /// Predicts with the run's weights of now, while it trains, and when it is gone. `replicas`, 1
    /// or more, is how many predictions can be made at the same time; each needs a copy of the
    /// model. [`Code::InvalidArgument`] if the model was given in code.
    pub fn predictor(&self, weights: PredictorWeights, replicas: u32) -> Result<Predictor> {
        self.predictor_handle().predictor(weights, replicas)
    }

    /// What makes predictors on another thread, while it trains.
    pub fn predictor_handle(&self) -> PredictorHandle {
        PredictorHandle::new(Arc::clone(&self.running), Arc::clone(&self.shared.lent))
    }

    fn bytes(
        &self,
        get: unsafe extern "C" fn(
            *const sys::grapnel_runner,
            *mut sys::grapnel_bytes,
        ) -> *mut sys::grapnel_status,
    ) -> Result<Bytes> {
        // SAFETY: as above.
        Bytes::of(|bytes| unsafe { get(self.as_ptr(), bytes) })
    }

    fn text(
        &self,
        get: unsafe extern "C" fn(
            *const sys::grapnel_runner,
            *mut sys::grapnel_bytes,
        ) -> *mut sys::grapnel_status,
    ) -> Result<String> {
        Ok(self.bytes(get)?.to_text())
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("epoch", &self.epoch())
            .field("iter", &self.iter())
            .finish_non_exhaustive()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.running.end();
        let by_another_thread = thread::is_the_librarys();
        // SAFETY: it is ours, and no handle calls it any more.
        unsafe { sys::grapnel_runner_destroy(self.as_ptr()) }
        if by_another_thread {
            // Nobody is told when that is done, so that what the run uses can't go.
            mem::forget(mem::take(&mut self.kept));
        }
    }
}
