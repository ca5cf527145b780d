//! Hooks: what they are handed, what they keep, and what becomes of their errors and panics.

mod runs;

use std::error::Error as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{fmt, io};

use grapnel::{
    hook_fn, CallbackResult, Code, Error, Hook, Mode, Priority, Run, Severity, Stage, Stages, State,
};

use runs::failing::{check, fails, Way};
use runs::{small, weights, TempDir, ITERS};

#[test]
fn a_hook_fails() {
    fails(
        "hook \"bad\"",
        |builder, way| builder.hook("bad", hook_fn(Stage::AfterTrainIter, move |_, _| way.go())),
        small,
    );
}

#[test]
fn a_run_that_failed_goes_on() {
    let expected = {
        let dir = TempDir::new();
        let mut runner = small(&dir).build().unwrap();
        runner.train().unwrap();
        weights(&runner)
    };
    let dir = TempDir::new();
    let mut calls = 0;
    let hook = hook_fn(Stage::BeforeTrainIter, move |_, _| {
        calls += 1;
        if calls == 6 {
            return Err(io::Error::other("the disk is away").into());
        }
        Ok(())
    });
    let mut runner = small(&dir).hook("once", hook).build().unwrap();
    let error = runner.train().unwrap_err();
    let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.to_string(), "the disk is away");
    assert_eq!(runner.iter(), 5);
    runner.train().unwrap();
    assert_eq!(weights(&runner), expected);
}

#[test]
fn a_message_may_have_any_letters() {
    let dir = TempDir::new();
    let message = "line\nNUL \0 and \u{1f980}";
    let hook = hook_fn(Stage::AfterTrainIter, move |_, _| Err(message.into()));
    let error = small(&dir).hook("odd", hook).build().unwrap().train().unwrap_err();
    assert!(error.message().ends_with("line\nNUL \\0 and \u{1f980}"), "{error}");
    assert_eq!(error.source().unwrap().to_string(), message);
}

#[test]
fn the_code_of_an_error_of_ours_is_kept() {
    let dir = TempDir::new();
    let hook = hook_fn(Stage::AfterTrainIter, |_, run| {
        run.scalar("train/nothing")?;
        Ok(())
    });
    let error = small(&dir).hook("curious", hook).build().unwrap().train().unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let source = error.source().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(source.message(), "there is no history \"train/nothing\"");
    assert!(format!("{error:?}").contains("NotFound"), "{error:?}");
}

#[test]
fn an_error_may_say_nothing_or_panic_when_asked() {
    #[derive(Debug)]
    struct Silent;
    impl fmt::Display for Silent {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Ok(())
        }
    }
    impl std::error::Error for Silent {}
    #[derive(Debug)]
    struct Loud;
    impl fmt::Display for Loud {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("don't ask")
        }
    }
    impl std::error::Error for Loud {}

    let dir = TempDir::new();
    let mut runner = small(&dir)
        .hook("silent", hook_fn(Stage::BeforeTrainIter, |_, _| Err(Silent.into())))
        .build()
        .unwrap();
    let error = runner.step().unwrap_err();
    assert!(error.message().ends_with("error without a message"), "{error}");
    assert!(error.source().unwrap().is::<Silent>());
    drop(runner);

    let mut runner = small(&dir)
        .hook("loud", hook_fn(Stage::BeforeTrainIter, |_, _| Err(Loud.into())))
        .build()
        .unwrap();
    let error = runner.step().unwrap_err();
    assert!(error.is_panic(), "{error}");
    drop(runner);

    struct NoText;
    let mut runner = small(&dir)
        .hook("mute", hook_fn(Stage::BeforeTrainIter, |_, _| std::panic::panic_any(NoText)))
        .build()
        .unwrap();
    let payload = runner.step().unwrap_err().into_panic().unwrap();
    assert!(payload.is::<NoText>());
}

/// A hook that looks at everything, and counts.
struct Looker {
    seen: Arc<Mutex<Vec<Stage>>>,
    count: u64,
}

impl Hook for Looker {
    fn stages(&self) -> Stages {
        Stages::ALL
    }

    fn priority(&self) -> Priority {
        Priority::LOWEST
    }

    fn on_stage(&mut self, stage: Stage, run: &mut Run<'_>) -> CallbackResult {
        self.seen.lock().unwrap().push(stage);
        self.count += 1;
        let in_iter = run.batch_index().is_some();
        assert_eq!(run.num_batches().is_some(), in_iter);
        assert_eq!(run.batch().is_ok(), in_iter);
        assert_eq!(run.log_vars().is_ok(), stage == Stage::AfterTrainIter);
        let after_iter = matches!(stage, Stage::AfterValIter | Stage::AfterTestIter);
        assert_eq!(run.predictions().is_ok(), after_iter);
        let after_epoch = matches!(stage, Stage::AfterValEpoch | Stage::AfterTestEpoch);
        assert_eq!(run.metrics().is_ok(), after_epoch);
        assert_eq!(run.saved_path().is_ok(), stage == Stage::AfterSaveCheckpoint);
        assert_eq!(run.error().is_ok(), stage == Stage::OnError);
        assert_eq!((run.max_epochs(), run.max_iters()), (3, ITERS));
        assert!(format!("{run:?}").contains("mode"));
        match stage {
            Stage::AfterTrainIter => {
                assert_eq!(run.mode(), Mode::Train);
                assert!(run.is_training());
                let batch = run.batch()?;
                let input = batch.require("input")?;
                assert_eq!(input.shape(), [4, 2]);
                assert_eq!(input.data::<f32>()?.len(), 8);
                assert!(batch.require("inputs").unwrap_err().message().contains("\"input\""));
                let loss = run.log_vars()?.get("loss").unwrap();
                assert_eq!(run.scalar("train/loss")?, loss);
                run.add_scalar("train/twice", 2.0 * loss)?;
                let mut bias = run.tensor("3.bias")?;
                let value = bias.data::<f32>()?[0];
                assert_eq!(bias.to_vec::<f32>()?, [value]);
                bias.data_mut::<f32>()?[0] = value;
                bias.copy_from(&[value])?;
                assert_eq!((bias.shape(), bias.dtype()), (&[1][..], Some(grapnel::Dtype::Float32)));
            }
            Stage::AfterTrainEpoch if run.epoch() == 1 => run.save("extra")?,
            Stage::AfterValIter => assert_eq!(run.predictions()?.require("output")?.len(), 8),
            Stage::AfterValEpoch => assert!(run.metrics()?.get("mse").unwrap() > 0.0),
            Stage::AfterSaveCheckpoint => assert!(run.saved_path()?.is_dir()),
            Stage::AfterRun => run.log(Severity::Warning, "looked at everything")?,
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
        assert!(to.is_empty());
        to.extend(self.count.to_le_bytes());
        Ok(())
    }

    fn load(&mut self, from: &[u8]) -> CallbackResult {
        self.count = u64::from_le_bytes(from.try_into()?);
        Ok(())
    }
}

#[test]
fn a_hook_sees_what_there_is_and_keeps_a_state() {
    let dir = TempDir::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let mut runner = small(&dir)
        .log(move |severity, line| sink.lock().unwrap().push((severity, line.to_owned())))
        .hook("looker", Looker { seen: Arc::clone(&seen), count: 0 })
        .build()
        .unwrap();
    runner.train().unwrap();
    drop(runner);
    let stages: Stages = seen.lock().unwrap().iter().copied().collect();
    for stage in [Stage::Setup, Stage::AfterOptimizerStep, Stage::AfterValEpoch, Stage::AfterRun] {
        assert!(stages.contains(stage), "{stage}");
    }
    assert!(dir.path().join("extra").is_dir());
    let looked = (Severity::Warning, "looked at everything".to_owned());
    assert!(lines.lock().unwrap().iter().any(|(s, l)| *s == looked.0 && l.contains(&looked.1)));

    // What it counted is there again.
    let calls = seen.lock().unwrap().len() as u64;
    let counted = Arc::new(AtomicUsize::new(0));
    struct Reader(Arc<AtomicUsize>);
    impl Hook for Reader {
        fn stages(&self) -> Stages {
            Stages::NONE
        }
        fn on_stage(&mut self, _: Stage, _: &mut Run<'_>) -> CallbackResult {
            unreachable!("it has no stages")
        }
        fn state(&mut self) -> Option<&mut dyn State> {
            Some(self)
        }
    }
    impl State for Reader {
        fn save(&mut self, _: &mut Vec<u8>) -> CallbackResult {
            Ok(())
        }
        fn load(&mut self, from: &[u8]) -> CallbackResult {
            let count = u64::from_le_bytes(from.try_into()?);
            self.0.store(count as usize, Ordering::Relaxed);
            Ok(())
        }
    }
    let mut runner = small(&dir)
        .set("resume=true")
        .set("train_cfg.max_epochs=4")
        .hook("looker", Reader(Arc::clone(&counted)))
        .build()
        .unwrap();
    runner.step().unwrap();
    let counted = counted.load(Ordering::Relaxed) as u64;
    assert!(counted > 50 && counted <= calls, "{counted} of {calls}");
}

#[test]
fn a_state_fails() {
    struct Bad(Way);
    impl Hook for Bad {
        fn stages(&self) -> Stages {
            Stages::NONE
        }
        fn on_stage(&mut self, _: Stage, _: &mut Run<'_>) -> CallbackResult {
            Ok(())
        }
        fn state(&mut self) -> Option<&mut dyn State> {
            Some(self)
        }
    }
    impl State for Bad {
        fn save(&mut self, _: &mut Vec<u8>) -> CallbackResult {
            self.0.go()
        }
        fn load(&mut self, _: &[u8]) -> CallbackResult {
            self.0.go()
        }
    }
    fails("hook \"bad\"", |builder, way| builder.hook("bad", Bad(way)), small);

    for way in [Way::Error, Way::Panic] {
        let dir = TempDir::new();
        let quiet = Looker { seen: Arc::default(), count: 0 };
        small(&dir).hook("bad", quiet).build().unwrap().train().unwrap();
        let made = small(&dir).set("resume=true").hook("bad", Bad(way)).build();
        check(way, made.and_then(|mut runner| runner.train()).unwrap_err(), "bad");
    }
}

#[test]
fn an_error_after_an_error_is_logged() {
    let dir = TempDir::new();
    let seen = Arc::new(Mutex::new(String::new()));
    let message = Arc::clone(&seen);
    let mut runner = small(&dir)
        .hook("bad", hook_fn(Stage::AfterTrainIter, |_, _| Way::Error.go()))
        .hook(
            "worse",
            hook_fn(Stage::OnError, move |_, run| {
                *message.lock().unwrap() = run.error()?.message().to_owned();
                panic!("on top of it")
            }),
        )
        .build()
        .unwrap();
    check(Way::Error, runner.train().unwrap_err(), "bad");
    assert!(seen.lock().unwrap().ends_with("as planned, number 3"));
}

#[test]
fn hooks_come_by_priority() {
    let dir = TempDir::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let hook = |name: &'static str, priority| {
        let order = Arc::clone(&order);
        hook_fn(Stage::BeforeTrain, move |_, _| {
            order.lock().unwrap().push(name);
            Ok(())
        })
        .with_priority(priority)
    };
    let mut runner = small(&dir)
        .hook("last", hook("last", Priority::new(99)))
        .hook("first", hook("first", Priority::HIGHEST))
        .hook("middle", hook("middle", Priority::default()))
        .build()
        .unwrap();
    runner.step().unwrap();
    assert_eq!(*order.lock().unwrap(), ["first", "middle", "last"]);
    let error =
        small(&TempDir::new()).hook("much", hook("much", Priority::new(101))).build().unwrap_err();
    assert!(error.message().contains("priority"), "{error}");
}
