//! A run's log and records.

mod runs;

use std::io;
use std::sync::{Arc, Mutex};

use grapnel::{Mode, Severity};

use runs::{small, TempDir, SAMPLES};

#[test]
fn lines_and_records_come_one_after_the_other() {
    let dir = TempDir::new();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let records = Arc::new(Mutex::new(Vec::new()));
    let (line_sink, record_sink) = (Arc::clone(&lines), Arc::clone(&records));
    let mut runner = small(&dir)
        .set("default_hooks.logger.interval=2")
        .log(move |severity, line| line_sink.lock().unwrap().push((severity, line.to_owned())))
        .records(move |record| {
            assert!(!record.scalars.is_empty());
            let loss = record.scalars.get("loss");
            record_sink.lock().unwrap().push((record.mode, record.step, loss.is_some()));
            Ok(())
        })
        .build()
        .unwrap();
    runner.train().unwrap();
    let records = records.lock().unwrap();
    let of = |mode| records.iter().filter(move |record| record.0 == mode);
    assert_eq!(of(Mode::Train).count(), 3 * SAMPLES / 4 / 2);
    assert!(of(Mode::Train).all(|record| record.2));
    assert_eq!(of(Mode::Val).count(), 3);
    assert!(of(Mode::Train).map(|record| record.1).is_sorted());
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|(s, l)| *s == Severity::Info && l.contains("Epoch(train)")));
    assert!(format!("{records:?}").contains("Val"));
}

#[test]
fn a_sink_of_records_that_fails_does_not_end_the_run() {
    for panics in [false, true] {
        let dir = TempDir::new();
        let lines = Arc::new(Mutex::new(String::new()));
        let (sink, calls) = (Arc::clone(&lines), Arc::new(Mutex::new(0)));
        let count = Arc::clone(&calls);
        let mut runner = small(&dir)
            .set("default_hooks.logger.interval=2")
            .log(move |_, line| *sink.lock().unwrap() += line)
            .records(move |_| {
                *count.lock().unwrap() += 1;
                assert!(!panics, "no more records");
                Err(io::Error::other("no more records").into())
            })
            .build()
            .unwrap();
        runner.train().unwrap();
        drop(runner);
        assert!(lines.lock().unwrap().contains("no more records"));
        assert_eq!(*calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), 1);
    }
}

#[test]
fn a_sink_of_lines_that_panics_is_left_alone() {
    let dir = TempDir::new();
    let calls = Arc::new(Mutex::new(0));
    let count = Arc::clone(&calls);
    let mut runner = small(&dir)
        .log(move |_, _| {
            let mut calls = count.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *calls += 1;
            panic!("no more lines");
        })
        .build()
        .unwrap();
    runner.train().unwrap();
    drop(runner);
    assert_eq!(*calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), 1);
}

#[cfg(feature = "tracing")]
mod events {
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use crate::runs::{small, TempDir};

    /// Keeps events.
    #[derive(Clone, Default)]
    struct Keeper(Arc<Mutex<Vec<(Level, String)>>>);

    struct Message(String);

    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }

    impl Subscriber for Keeper {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "grapnel"
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut message = Message(String::new());
            event.record(&mut message);
            self.0.lock().unwrap().push((*event.metadata().level(), message.0));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn lines_are_events() {
        let keeper = Keeper::default();
        // The lines come on a thread of the runner's.
        tracing::subscriber::set_global_default(keeper.clone()).unwrap();
        grapnel::set_process_log_to_tracing();
        let dir = TempDir::new();
        let warn = grapnel::hook_fn(grapnel::Stage::AfterRun, |_, run| {
            run.log(grapnel::Severity::Warning, "look here")?;
            run.log(grapnel::Severity::Error, "and here")?;
            Ok(())
        });
        let mut runner = small(&dir).log_to_tracing().hook("warn", warn).build().unwrap();
        runner.train().unwrap();
        drop(runner);
        let config = grapnel::pb::AveragedModelConfig {
            strategy: Some(
                grapnel::pb::ExponentialMovingAverageConfig {
                    momentum: Some(0.9),
                    ..Default::default()
                }
                .into(),
            ),
            ..Default::default()
        };
        grapnel::Average::new(&config, grapnel::Tensors::new().unwrap(), None).unwrap();
        grapnel::reset_process_log();
        let events = keeper.0.lock().unwrap();
        for (level, part) in
            [(Level::INFO, "Epoch(train)"), (Level::WARN, "look here"), (Level::ERROR, "and here")]
        {
            assert!(events.iter().any(|(l, m)| *l == level && m.contains(part)), "{part}");
        }
    }
}
