//! An iteration allocates nothing on our side of the border.

mod runs;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use grapnel::{
    hook_fn, Access, CallbackResult, Hook, Metric, Mode, Run, ScalarsRef, Stage, Stages, State,
    SyncDataset, TensorsRef,
};

use runs::{sample, without_data, TempDir, SAMPLES};

/// Counts what Rust allocates; C++ has an allocator of its own.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as our caller promises, here and below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Batches;

impl SyncDataset for Batches {
    fn len(&self) -> usize {
        SAMPLES
    }

    fn access(&self) -> Access {
        Access::Batches
    }

    fn get_batch(&self, indices: &[usize], batch: &mut TensorsRef) -> CallbackResult {
        let inputs = batch.insert_zeros::<f32>("input", &[indices.len(), 2])?;
        for (input, &index) in inputs.chunks_exact_mut(2).zip(indices) {
            input.copy_from_slice(&sample(index).0);
        }
        let targets = indices.iter().map(|&index| sample(index).1);
        batch.insert_from_iter("target", &[indices.len(), 1], targets)?;
        Ok(())
    }
}

/// Looks at what there is.
struct Looker(f64);

impl Hook for Looker {
    fn stages(&self) -> Stages {
        Stages::ALL
    }

    fn on_stage(&mut self, stage: Stage, run: &mut Run<'_>) -> CallbackResult {
        match stage {
            Stage::BeforeTrainIter => {
                let input = run.batch()?.require("input")?.data::<f32>()?;
                self.0 += f64::from(input.iter().sum::<f32>());
            }
            Stage::AfterTrainIter => {
                self.0 += run.log_vars()?.get("loss").unwrap_or(f64::NAN);
                self.0 += run.scalar("train/loss")?;
                run.add_scalar("train/looked", self.0)?;
                self.0 += f64::from(run.tensor("0.bias")?.data::<f32>()?[0]);
            }
            Stage::AfterValIter => {
                self.0 += f64::from(run.predictions()?.require("output")?.data::<f32>()?[0]);
            }
            _ => {}
        }
        Ok(())
    }

    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

impl State for Looker {
    fn save(&mut self, to: &mut Vec<u8>) -> CallbackResult {
        to.extend(self.0.to_le_bytes());
        Ok(())
    }

    fn load(&mut self, _from: &[u8]) -> CallbackResult {
        Ok(())
    }
}

struct Outputs(f64);

impl Metric for Outputs {
    fn reset(&mut self) -> CallbackResult {
        self.0 = 0.0;
        Ok(())
    }

    fn process(&mut self, predictions: &TensorsRef, _batch: &TensorsRef) -> CallbackResult {
        let outputs = predictions.require("output")?.data::<f32>()?;
        self.0 += f64::from(outputs.iter().sum::<f32>());
        Ok(())
    }

    fn compute(&mut self, metrics: &mut ScalarsRef) -> CallbackResult {
        metrics.insert("sum", self.0)?;
        Ok(())
    }
}

#[test]
fn steps_validations_and_saves_allocate_nothing() {
    let dir = TempDir::new();
    let mut runner = without_data(&dir)
        .sync_dataset(Mode::Train, Batches)
        .sync_dataset(Mode::Val, Batches)
        .sync_dataset(Mode::Test, Batches)
        .set("train_cfg.max_epochs=6")
        .log(|_, _| {})
        .hook("looker", Looker(0.0))
        .hook("nothing", hook_fn(Stage::AfterTrainIter, |_, _| Ok(())))
        .metric(Mode::Val, Outputs(0.0))
        .build()
        .unwrap();
    // The first epoch makes buffers that are kept.
    let iters = SAMPLES / 4;
    for _ in 0..iters {
        assert!(runner.step().unwrap());
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in iters..5 * iters {
        assert!(runner.step().unwrap());
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
}
