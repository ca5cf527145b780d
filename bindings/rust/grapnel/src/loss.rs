//! Losses, for models from a config that have none there.

use std::ffi::c_void;
use std::mem;
use std::sync::Arc;

use grapnel_sys as sys;

use crate::callback::{call, destroy, Shared};
use crate::error::CallbackResult;
use crate::tensor::{Tensor, TensorRef};
use crate::tensors::TensorsRef;

/// A loss, for a model from a config that has none there. Calls come on the thread that called the
/// runner.
pub trait Loss: Send + 'static {
    /// The mean over the batch.
    fn loss(&mut self, output: &TensorRef, batch: &TensorsRef) -> CallbackResult<f64>;

    /// The same, and d loss / d output: a tensor of output's shape and type.
    fn loss_and_gradient(
        &mut self,
        output: &TensorRef,
        batch: &TensorsRef,
    ) -> CallbackResult<(f64, Tensor)>;
}

/// User data of a loss.
pub(crate) struct LossData<L> {
    loss: L,
    shared: Arc<Shared>,
}

impl<L: Loss> LossData<L> {
    pub(crate) fn new(loss: L, shared: Arc<Shared>) -> Self {
        LossData { loss, shared }
    }

    pub(crate) fn callbacks(&self) -> sys::grapnel_loss_callbacks {
        sys::grapnel_loss_callbacks {
            struct_size: mem::size_of::<sys::grapnel_loss_callbacks>(),
            compute: Some(compute::<L>),
            destroy: Some(destroy::<Self>),
        }
    }
}

unsafe extern "C" fn compute<L: Loss>(
    user_data: *mut c_void,
    output: *const sys::grapnel_tensor,
    batch: *const sys::grapnel_tensors,
    loss: *mut f64,
    grad: *mut *mut sys::grapnel_tensor,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is this, and calls with it come one at a time.
    let data = unsafe { &mut *user_data.cast::<LossData<L>>() };
    // SAFETY: output and batch live for this call, in which nobody writes them; what is written to
    // is the library's to be written, and the gradient is taken, as there is no error behind it.
    call(&data.shared, || unsafe {
        let (output, batch) = (TensorRef::from_ptr(output), TensorsRef::from_ptr(batch));
        if grad.is_null() {
            *loss = data.loss.loss(output, batch)?;
        } else {
            let (value, gradient) = data.loss.loss_and_gradient(output, batch)?;
            *loss = value;
            *grad = gradient.into_raw();
        }
        Ok(())
    })
}
