//! Who has the process's log when several threads set it.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::{env, thread};

use grapnel::pb::{AveragedModelConfig, ExponentialMovingAverageConfig};
use grapnel::{reset_process_log, set_process_log, Average, Tensors};

/// Set in the process whose stderr is read.
const CHILD: &str = "GRAPNEL_TEST_PROCESS_LOG_CHILD";

#[test]
fn a_line_goes_to_the_sink_that_is_kept_or_to_stderr() {
    if env::var_os(CHILD).is_some() {
        return race();
    }
    let name = "a_line_goes_to_the_sink_that_is_kept_or_to_stderr";
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (text, lines) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{lines}");
    let count = text.split_once("to stderr: ").unwrap().1.lines().next().unwrap();
    assert_eq!(lines.matches("momentum: is 0.9").count(), count.parse::<usize>().unwrap());
}

/// Sets the log by one thread and resets it by another, and says how many lines must be on stderr.
fn race() {
    let mut on_stderr = 0;
    for _ in 0..1000 {
        let heard = Arc::new(AtomicUsize::new(0));
        let sink = Arc::clone(&heard);
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                set_process_log(move |_, _| {
                    sink.fetch_add(1, Ordering::Relaxed);
                });
            });
            scope.spawn(|| {
                barrier.wait();
                reset_process_log();
            });
        });
        // Whichever came last, the sink is kept or it isn't.
        let kept = Arc::strong_count(&heard) - 1;
        on_stderr += 1 - kept;
        warn();
        assert_eq!(heard.load(Ordering::Relaxed), kept);
        reset_process_log();
        assert_eq!(Arc::strong_count(&heard), 1);
    }
    println!("to stderr: {on_stderr}");
}

/// What the library warns of, outside of any run.
fn warn() {
    let strategy = ExponentialMovingAverageConfig { momentum: Some(0.9), ..Default::default() };
    let config = AveragedModelConfig { strategy: Some(strategy.into()), ..Default::default() };
    Average::new(&config, Tensors::new().unwrap(), None).unwrap();
}
