//! Parameter schedulers, without a runner.

use std::fmt;
use std::ptr::{self, NonNull};

use grapnel_sys as sys;
use prost::Message;

use crate::bytes::Bytes;
use crate::error::{Code, Error, Result};
use crate::pb::ParamSchedulerConfig;
use crate::status;

/// Moves numbers, learning rates for example, for a loop of your own.
///
/// ```
/// use grapnel::pb::{LinearSchedulerConfig, ParamSchedulerConfig};
/// use grapnel::Scheduler;
///
/// let warmup =
///     LinearSchedulerConfig { start_factor: Some(0.5), end: Some(3), ..Default::default() };
/// let mut scheduler = Scheduler::new(&ParamSchedulerConfig::from(warmup), &[0.1], None, None)?;
/// scheduler.apply()?;
/// assert_eq!(scheduler.values(), [0.05]);
/// scheduler.step()?;
/// # Ok::<(), grapnel::Error>(())
/// ```
pub struct Scheduler {
    scheduler: NonNull<sys::grapnel_scheduler>,
    /// A box made raw, as the library has pointers into it.
    values: NonNull<[f64]>,
}

// SAFETY: nothing of a scheduler belongs to a thread, and the values are its own.
unsafe impl Send for Scheduler {}

/// Frees the values, whatever happens.
struct Values(NonNull<[f64]>);

impl Drop for Values {
    fn drop(&mut self) {
        // SAFETY: it was made of a box, and nobody has pointers into it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Scheduler {
    /// One for as many numbers as there are, one for each parameter group, with what they start
    /// from; none is moved before [`apply`](Scheduler::apply). How long the training is, if that is
    /// known: an epoch's length follows from both.
    pub fn new(
        config: &ParamSchedulerConfig,
        values: &[f64],
        max_epochs: Option<u64>,
        max_iters: Option<u64>,
    ) -> Result<Scheduler> {
        let config = config.encode_to_vec();
        let (max_epochs, max_iters) =
            (length("max_epochs", max_epochs)?, length("max_iters", max_iters)?);
        let values = Values(NonNull::from(Box::leak(Box::<[f64]>::from(values))));
        let first = values.0.as_ptr().cast::<f64>();
        // SAFETY: each is an element of the slice.
        let pointers: Vec<*mut f64> =
            (0..values.0.len()).map(|index| unsafe { first.add(index) }).collect();
        let mut out = ptr::null_mut();
        // SAFETY: the values outlive the scheduler; `out` is written on success.
        let scheduler = unsafe {
            status::take(sys::grapnel_scheduler_create(
                config.as_ptr().cast(),
                config.len(),
                sys::GRAPNEL_BINARY,
                pointers.as_ptr(),
                pointers.len(),
                max_epochs,
                max_iters,
                &mut out,
            ))?;
            NonNull::new_unchecked(out)
        };
        let values = std::mem::ManuallyDrop::new(values).0;
        Ok(Scheduler { scheduler, values })
    }

    /// The numbers as they are.
    pub fn values(&self) -> &[f64] {
        // SAFETY: the library writes them in calls of `&mut self` only.
        unsafe { self.values.as_ref() }
    }

    /// The numbers, to be set: before [`load_state`](Scheduler::load_state).
    pub fn values_mut(&mut self) -> &mut [f64] {
        // SAFETY: as above, and it reads them in such calls only.
        unsafe { self.values.as_mut() }
    }

    /// Writes the values of step 0.
    pub fn apply(&mut self) -> Result<()> {
        // SAFETY: it is a scheduler, whose values nobody has borrowed; here and below.
        unsafe { status::take(sys::grapnel_scheduler_apply(self.scheduler.as_ptr())) }
    }

    /// An epoch, or an iteration, as the config says, is over.
    pub fn step(&mut self) -> Result<()> {
        // SAFETY: as above.
        unsafe { status::take(sys::grapnel_scheduler_step(self.scheduler.as_ptr())) }
    }

    /// For one that follows a metric, `reduce_on_plateau`: its value, of a validation, after the
    /// step of the epoch.
    pub fn step_metric(&mut self, value: f64) -> Result<()> {
        // SAFETY: as above.
        unsafe { status::take(sys::grapnel_scheduler_step_metric(self.scheduler.as_ptr(), value)) }
    }

    /// Its state, without the values, which are yours to save.
    pub fn save_state(&self) -> Result<Vec<u8>> {
        // SAFETY: as above.
        let state = Bytes::of(|state| unsafe {
            sys::grapnel_scheduler_save_state(self.scheduler.as_ptr(), state)
        })?;
        Ok(state.as_slice().to_vec())
    }

    /// Takes a saved state back. Set the values before.
    pub fn load_state(&mut self, state: &[u8]) -> Result<()> {
        // SAFETY: as above, and the state is as long as it says.
        unsafe {
            status::take(sys::grapnel_scheduler_load_state(
                self.scheduler.as_ptr(),
                state.as_ptr().cast(),
                state.len(),
            ))
        }
    }
}

/// As the library has it: -1 is unknown.
fn length(name: &str, length: Option<u64>) -> Result<i64> {
    let Some(length) = length else { return Ok(-1) };
    i64::try_from(length)
        .map_err(|_| Error::new(Code::InvalidArgument, format!("{name}: is {length}")))
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("values", &self.values()).finish_non_exhaustive()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // SAFETY: it is ours; the values are freed when it is gone.
        unsafe { sys::grapnel_scheduler_destroy(self.scheduler.as_ptr()) }
        drop(Values(self.values));
    }
}
