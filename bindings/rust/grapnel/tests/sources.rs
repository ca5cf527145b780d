//! What an error has as its source: what a callback of that call failed with, and nothing else.

mod runs;

use std::error::Error as _;

use grapnel::{
    hook_fn, Access, CallbackResult, Code, Dataset, Error, Mode, Stage, SyncDataset, TensorsRef,
};

use runs::failing::Planned;
use runs::{small, with_data_of, without_data, Plane, TempDir, SAMPLES};

fn planned(error: &Error) -> Option<&Planned> {
    error.source().and_then(|source| source.downcast_ref())
}

/// Can't give batches, and says so in the words of another error.
struct NoBatches;

impl SyncDataset for NoBatches {
    fn len(&self) -> usize {
        SAMPLES
    }
    fn access(&self) -> Access {
        Access::Both
    }
    fn get(&self, index: usize, to: &mut TensorsRef) -> CallbackResult {
        Plane.get(index, to)
    }
    fn get_batch(&self, _: &[usize], _: &mut TensorsRef) -> CallbackResult {
        Err("\"nowhere\"".into())
    }
}

#[test]
fn a_batch_that_was_read_sample_by_sample_explains_nothing() {
    for workers in [0, 2] {
        let dir = TempDir::new();
        let mut runner = without_data(&dir)
            .set(&format!("train_dataloader.num_workers={workers}"))
            .sync_dataset(Mode::Train, NoBatches)
            .dataset(Mode::Val, Plane)
            .dataset(Mode::Test, Plane)
            .build()
            .unwrap();
        runner.train().unwrap();
        for error in [
            runner.info("nowhere").unwrap_err(),
            runner.scalar("nowhere").unwrap_err(),
            runner.tensor("nowhere").unwrap_err(),
            runner.save("a/b").unwrap_err(),
        ] {
            assert!(error.source().is_none(), "{error:?}");
        }
    }
}

#[test]
fn what_is_only_logged_explains_nothing() {
    let dir = TempDir::new();
    let mut calls = 0;
    let hook = hook_fn(Stage::AfterTrainIter | Stage::OnError, move |stage, _| match stage {
        Stage::OnError => Err("number 3".into()),
        _ => {
            calls += 1;
            if calls < 3 {
                return Err(Planned(3).into());
            }
            Ok(())
        }
    });
    let mut runner = small(&dir).hook("bad", hook).build().unwrap();
    for _ in 0..2 {
        let error = runner.train().unwrap_err();
        assert_eq!(planned(&error), Some(&Planned(3)), "{error:?}");
    }
    runner.train().unwrap();
}

#[test]
fn a_caller_that_handles_an_error_does_not_explain_the_next() {
    // Both say the same, one of them from outside.
    let dir = TempDir::new();
    let hook = hook_fn(Stage::AfterTrainIter, |_, run| {
        let error = run.scalar("nowhere").unwrap_err();
        assert!(error.source().is_none());
        Err(error.into())
    });
    let mut runner = small(&dir).hook("curious", hook).build().unwrap();
    let error = runner.step().unwrap_err();
    assert!(error.source().unwrap().is::<Error>());
    let error = runner.scalar("nowhere").unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.source().is_none(), "{error:?}");
}

/// Fails at the last sample, on a thread of the library's, ahead of the iteration.
struct Last;

impl Dataset for Last {
    fn len(&self) -> usize {
        SAMPLES
    }
    fn get(&mut self, index: usize, to: &mut TensorsRef) -> CallbackResult {
        if index == SAMPLES - 1 {
            return Err(Planned(31).into());
        }
        Plane.get(index, to)
    }
}

#[test]
fn a_loader_that_failed_calls_ago_is_the_source_of_the_step_that_needs_it() {
    let dir = TempDir::new();
    let mut runner = with_data_of(&dir, Last)
        .set("train_dataloader.sampler.shuffle=false")
        .set("train_dataloader.num_workers=1")
        .set("train_dataloader.prefetch_factor=8")
        .build()
        .unwrap();
    let batches = SAMPLES / 4;
    for _ in 0..batches - 1 {
        runner.step().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let error = runner.step().unwrap_err();
    assert_eq!(planned(&error), Some(&Planned(31)), "{error:?}");
}
