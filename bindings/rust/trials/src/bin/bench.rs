//! What the border costs: one line of JSON with nanoseconds, medians of runs that take turns.
//!
//! * `step`: an iteration of a run with nothing in it.
//! * `bare_hook`, `hook`: a hook that does nothing, as a function of C's by grapnel-sys and as a
//!   [`Hook`](grapnel::Hook); what an iteration with many of them takes longer, by their number.
//! * `bare_batch`, `batch`: an iteration whose batch of 64 comes by `get_batch`, of the same two.

use std::ffi::{c_void, CStr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs, mem, process, ptr, slice};

use grapnel::{
    hook_fn, Access, CallbackResult, Mode, Runner, Stage, SyncDataset, Tensor, Tensors, TensorsRef,
};
use grapnel_sys as sys;

const HOOKS: usize = 500;
const BATCH: usize = 64;
const FEATURES: usize = 64;
const ROUNDS: usize = 400;
const STEPS: usize = 50;

fn main() -> ExitCode {
    let dir = env::temp_dir().join(format!("grapnel_bench_{}", process::id()));
    let result = run(&dir);
    let removed = fs::remove_dir_all(&dir);
    match result.and(removed.map_err(Into::into)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path) -> CallbackResult {
    let config = |name: &str| config(&dir.join(name));
    let mut runs: Vec<Box<dyn FnMut() -> CallbackResult>> = vec![
        steps_of(safe(&config("empty"), Data::Tensors, 0)?),
        steps_of_bare(bare(&config("bare_hooks"), Data::Tensors, HOOKS)?),
        steps_of(safe(&config("hooks"), Data::Tensors, HOOKS)?),
        steps_of_bare(bare(&config("bare_batch"), Data::Batches, 0)?),
        steps_of(safe(&config("batch"), Data::Batches, 0)?),
    ];
    let mut times = vec![Vec::with_capacity(ROUNDS); runs.len()];
    for _ in 0..ROUNDS {
        for (run, times) in runs.iter_mut().zip(&mut times) {
            let begin = Instant::now();
            for _ in 0..STEPS {
                run()?;
            }
            times.push(begin.elapsed().as_nanos() as f64 / STEPS as f64);
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    let [step, bare_hooks, hooks, bare_batch, batch] = medians[..] else {
        return Err("there are five runs".into());
    };
    let of_each = |with_hooks: f64| (with_hooks - step) / HOOKS as f64;
    println!(
        "{{\"step\": {step:.0}, \"bare_hook\": {:.1}, \"hook\": {:.1}, \
         \"bare_batch\": {bare_batch:.0}, \"batch\": {batch:.0}}}",
        of_each(bare_hooks),
        of_each(hooks),
    );
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn steps_of(mut runner: Runner) -> Box<dyn FnMut() -> CallbackResult> {
    Box::new(move || {
        runner.step()?;
        Ok(())
    })
}

fn steps_of_bare(mut runner: Bare) -> Box<dyn FnMut() -> CallbackResult> {
    Box::new(move || runner.step())
}

/// One layer, and no hook of the library's.
fn config(work_dir: &Path) -> String {
    format!(
        "work_dir: \"{}\"
         model {{ sequential {{ layers {{ linear {{ out_features: 1 }} }} loss {{ mse {{}} }} }} }}
         train_dataloader {{ batch_size: {BATCH} }}
         train_cfg {{ by_epoch: false max_iters: 1000000000 }}
         optim_wrapper {{ optimizer {{ sgd {{ lr: 0 }} }} }}
         default_hooks {{
           off: \"runtime_info\" off: \"timer\" off: \"sampler_seed\" off: \"logger\"
           off: \"param_scheduler\" off: \"checkpoint\"
         }}
         randomness {{ seed: 1 }}",
        work_dir.display()
    )
}

/// Where batches come from.
#[derive(Clone, Copy, PartialEq)]
enum Data {
    Tensors,
    Batches,
}

const SAMPLES: usize = 16 * BATCH;

// ------------------------------------------------------- by the safe crate

struct Batches;

impl SyncDataset for Batches {
    fn len(&self) -> usize {
        SAMPLES
    }

    fn access(&self) -> Access {
        Access::Batches
    }

    fn get_batch(&self, indices: &[usize], batch: &mut TensorsRef) -> CallbackResult {
        batch.insert_rows("input", &[indices.len(), FEATURES], indices.iter().map(|&i| row(i)))?;
        batch.insert_from_iter("target", &[indices.len(), 1], indices.iter().map(|_| 1.0f32))?;
        Ok(())
    }
}

static TABLE: [f32; SAMPLES * FEATURES] = [0.5; SAMPLES * FEATURES];

fn row(index: usize) -> &'static [f32] {
    &TABLE[index * FEATURES..(index + 1) * FEATURES]
}

fn safe(config: &str, data: Data, hooks: usize) -> CallbackResult<Runner> {
    let mut builder = Runner::builder().config_text(config).log(|_, _| {});
    builder = match data {
        Data::Batches => builder.sync_dataset(Mode::Train, Batches),
        Data::Tensors => builder.tensors(
            Mode::Train,
            Tensors::from_named([
                ("input", Tensor::zeros::<f32>(&[SAMPLES, FEATURES])?),
                ("target", Tensor::zeros::<f32>(&[SAMPLES, 1])?),
            ])?,
        ),
    };
    for number in 0..hooks {
        let nothing = hook_fn(Stage::AfterTrainIter, |_, _| Ok(()));
        builder = builder.hook(&format!("hook{number}"), nothing);
    }
    Ok(builder.build()?)
}

// ----------------------------------------------------------- by grapnel-sys

/// A runner of C's.
struct Bare(*mut sys::grapnel_runner);

impl Bare {
    fn step(&mut self) -> CallbackResult {
        // SAFETY: it is a runner, and nobody else's.
        check(unsafe { sys::grapnel_runner_step(self.0, ptr::null_mut()) })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // SAFETY: it is ours.
        unsafe { sys::grapnel_runner_destroy(self.0) }
    }
}

fn check(status: *mut sys::grapnel_status) -> CallbackResult {
    if status.is_null() {
        return Ok(());
    }
    // SAFETY: it is a status of ours; the message is copied before it goes.
    unsafe {
        let message =
            CStr::from_ptr(sys::grapnel_status_message(status)).to_string_lossy().into_owned();
        sys::grapnel_status_destroy(status);
        Err(message.into())
    }
}

unsafe extern "C" fn do_nothing(
    _user_data: *mut c_void,
    _stage: sys::grapnel_stage,
    _run: *mut sys::grapnel_run,
) -> *mut sys::grapnel_status {
    ptr::null_mut()
}

unsafe extern "C" fn get_batch(
    _user_data: *mut c_void,
    indices: *const i64,
    count: usize,
    batch: *mut sys::grapnel_tensors,
) -> *mut sys::grapnel_status {
    let add_new = |name: &str, shape: [i64; 2], data: *mut *mut c_void| {
        // SAFETY: the batch is ours for this call; name and shape are as long as they say.
        unsafe {
            sys::grapnel_tensors_add_new(
                batch,
                name.as_ptr().cast(),
                name.len(),
                sys::GRAPNEL_FLOAT32,
                shape.as_ptr(),
                2,
                data,
            )
        }
    };
    let (mut inputs, mut targets) = (ptr::null_mut(), ptr::null_mut());
    let status = add_new("input", [count as i64, FEATURES as i64], &mut inputs);
    if !status.is_null() {
        return status;
    }
    let status = add_new("target", [count as i64, 1], &mut targets);
    if !status.is_null() {
        return status;
    }
    // SAFETY: this is memory for that many numbers, which are all written.
    unsafe {
        let indices = slice::from_raw_parts(indices.cast::<usize>(), count);
        let inputs = inputs.cast::<f32>();
        for (number, &index) in indices.iter().enumerate() {
            let row = row(index);
            ptr::copy_nonoverlapping(row.as_ptr(), inputs.add(number * FEATURES), row.len());
        }
        for row in 0..count {
            targets.cast::<f32>().add(row).write(1.0);
        }
    }
    ptr::null_mut()
}

unsafe extern "C" fn no_line(
    _user_data: *mut c_void,
    _severity: sys::grapnel_severity,
    _message: *const std::ffi::c_char,
    _message_size: usize,
) {
}

fn bare(config: &str, data: Data, hooks: usize) -> CallbackResult<Bare> {
    let mut options = ptr::null_mut();
    // SAFETY: all is as long as it says, and callbacks need no user data.
    unsafe {
        check(sys::grapnel_runner_options_create(&mut options))?;
        let made = make_bare(options, config, data, hooks);
        sys::grapnel_runner_options_destroy(options);
        made
    }
}

/// # Safety
///
/// These are options.
unsafe fn make_bare(
    options: *mut sys::grapnel_runner_options,
    config: &str,
    data: Data,
    hooks: usize,
) -> CallbackResult<Bare> {
    // SAFETY: all is as long as it says, and callbacks need no user data.
    unsafe {
        check(sys::grapnel_runner_options_set_config(
            options,
            config.as_ptr().cast(),
            config.len(),
            sys::GRAPNEL_TEXT,
        ))?;
        check(sys::grapnel_runner_options_set_log_callback(
            options,
            Some(no_line),
            ptr::null_mut(),
        ))?;
        if data == Data::Tensors {
            set_tensors(options)?;
        } else {
            let dataset = sys::grapnel_dataset_callbacks {
                struct_size: mem::size_of::<sys::grapnel_dataset_callbacks>(),
                size: SAMPLES as i64,
                thread_safe: 1,
                get_batch: Some(get_batch),
                ..Default::default()
            };
            let none = ptr::null_mut();
            check(sys::grapnel_runner_options_set_dataset(options, 0, &dataset, none))?;
        }
        for number in 0..hooks {
            let name = format!("hook{number}");
            let hook = sys::grapnel_hook_callbacks {
                struct_size: mem::size_of::<sys::grapnel_hook_callbacks>(),
                stages: 1 << sys::GRAPNEL_AFTER_TRAIN_ITER,
                priority: 50,
                on_stage: Some(do_nothing),
                ..Default::default()
            };
            let none = ptr::null_mut();
            let text = (name.as_ptr().cast(), name.len());
            check(sys::grapnel_runner_options_add_hook(options, text.0, text.1, &hook, none))?;
        }
        let mut runner = ptr::null_mut();
        check(sys::grapnel_runner_create(options, &mut runner))?;
        Ok(Bare(runner))
    }
}

/// # Safety
///
/// These are options.
unsafe fn set_tensors(options: *mut sys::grapnel_runner_options) -> CallbackResult {
    let mut tensors = ptr::null_mut();
    // SAFETY: all is as long as it says; the elements are written before they are read.
    unsafe {
        check(sys::grapnel_tensors_create(&mut tensors))?;
        for (name, width) in [("input", FEATURES), ("target", 1)] {
            let shape = [SAMPLES as i64, width as i64];
            let zeros = vec![0.0f32; SAMPLES * width];
            check(sys::grapnel_tensors_add_copy(
                tensors,
                name.as_ptr().cast(),
                name.len(),
                sys::GRAPNEL_FLOAT32,
                shape.as_ptr(),
                2,
                zeros.as_ptr().cast(),
                mem::size_of_val(&zeros[..]),
            ))?;
        }
        let status = sys::grapnel_runner_options_set_tensors(options, 0, tensors);
        sys::grapnel_tensors_destroy(tensors);
        check(status)
    }
}
