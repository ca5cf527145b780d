//! What hooks and streams keep in checkpoints.

use std::ffi::c_void;
use std::sync::Arc;

use grapnel_sys as sys;

use crate::bytes;
use crate::callback::{call, Shared};
use crate::error::CallbackResult;
use crate::status;

/// A state that checkpoints keep.
///
/// Both are called for evaluations too: one in training that is cut short, and one between two
/// steps, leave the state as it was before.
pub trait State {
    /// Appends what is to be kept to `to`, which is empty.
    fn save(&mut self, to: &mut Vec<u8>) -> CallbackResult;

    /// Takes back what [`save`](State::save) gave. Empty if a checkpoint has none, as it was made
    /// by a run without this one:
    ///
    /// ```
    /// use grapnel::{CallbackResult, State};
    ///
    /// struct Count(u64);
    ///
    /// impl State for Count {
    ///     fn save(&mut self, to: &mut Vec<u8>) -> CallbackResult {
    ///         to.extend(self.0.to_le_bytes());
    ///         Ok(())
    ///     }
    ///
    ///     fn load(&mut self, from: &[u8]) -> CallbackResult {
    ///         self.0 = if from.is_empty() { 0 } else { u64::from_le_bytes(from.try_into()?) };
    ///         Ok(())
    ///     }
    /// }
    /// ```
    fn load(&mut self, from: &[u8]) -> CallbackResult;
}

/// A box of what may have a state.
pub(crate) trait MayHaveState {
    fn shared(&self) -> &Arc<Shared>;
    /// The state, and a buffer that is used from call to call.
    fn state(&mut self) -> Option<(&mut dyn State, &mut Vec<u8>)>;
}

type SaveState =
    unsafe extern "C" fn(*mut c_void, *mut sys::grapnel_bytes) -> *mut sys::grapnel_status;
type LoadState =
    unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut sys::grapnel_status;

/// The two callbacks, or none for what has no state.
pub(crate) fn callbacks<D: MayHaveState>(data: &mut D) -> (Option<SaveState>, Option<LoadState>) {
    if data.state().is_none() {
        return (None, None);
    }
    (Some(save_state::<D>), Some(load_state::<D>))
}

unsafe extern "C" fn save_state<D: MayHaveState>(
    user_data: *mut c_void,
    to: *mut sys::grapnel_bytes,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is a `D`, and calls with it come one at a time.
    let data = unsafe { &mut *user_data.cast::<D>() };
    let shared = Arc::clone(data.shared());
    call(&shared, || {
        let Some((state, buffer)) = data.state() else {
            return Ok(());
        };
        buffer.clear();
        state.save(buffer)?;
        // SAFETY: the library's bytes are ours to write in this call.
        unsafe { status::take(bytes::assign(to, buffer))? };
        Ok(())
    })
}

unsafe extern "C" fn load_state<D: MayHaveState>(
    user_data: *mut c_void,
    state: *const c_void,
    state_size: usize,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is a `D`, and calls with it come one at a time.
    let data = unsafe { &mut *user_data.cast::<D>() };
    // SAFETY: the library's bytes live for this call.
    let bytes = unsafe { bytes::lent(state, state_size) };
    let shared = Arc::clone(data.shared());
    call(&shared, || match data.state() {
        None => Ok(()),
        Some((state, _)) => state.load(bytes),
    })
}
