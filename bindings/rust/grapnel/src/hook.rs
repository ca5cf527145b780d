//! Hooks: what acts on a run from outside.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem;
use std::sync::Arc;

use grapnel_sys as sys;

use crate::callback::{call, call_logged, destroy, Shared};
use crate::error::CallbackResult;
use crate::run::Run;
use crate::stage::{Priority, Stage, Stages};
use crate::state::{self, MayHaveState, State};

/// What acts on a run, at the stages that it names. Others cost nothing.
///
/// Calls come on the thread that called the [`Runner`](crate::Runner), one at a time. An error ends
/// the call on the runner.
///
/// ```
/// use grapnel::{CallbackResult, Hook, Run, Stage, Stages};
///
/// /// Stops a run whose loss is no number.
/// struct CheckLoss;
///
/// impl Hook for CheckLoss {
///     fn stages(&self) -> Stages {
///         Stage::AfterTrainIter.into()
///     }
///
///     fn on_stage(&mut self, _stage: Stage, run: &mut Run<'_>) -> CallbackResult {
///         match run.log_vars()?.iter().find(|(_, value)| !value.is_finite()) {
///             Some((name, value)) => Err(format!("{name}: is {value}").into()),
///             None => Ok(()),
///         }
///     }
/// }
/// ```
pub trait Hook: Send + 'static {
    /// Where it is called. Asked once, when it is added.
    fn stages(&self) -> Stages;

    /// Does what there is to do.
    fn on_stage(&mut self, stage: Stage, run: &mut Run<'_>) -> CallbackResult;

    /// Whose turn it is. Asked once, when it is added.
    fn priority(&self) -> Priority {
        Priority::NORMAL
    }

    /// What it keeps in checkpoints; `Some(self)` where `self` is a [`State`]. Always or never. Of
    /// several ranks that of rank 0 is kept, and all get it.
    fn state(&mut self) -> Option<&mut dyn State> {
        None
    }
}

/// A closure as a hook.
///
/// ```
/// use grapnel::{hook_fn, Stage};
///
/// let hook = hook_fn(Stage::AfterTrainEpoch, |_stage, run| {
///     println!("{} epochs", run.epoch() + 1);
///     Ok(())
/// });
/// # let _ = hook;
/// ```
pub fn hook_fn<F>(stages: impl Into<Stages>, hook: F) -> HookFn<F>
where
    F: FnMut(Stage, &mut Run<'_>) -> CallbackResult + Send + 'static,
{
    HookFn { stages: stages.into(), priority: Priority::NORMAL, hook }
}

/// See [`hook_fn`].
#[derive(Debug, Clone)]
pub struct HookFn<F> {
    stages: Stages,
    priority: Priority,
    hook: F,
}

impl<F> HookFn<F> {
    /// With another priority than [`Priority::NORMAL`].
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }
}

impl<F> Hook for HookFn<F>
where
    F: FnMut(Stage, &mut Run<'_>) -> CallbackResult + Send + 'static,
{
    fn stages(&self) -> Stages {
        self.stages
    }

    fn on_stage(&mut self, stage: Stage, run: &mut Run<'_>) -> CallbackResult {
        (self.hook)(stage, run)
    }

    fn priority(&self) -> Priority {
        self.priority
    }
}

/// User data of a hook.
pub(crate) struct HookData<H> {
    hook: H,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

impl<H: Hook> HookData<H> {
    pub(crate) fn new(hook: H, shared: Arc<Shared>) -> Self {
        HookData { hook, shared, buffer: Vec::new() }
    }

    pub(crate) fn callbacks(&mut self) -> sys::grapnel_hook_callbacks {
        let (save_state, load_state) = state::callbacks(self);
        sys::grapnel_hook_callbacks {
            struct_size: mem::size_of::<sys::grapnel_hook_callbacks>(),
            stages: self.hook.stages().bits(),
            priority: self.hook.priority().to_c(),
            on_stage: Some(on_stage::<H>),
            save_state,
            load_state,
            destroy: Some(destroy::<Self>),
        }
    }
}

impl<H: Hook> MayHaveState for HookData<H> {
    fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn state(&mut self) -> Option<(&mut dyn State, &mut Vec<u8>)> {
        Some((self.hook.state()?, &mut self.buffer))
    }
}

unsafe extern "C" fn on_stage<H: Hook>(
    user_data: *mut c_void,
    stage: sys::grapnel_stage,
    run: *mut sys::grapnel_run,
) -> *mut sys::grapnel_status {
    // SAFETY: user data is this, and calls with it come one at a time.
    let HookData { hook, shared, .. } = unsafe { &mut *user_data.cast::<HookData<H>>() };
    let Some(stage) = Stage::from_c(stage) else {
        // None that wasn't asked for.
        return std::ptr::null_mut();
    };
    let body = || {
        // SAFETY: the run lives for this call, in which nobody else has it.
        let mut run = unsafe { Run::new(run, shared, PhantomData) };
        hook.on_stage(stage, &mut run)
    };
    let status = if stage == Stage::OnError { call_logged(body) } else { call(shared, body) };
    shared.lent.clear();
    status
}
