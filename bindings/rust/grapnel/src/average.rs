//! Averaged models, without a runner.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::{self, NonNull};

use grapnel_sys as sys;
use prost::Message;

use crate::error::{Code, Error, Result};
use crate::pb::AveragedModelConfig;
use crate::status;
use crate::tensor::TensorRef;
use crate::tensors::{Tensors, TensorsRef};

/// A running average of tensors, for a loop of your own. It has the tensors, and lends them.
pub struct Average {
    average: NonNull<sys::grapnel_average>,
    // Dropped after the average, which `Drop` destroys.
    parameters: Tensors,
    buffers: Option<Tensors>,
}

// SAFETY: nothing of an average belongs to a thread.
unsafe impl Send for Average {}

impl Average {
    /// An average of these.
    pub fn new(
        config: &AveragedModelConfig,
        parameters: Tensors,
        buffers: Option<Tensors>,
    ) -> Result<Average> {
        let config = config.encode_to_vec();
        let mut out = ptr::null_mut();
        // SAFETY: config is as long as it says; `out` is written on success.
        let average = unsafe {
            status::take(sys::grapnel_average_create(
                config.as_ptr().cast(),
                config.len(),
                sys::GRAPNEL_BINARY,
                parameters.as_ptr(),
                buffers.as_ref().map_or(ptr::null(), |buffers| buffers.as_ptr()),
                &mut out,
            ))?;
            NonNull::new_unchecked(out)
        };
        Ok(Average { average, parameters, buffers })
    }

    /// The tensors: what is trained, or the averages where they are swapped in.
    pub fn parameters(&self) -> &TensorsRef {
        &self.parameters
    }

    /// One of them, to be written.
    pub fn parameter_mut(&mut self, name: &str) -> Option<&mut TensorRef> {
        self.parameters.get_mut(name)
    }

    /// The buffers, if there are any.
    pub fn buffers(&self) -> Option<&TensorsRef> {
        self.buffers.as_deref()
    }

    /// One of the buffers, to be written.
    pub fn buffer_mut(&mut self, name: &str) -> Option<&mut TensorRef> {
        self.buffers.as_mut()?.get_mut(name)
    }

    /// Takes the present values in.
    pub fn update(&mut self) -> Result<()> {
        // SAFETY: it is an average, whose tensors nobody has borrowed; here and below.
        unsafe { status::take(sys::grapnel_average_update(self.average.as_ptr())) }
    }

    /// How many updates there were.
    pub fn steps(&self) -> i64 {
        // SAFETY: as above.
        unsafe { sys::grapnel_average_steps(self.average.as_ptr()) }
    }

    /// Exchanges the values with the averages.
    pub fn swap_in(&mut self) -> Result<()> {
        // SAFETY: as above.
        unsafe { status::take(sys::grapnel_average_swap_in(self.average.as_ptr())) }
    }

    /// And back.
    pub fn swap_out(&mut self) -> Result<()> {
        // SAFETY: as above.
        unsafe { status::take(sys::grapnel_average_swap_out(self.average.as_ptr())) }
    }

    /// The averages.
    pub fn state(&self) -> Result<AverageState<'_>> {
        let mut tensors = Tensors::new()?;
        // SAFETY: as above. What is added is shared with the average, which isn't written while it
        // is borrowed.
        unsafe {
            status::take(sys::grapnel_average_state(self.average.as_ptr(), tensors.as_mut_ptr()))?;
        }
        Ok(AverageState { tensors, _lent: PhantomData })
    }

    /// Copies saved averages and their number of updates back.
    pub fn load_state(&mut self, state: &TensorsRef, steps: u64) -> Result<()> {
        let steps = i64::try_from(steps)
            .map_err(|_| Error::new(Code::InvalidArgument, format!("steps: is {steps}")))?;
        // SAFETY: as above.
        unsafe {
            let average = self.average.as_ptr();
            status::take(sys::grapnel_average_load_state(average, state.as_ptr(), steps))
        }
    }

    /// The tensors back, swapped out.
    pub fn into_tensors(self) -> (Tensors, Option<Tensors>) {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` isn't used or dropped any more, and each part is read once; the average
        // goes first, as it has the tensors' memory.
        unsafe {
            sys::grapnel_average_destroy(this.average.as_ptr());
            (ptr::read(&this.parameters), ptr::read(&this.buffers))
        }
    }
}

impl fmt::Debug for Average {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Average").field("steps", &self.steps()).finish_non_exhaustive()
    }
}

impl Drop for Average {
    fn drop(&mut self) {
        // SAFETY: it is ours. It swaps out, so it goes before the tensors do.
        unsafe { sys::grapnel_average_destroy(self.average.as_ptr()) }
    }
}

/// Averages, for as long as they don't move; see [`Average::state`].
pub struct AverageState<'a> {
    tensors: Tensors,
    _lent: PhantomData<&'a Average>,
}

impl Deref for AverageState<'_> {
    type Target = TensorsRef;

    fn deref(&self) -> &TensorsRef {
        &self.tensors
    }
}

impl fmt::Debug for AverageState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tensors.fmt(f)
    }
}
