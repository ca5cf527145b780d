//! Datasets and streams of callbacks.

mod runs;

use grapnel::{
    Access, Builder, CallbackResult, Code, Dataset, Mode, State, Stream, SyncDataset, TensorsRef,
};

use runs::failing::{fails, Way};
use runs::{sample, small, weights, without_data, Plane, TempDir, SAMPLES};

struct Bad {
    way: Way,
    access: Access,
}

impl Dataset for Bad {
    fn len(&self) -> usize {
        SAMPLES
    }
    fn access(&self) -> Access {
        self.access
    }
    fn get(&mut self, _: usize, _: &mut TensorsRef) -> CallbackResult {
        self.way.go()
    }
    fn get_batch(&mut self, _: &[usize], _: &mut TensorsRef) -> CallbackResult {
        self.way.go()
    }
}

/// For others to be added.
fn with_evaluation_data(dir: &TempDir) -> Builder {
    without_data(dir).dataset(Mode::Val, Plane).dataset(Mode::Test, Plane)
}

fn with_workers(dir: &TempDir) -> Builder {
    with_evaluation_data(dir).set("train_dataloader.num_workers=2")
}

#[test]
fn a_dataset_fails() {
    for (access, method) in [
        (Access::Samples, ": get: "),
        (Access::Batches, ": get_batch: "),
        (Access::Both, ": get: "),
    ] {
        let add = |builder: Builder, way| builder.dataset(Mode::Train, Bad { way, access });
        fails(method, add, with_evaluation_data);
        fails(method, add, with_workers);
    }
}

/// Batches, by the memory of the library's; and samples, for the shape.
struct Batches;

impl SyncDataset for Batches {
    fn len(&self) -> usize {
        SAMPLES
    }
    fn access(&self) -> Access {
        Access::Both
    }
    fn get(&self, index: usize, to: &mut TensorsRef) -> CallbackResult {
        Plane.get(index, to)
    }
    fn get_batch(&self, indices: &[usize], to: &mut TensorsRef) -> CallbackResult {
        let inputs = to.insert_zeros::<f32>("input", &[indices.len(), 2])?;
        for (input, &index) in inputs.chunks_exact_mut(2).zip(indices) {
            input.copy_from_slice(&sample(index).0);
        }
        let targets = indices.iter().map(|&index| sample(index).1);
        to.insert_from_iter("target", &[indices.len(), 1], targets)?;
        Ok(())
    }
}

#[test]
fn batches_are_the_samples() {
    let expected = {
        let dir = TempDir::new();
        let mut runner = small(&dir).build().unwrap();
        runner.train().unwrap();
        weights(&runner)
    };
    for workers in [0, 2] {
        let dir = TempDir::new();
        let mut runner = with_evaluation_data(&dir)
            .set(&format!("train_dataloader.num_workers={workers}"))
            .sync_dataset(Mode::Train, Batches)
            .build()
            .unwrap();
        runner.train().unwrap();
        assert_eq!(weights(&runner), expected);
    }
}

#[test]
fn a_dataset_that_forgot_its_access_says_so() {
    struct Forgot(Access);
    impl Dataset for Forgot {
        fn len(&self) -> usize {
            4
        }
        fn access(&self) -> Access {
            self.0
        }
    }
    struct SyncForgot(Access);
    impl SyncDataset for SyncForgot {
        fn len(&self) -> usize {
            4
        }
        fn access(&self) -> Access {
            self.0
        }
    }
    assert!(!Dataset::is_empty(&Forgot(Access::Samples)));
    assert!(!SyncDataset::is_empty(&SyncForgot(Access::Samples)));
    for (access, method) in [(Access::Samples, "no get,"), (Access::Batches, "no get_batch,")] {
        let dir = TempDir::new();
        let failure =
            |builder: Builder| builder.build().and_then(|mut runner| runner.train()).unwrap_err();
        let error = failure(with_evaluation_data(&dir).dataset(Mode::Train, Forgot(access)));
        assert_eq!(error.code(), Code::Unimplemented, "{error}");
        assert!(error.message().contains(method), "{error}");
        let error =
            failure(with_evaluation_data(&dir).sync_dataset(Mode::Train, SyncForgot(access)));
        assert!(error.message().contains(method), "{error}");
    }
}

/// Counts up, in passes of 40.
struct Counter {
    next: u64,
    way: Option<Way>,
}

impl Stream for Counter {
    fn begin_pass(&mut self, _pass: u64) -> CallbackResult {
        self.next = 0;
        Ok(())
    }
    fn next(&mut self, to: &mut TensorsRef) -> CallbackResult {
        if let Some(way) = self.way {
            way.go()?;
        }
        if self.next < 40 {
            Plane.get(self.next as usize % SAMPLES, to)?;
            self.next += 1;
        }
        Ok(())
    }
    fn state(&mut self) -> Option<&mut dyn State> {
        Some(self)
    }
}

impl State for Counter {
    fn save(&mut self, to: &mut Vec<u8>) -> CallbackResult {
        to.extend(self.next.to_le_bytes());
        Ok(())
    }
    fn load(&mut self, from: &[u8]) -> CallbackResult {
        self.next = u64::from_le_bytes(from.try_into()?);
        Ok(())
    }
}

fn for_a_stream(dir: &TempDir) -> Builder {
    let config = runs::CONFIG
        .replace("train_cfg { max_epochs: 3 }", "train_cfg { by_epoch: false max_iters: 30 }")
        .replace("batch_size: 4 sampler { shuffle: true }", "batch_size: 4 num_workers: 1");
    with_evaluation_data(dir).config_text(&config)
}

#[test]
fn a_stream_is_trained_and_resumed() {
    let stream = || Counter { next: 0, way: None };
    let dir = TempDir::new();
    let mut runner = for_a_stream(&dir).stream(stream()).build().unwrap();
    runner.train().unwrap();
    let expected = weights(&runner);

    let dir = TempDir::new();
    let mut runner = for_a_stream(&dir).stream(stream()).build().unwrap();
    for _ in 0..13 {
        runner.step().unwrap();
    }
    runner.save("iter_13").unwrap();
    drop(runner);
    let mut runner = for_a_stream(&dir).set("resume=true").stream(stream()).build().unwrap();
    runner.train().unwrap();
    assert_eq!(weights(&runner), expected);
}

#[test]
fn a_stream_fails() {
    let add = |builder: Builder, way| builder.stream(Counter { next: 0, way: Some(way) });
    fails("stream: pass 0: sample 0: next: ", add, for_a_stream);
}
