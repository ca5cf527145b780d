//! Training to the end, by steps, in part, twice at once, and again.

mod runs;

use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use grapnel::{
    hook_fn, Checkpoint, Code, Mode, Predictor, PredictorWeights, Runner, Stage, StopAt, Tensor,
    Tensors,
};

use runs::{sample, small, weights, without_data, Plane, TempDir, ITERS, SAMPLES};

fn trained() -> Vec<(String, Vec<u32>)> {
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    runner.train().unwrap();
    weights(&runner)
}

#[test]
fn any_mixture_of_train_and_steps_is_the_same_run() {
    let expected = trained();
    for steps in [1, 5, 8, ITERS, ITERS + 3] {
        let dir = TempDir::new();
        let mut runner = small(&dir).build().unwrap();
        let mut more = true;
        for _ in 0..steps {
            if more {
                more = runner.step().unwrap();
            }
        }
        assert_eq!(more, steps < ITERS);
        if more {
            runner.train().unwrap();
        }
        assert_eq!(runner.iter(), ITERS);
        assert_eq!(weights(&runner), expected, "{steps} steps");
    }
}

#[test]
fn steps_are_an_iterator() {
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    let mut steps = runner.steps();
    let first = steps.next().unwrap().unwrap();
    assert_eq!((first.epoch, first.iter), (0, 1));
    assert!(steps.runner().scalar("train/loss").unwrap() > 0.0);
    let iters: Vec<i64> = steps.map(|step| step.unwrap().iter).collect();
    assert_eq!(iters, (2..=ITERS).collect::<Vec<_>>());
    assert_eq!(runner.epoch(), 3);
    assert_eq!(runner.steps().count(), 0);
    assert_eq!(weights(&runner), trained());
}

#[test]
fn a_run_that_was_dropped_resumes() {
    let expected = trained();
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    for step in runner.steps().take(11) {
        step.unwrap();
    }
    runner.save("iter_11").unwrap();
    drop(runner);
    let mut runner = small(&dir).set("resume=true").build().unwrap();
    runner.train().unwrap();
    assert_eq!(weights(&runner), expected);
}

#[test]
fn two_runs_at_once_are_those_of_each_alone() {
    let expected = trained();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            thread::spawn(|| {
                let dir = TempDir::new();
                let mut runner = small(&dir).build().unwrap();
                runner.train().unwrap();
                weights(&runner)
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
}

#[test]
fn a_runner_may_go_from_thread_to_thread() {
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    for _ in 0..ITERS {
        runner = thread::spawn(move || {
            runner.step().unwrap();
            runner
        })
        .join()
        .unwrap();
    }
    assert_eq!(weights(&runner), trained());
}

#[test]
fn another_thread_stops_it() {
    let dir = TempDir::new();
    let (send, receive) = mpsc::channel();
    let mut runner = small(&dir)
        .set("train_cfg.max_epochs=1000000")
        .hook(
            "tell",
            hook_fn(Stage::AfterTrainIter, move |_, run| {
                let _ = send.send(run.iter());
                Ok(())
            }),
        )
        .build()
        .unwrap();
    assert_eq!(runner.stop_reason().unwrap(), None);
    let handle = runner.stop_handle();
    let other = handle.clone();
    let stopper = thread::spawn(move || {
        receive.recv().unwrap();
        other.request_stop(StopAt::Now, "enough").unwrap();
    });
    runner.train().unwrap();
    stopper.join().unwrap();
    assert_eq!(runner.stop_reason().unwrap().as_deref(), Some("enough"));
    let iters = runner.iter();
    assert!(iters >= 1);
    let latest = Checkpoint::latest(dir.path()).unwrap();
    assert_eq!(Checkpoint::open(latest).unwrap().iter(), iters);
    drop(runner);
    let error = handle.request_stop(StopAt::AfterEpoch, "too late").unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(error.message(), "runner: is gone");
}

#[test]
fn a_hook_stops_it_after_the_epoch() {
    let dir = TempDir::new();
    let hook = hook_fn(Stage::AfterTrainIter, |_, run| {
        run.request_stop(StopAt::AfterEpoch, "one is enough")?;
        Ok(())
    });
    let mut runner = small(&dir).hook("stop", hook).build().unwrap();
    runner.train().unwrap();
    assert_eq!((runner.epoch(), runner.iter()), (1, ITERS / 3));
}

#[test]
fn a_time_ends_it() {
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    let past = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert!(runner.train_until(past).unwrap());
    assert!(runner.iter() < ITERS);
    assert!(!runner.train_until(SystemTime::now() + Duration::from_secs(3600)).unwrap());
    assert_eq!(runner.iter(), ITERS);
    assert_eq!(weights(&runner), trained());
}

#[test]
fn a_runner_tells_of_its_run() {
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    runner.train().unwrap();
    assert_eq!(runner.work_dir().unwrap(), dir.path());
    assert_eq!(runner.config().unwrap().train_cfg.unwrap().max_epochs, Some(3));
    assert!(runner.config_text().unwrap().contains("max_epochs: 3"));
    assert!(runner.config_json().unwrap().contains("\"max_epochs\""));
    assert!(runner.stage_table().unwrap().contains("after_train_iter"));
    let names = runner.scalar_names().unwrap();
    assert!(names.iter().any(|name| name == "train/lr"), "{names:?}");
    assert_eq!(runner.scalar("train/lr").unwrap(), 0.01);
    assert_eq!(runner.scalar("train/nothing").unwrap_err().code(), Code::NotFound);
    assert!(!runner.info("experiment_name").unwrap().is_empty());
    assert_eq!(runner.info("nothing").unwrap_err().code(), Code::NotFound);
    assert_eq!(
        runner.tensor_names().unwrap(),
        ["0.weight", "0.bias", "3.weight", "3.bias"].map(str::to_owned)
    );
    assert!(format!("{runner:?}").contains("iter: 24"), "{runner:?}");
}

// With others: //tests/bindings:ranks_test.
#[test]
fn a_process_alone_is_rank_zero_of_one() {
    for launcher in ["none", "auto"] {
        let dir = TempDir::new();
        let seen = Arc::new(Mutex::new(None));
        let place = Arc::clone(&seen);
        let hook = hook_fn(Stage::AfterTrain, move |_, run| {
            *place.lock().unwrap() = Some((run.rank(), run.world_size(), run.is_master()));
            Ok(())
        });
        let mut runner =
            small(&dir).set(&format!("launcher={launcher}")).hook("looks", hook).build().unwrap();
        runner.train().unwrap();
        assert_eq!(*seen.lock().unwrap(), Some((0, 1, true)), "{launcher}");
        assert_eq!((runner.rank(), runner.local_rank(), runner.world_size()), (0, 0, 1));
        assert!(runner.is_master());
    }
    let dir = TempDir::new();
    let error = small(&dir).set("launcher=torchrun").build().unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.to_string().contains("launcher: WORLD_SIZE: is missing"), "{error}");
}

#[test]
fn evaluations_have_numbers() {
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    let mse = runner.val().unwrap().get("mse").unwrap();
    let mae = runner.test().unwrap().get("mae").unwrap();
    runner.train().unwrap();
    assert!(runner.val().unwrap().get("mse").unwrap() < mse);
    assert!(runner.test().unwrap().get("mae").unwrap() < mae);
    // Its layers are in no file of their own.
    let error = runner.export(dir.path().join("model.pt")).unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
}

#[test]
fn weights_can_be_read_and_set() {
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    let mut bias = runner.tensor("3.bias").unwrap();
    bias.data_mut::<f32>().unwrap()[0] = 7.0;
    assert_ne!(runner.tensor("3.bias").unwrap().item::<f32>().unwrap(), 7.0);
    runner.set_tensor("3.bias", &bias).unwrap();
    assert_eq!(runner.tensor("3.bias").unwrap().item::<f32>().unwrap(), 7.0);
    assert_eq!(runner.tensor("4.bias").unwrap_err().code(), Code::NotFound);
    let wrong = Tensor::from_slice(&[1.0f32, 2.0], &[2]).unwrap();
    assert_eq!(runner.set_tensor("3.bias", &wrong).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn tensors_in_memory_are_a_dataset() {
    let dir = TempDir::new();
    let data = || {
        let samples: Vec<_> = (0..SAMPLES).map(sample).collect();
        let inputs: Vec<f32> = samples.iter().flat_map(|(input, _)| *input).collect();
        let targets: Vec<f32> = samples.iter().map(|(_, target)| *target).collect();
        Tensors::from_named([
            ("input", Tensor::from_vec(inputs, &[SAMPLES, 2]).unwrap()),
            ("target", Tensor::from_vec(targets, &[SAMPLES, 1]).unwrap()),
        ])
        .unwrap()
    };
    let mut runner = without_data(&dir)
        .tensors(Mode::Train, data())
        .tensors(Mode::Val, data())
        .tensors(Mode::Test, data())
        .build()
        .unwrap();
    runner.train().unwrap();
    assert_eq!(weights(&runner), trained());
}

#[test]
fn predictors_predict_what_validation_sees() {
    let dir = TempDir::new();
    let mut runner = small(&dir).build().unwrap();
    let early = runner.predictor(PredictorWeights::Trained, 2);
    assert_eq!(early.map(|predictor| predictor.iter()).unwrap(), 0);
    runner.train().unwrap();
    let predictor = runner.predictor(PredictorWeights::Evaluated, 2).unwrap();
    assert_eq!(predictor.iter(), ITERS);
    let inputs: Vec<f32> = (0..4).flat_map(|index| sample(index).0).collect();
    let expected = {
        let inputs = Tensor::from_slice(&inputs, &[4, 2]).unwrap();
        predictor.predict(&inputs).unwrap().to_vec::<f32>().unwrap()
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let inputs = Tensor::from_slice(&inputs, &[4, 2]).unwrap();
                for _ in 0..20 {
                    let outputs = predictor.predict(&inputs).unwrap();
                    assert_eq!(outputs.shape(), [4, 1]);
                    assert_eq!(outputs.data::<f32>().unwrap(), expected);
                }
                predictor.refresh().unwrap();
            });
        }
    });
    let wrong = Tensor::from_slice(&[0.0f32; 3], &[1, 3]).unwrap();
    assert_eq!(predictor.predict(&wrong).unwrap_err().code(), Code::InvalidArgument);
    drop(runner);
    assert_eq!(predictor.refresh().unwrap_err().code(), Code::FailedPrecondition);

    let saved = Predictor::open(dir.path(), PredictorWeights::Averaged, 1).unwrap();
    let inputs = Tensor::from_slice(&inputs, &[4, 2]).unwrap();
    assert_eq!(saved.predict(&inputs).unwrap().data::<f32>().unwrap(), expected);
    assert!(format!("{saved:?}").contains("iter: 24"));
    let none = Predictor::open(dir.path().join("nowhere"), PredictorWeights::Trained, 1);
    assert_eq!(none.unwrap_err().code(), Code::NotFound);
    let many = Predictor::open(dir.path(), PredictorWeights::Trained, u32::MAX);
    assert_eq!(many.unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn a_second_training_in_the_folder_is_refused() {
    let dir = TempDir::new();
    let mut first = small(&dir).build().unwrap();
    first.step().unwrap();
    let error = small(&dir)
        .wait_for_lock(Duration::from_millis(10))
        .build()
        .and_then(|mut second| second.train())
        .unwrap_err();
    assert_eq!(error.code(), Code::Aborted, "{error}");
    // One that isn't trained may read beside it.
    let mut beside = small(&dir).for_training(false).build().unwrap();
    beside.val().unwrap();
}

#[test]
fn a_dataset_that_is_missing_is_named() {
    let dir = TempDir::new();
    let builder = without_data(&dir).dataset(Mode::Train, Plane);
    let error = builder.build().map(|_: Runner| ()).unwrap_err();
    assert!(error.message().contains("val_dataloader"), "{error}");
}
