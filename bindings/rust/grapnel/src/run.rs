//! A run, as its hooks see it.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::{fmt, ptr};

use grapnel_sys as sys;

use crate::callback::Shared;
use crate::error::{Error, Result};
use crate::model_tensor::ModelTensorMut;
use crate::name::text;
use crate::scalars::ScalarsRef;
use crate::stage::{Mode, Severity, StopAt};
use crate::status;
use crate::tensors::TensorsRef;

/// A run, for as long as a hook is called. What it lends can be handed on:
///
/// ```
/// use grapnel::{Result, Run, TensorsRef};
///
/// fn look<'a>(run: &'a Run<'_>) -> Result<&'a TensorsRef> {
///     run.batch()
/// }
/// ```
///
/// but not kept:
///
/// ```compile_fail
/// use grapnel::{Result, Run, TensorsRef};
///
/// fn keep(run: &Run<'_>) -> Result<&'static TensorsRef> {
///     run.batch()
/// }
/// ```
///
/// nor sent to other threads:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>() {}
/// is_send::<grapnel::Run<'_>>();
/// ```
pub struct Run<'a> {
    run: *mut sys::grapnel_run,
    shared: &'a Shared,
    _lent: PhantomData<&'a mut sys::grapnel_run>,
}

impl<'a> Run<'a> {
    /// # Safety
    ///
    /// `run` lives for `'a`, and nobody else has it for as long.
    pub(crate) unsafe fn new(
        run: *mut sys::grapnel_run,
        shared: &'a Shared,
        lent: PhantomData<&'a mut sys::grapnel_run>,
    ) -> Self {
        Run { run, shared, _lent: lent }
    }

    /// Completed epochs: during one's stages it isn't counted yet.
    pub fn epoch(&self) -> i64 {
        // SAFETY: it is a run, here and below.
        unsafe { sys::grapnel_run_epoch(self.run) }
    }

    /// Completed iterations: during one's stages it isn't counted yet.
    pub fn iter(&self) -> i64 {
        // SAFETY: as above.
        unsafe { sys::grapnel_run_iter(self.run) }
    }

    /// Epochs that it will have had in the end; 1 if it is counted in iterations.
    pub fn max_epochs(&self) -> i64 {
        // SAFETY: as above.
        unsafe { sys::grapnel_run_max_epochs(self.run) }
    }

    /// Iterations that it will have had in the end.
    pub fn max_iters(&self) -> i64 {
        // SAFETY: as above.
        unsafe { sys::grapnel_run_max_iters(self.run) }
    }

    /// The loop that is running.
    pub fn mode(&self) -> Mode {
        // SAFETY: as above.
        Mode::from_c(unsafe { sys::grapnel_run_mode(self.run) })
    }

    /// Whether it is between `BeforeTrain` and `AfterTrain`, validation included.
    pub fn is_training(&self) -> bool {
        // SAFETY: as above.
        unsafe { sys::grapnel_run_training(self.run) != 0 }
    }

    /// At stages of an iteration: its place in the loop, from 0.
    pub fn batch_index(&self) -> Option<usize> {
        // SAFETY: as above. -1, where there is none, is no usize.
        usize::try_from(unsafe { sys::grapnel_run_batch_idx(self.run) }).ok()
    }

    /// At stages of an iteration: how many there are in the loop.
    pub fn num_batches(&self) -> Option<usize> {
        // SAFETY: as above.
        usize::try_from(unsafe { sys::grapnel_run_num_batches(self.run) }).ok()
    }

    /// The place of this process among those that train together, as the config's `launcher`
    /// found them: 0 to `world_size() - 1`; 0 where it trains alone.
    pub fn rank(&self) -> usize {
        // SAFETY: as above. It isn't negative, nor is that below.
        unsafe { sys::grapnel_run_rank(self.run) as usize }
    }

    /// How many processes train together; 1 where this one trains alone.
    pub fn world_size(&self) -> usize {
        // SAFETY: as above.
        unsafe { sys::grapnel_run_world_size(self.run) as usize }
    }

    /// Whether this is the rank that writes files and logs. A hook is called on every rank and is
    /// to do the same on each, but for this: one that writes a file of its own asks first. `save`,
    /// `log` and `add_scalar` see to it by themselves.
    pub fn is_master(&self) -> bool {
        // SAFETY: as above.
        unsafe { sys::grapnel_run_is_master(self.run) != 0 }
    }

    /// At stages of an iteration: the batch, "input", "target" and extras, each (N, ...).
    ///
    /// [`Code::FailedPrecondition`](crate::Code::FailedPrecondition) at others, as for those below.
    pub fn batch(&self) -> Result<&TensorsRef> {
        let mut batch = ptr::null();
        // SAFETY: it is a run. What it lends lives as long as the call, and what could write it
        // needs `&mut self`.
        unsafe {
            status::take(sys::grapnel_run_batch(self.run, &mut batch))?;
            Ok(TensorsRef::from_ptr(batch))
        }
    }

    /// At `AfterTrainIter`: what the step gave to log. Waits for the device.
    pub fn log_vars(&self) -> Result<&ScalarsRef> {
        let mut log_vars = ptr::null();
        // SAFETY: as in `batch`.
        unsafe {
            status::take(sys::grapnel_run_log_vars(self.run, &mut log_vars))?;
            Ok(ScalarsRef::from_ptr(log_vars))
        }
    }

    /// At `AfterValIter` and `AfterTestIter`: "output", and the losses by name.
    pub fn predictions(&self) -> Result<&TensorsRef> {
        let mut predictions = ptr::null();
        // SAFETY: as in `batch`.
        unsafe {
            status::take(sys::grapnel_run_predictions(self.run, &mut predictions))?;
            Ok(TensorsRef::from_ptr(predictions))
        }
    }

    /// At `AfterValEpoch` and `AfterTestEpoch`; those that are texts are left out.
    pub fn metrics(&self) -> Result<&ScalarsRef> {
        let mut metrics = ptr::null();
        // SAFETY: as in `batch`.
        unsafe {
            status::take(sys::grapnel_run_metrics(self.run, &mut metrics))?;
            Ok(ScalarsRef::from_ptr(metrics))
        }
    }

    /// At `AfterSaveCheckpoint`: where it is.
    pub fn saved_path(&self) -> Result<&Path> {
        let mut path = ptr::null();
        // SAFETY: it is a run; the path lives as long as the call.
        unsafe {
            status::take(sys::grapnel_run_saved_path(self.run, &mut path))?;
            Ok(Path::new(text(path)))
        }
    }

    /// At `OnError`: what the run failed with. Without its source, which the call on the runner
    /// gets.
    pub fn error(&self) -> Result<Error> {
        let mut error = ptr::null();
        // SAFETY: it is a run; the status lives as long as the call.
        unsafe {
            status::take(sys::grapnel_run_error(self.run, &mut error))?;
            Ok(status::read(error))
        }
    }

    /// The model's parameter or buffer of that name, not copied: writing it writes the model. Take
    /// it anew for each write, so that others notice: each is taken for one. Meanwhile no
    /// [`Predictor`](crate::Predictor) takes weights here. One at a time, and no batch meanwhile:
    ///
    /// ```compile_fail,E0499
    /// fn twice(run: &mut grapnel::Run<'_>) -> grapnel::Result<()> {
    ///     let mut one = run.tensor("w")?;
    ///     let other = run.tensor("w")?;
    ///     one.data_mut::<f32>()?.copy_from_slice(other.data::<f32>()?);
    ///     Ok(())
    /// }
    /// ```
    pub fn tensor(&mut self, name: &str) -> Result<ModelTensorMut<'_>> {
        let foreign = self.shared.foreign_model.load(Ordering::Relaxed);
        let mut out = ptr::null_mut();
        // SAFETY: it is a run, and the name is as long as it says. The tensor is ours to destroy;
        // its memory is the model's, which nobody else uses while `self` is borrowed.
        unsafe {
            let name = (name.as_ptr().cast(), name.len());
            status::take(sys::grapnel_run_tensor(self.run, name.0, name.1, &mut out))?;
            Ok(ModelTensorMut::counted(out, foreign, &self.shared.lent))
        }
    }

    /// The newest value of a history of the message hub, "train/loss". Waits for the device.
    /// [`Code::NotFound`](crate::Code::NotFound) if there is none.
    pub fn scalar(&self, name: &str) -> Result<f64> {
        let mut value = 0.0;
        // SAFETY: it is a run, and the name is as long as it says; here and below.
        unsafe {
            let name = (name.as_ptr().cast(), name.len());
            status::take(sys::grapnel_run_scalar(self.run, name.0, name.1, &mut value))?;
        }
        Ok(value)
    }

    /// Adds to a history, which is logged and recorded as the others are: "train/sum".
    pub fn add_scalar(&mut self, name: &str, value: f64) -> Result<()> {
        // SAFETY: as above.
        unsafe {
            let name = (name.as_ptr().cast(), name.len());
            status::take(sys::grapnel_run_add_scalar(self.run, name.0, name.1, value))
        }
    }

    /// Saves a checkpoint of that name once all hooks of this stage have run. At `AfterTrainIter`,
    /// `AfterTrainEpoch`, `AfterValEpoch` in training, and `AfterTrain`.
    pub fn save(&mut self, name: &str) -> Result<()> {
        // SAFETY: as above.
        unsafe { status::take(sys::grapnel_run_save(self.run, name.as_ptr().cast(), name.len())) }
    }

    /// Ends training, which then has come out well. The first reason is kept, but that of
    /// [`StopAt::Now`] takes the place of one after the epoch.
    pub fn request_stop(&mut self, at: StopAt, reason: &str) -> Result<()> {
        // SAFETY: as above.
        unsafe {
            let text = (reason.as_ptr().cast(), reason.len());
            status::take(sys::grapnel_run_request_stop(self.run, at as i32, text.0, text.1))
        }
    }

    /// A line of the run's log.
    pub fn log(&mut self, severity: Severity, message: &str) -> Result<()> {
        // SAFETY: as above.
        unsafe {
            let text = (message.as_ptr().cast(), message.len());
            status::take(sys::grapnel_run_log(self.run, severity as i32, text.0, text.1))
        }
    }
}

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("epoch", &self.epoch())
            .field("iter", &self.iter())
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}
