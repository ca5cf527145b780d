//! The program as its users have it: trained, stopped, killed, resumed, and with mistakes.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// Iterations of an epoch: 1,437 images in batches of 64.
const ITERS: usize = 23;

/// Long enough to be stopped on the way.
const EPOCHS: usize = 20;

/// A folder of a test's own, gone with it.
struct TempDir(PathBuf);

impl TempDir {
    fn new(test: &str) -> TempDir {
        let dir = env::temp_dir().join(format!("rust_train_{test}_{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        TempDir(dir)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn digits() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../digits")
}

/// The program in a folder, with nothing that cargo tells of libraries.
fn program(dir: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rust_train"));
    command.current_dir(&dir.0).env_remove("LD_LIBRARY_PATH").env("OMP_NUM_THREADS", "1");
    command
}

/// Training in the work_dir of that name.
fn training(dir: &TempDir, work_dir: &str, arguments: &[&str]) -> Command {
    let mut command = program(dir);
    command.arg(digits()).args(["--work-dir", work_dir]).args(arguments);
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs to the end, which must be a good one.
fn run(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    output
}

/// What it leaves in a work_dir that has to be the same, to the bit.
fn outcome(work_dir: &Path) -> [Vec<u8>; 2] {
    let read = |file: String| fs::read(work_dir.join(&file)).expect(&file);
    [read(format!("epoch_{EPOCHS}/model.safetensors")), read("loss.csv".to_owned())]
}

/// Lines of loss.csv, without its header.
fn iterations(work_dir: &Path) -> usize {
    fs::read_to_string(work_dir.join("loss.csv"))
        .map_or(0, |curve| curve.lines().count().saturating_sub(1))
}

/// Waits until it has trained for a while.
fn wait_for_iterations(child: &mut Child, work_dir: &Path, count: usize) {
    let start = Instant::now();
    while iterations(work_dir) < count {
        assert_eq!(child.try_wait().unwrap(), None, "it has ended by itself");
        assert!(start.elapsed() < Duration::from_secs(60), "it doesn't train");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends signals that all are there when the program sees the first one.
fn send(child: &Child, signals: &[i32]) {
    let mut script = format!("kill -STOP {}", child.id());
    for signal in signals {
        script += &format!(" && kill -{signal} {}", child.id());
    }
    script += &format!(" && kill -CONT {}", child.id());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}

/// Trains in a work_dir, and sends signals on the way. How it ended, and what it said.
fn interrupted(dir: &TempDir, work_dir: &str, signals: &[i32]) -> (ExitStatus, String) {
    let mut command = training(dir, work_dir, &[&format!("train_cfg.max_epochs={EPOCHS}")]);
    let stderr = dir.0.join(format!("{work_dir}.stderr"));
    command.stdout(Stdio::null()).stderr(fs::File::create(&stderr).unwrap());
    let mut child = command.spawn().unwrap();
    wait_for_iterations(&mut child, &dir.0.join(work_dir), 100);
    send(&child, signals);
    let status = child.wait().unwrap();
    (status, fs::read_to_string(stderr).unwrap())
}

#[test]
fn tells_more_than_nine_of_ten_digits() {
    let dir = TempDir::new("accuracy");
    let output = run(training(&dir, "work", &[]));
    let printed = text(&output.stdout);
    let accuracy = printed.strip_prefix("accuracy ").and_then(|rest| rest.strip_suffix(" %\n"));
    let accuracy: f64 = accuracy.expect(printed).parse().unwrap();
    assert!(accuracy > 90.0, "{accuracy}");
    assert_eq!(iterations(&dir.0.join("work")), 8 * ITERS);
    // Grapnel's log, as events, with the hook's number in it.
    let log = text(&output.stderr);
    let line = log.lines().find(|line| line.contains("Epoch(train) [8][20/23]")).expect(log);
    assert!(line.contains(" INFO grapnel: ") && line.contains("  average: "), "{line}");
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bits() {
    let dir = TempDir::new("stopped");
    let epochs = format!("train_cfg.max_epochs={EPOCHS}");
    let undisturbed = run(training(&dir, "undisturbed", &[&epochs]));
    let expected = outcome(&dir.0.join("undisturbed"));
    for (work_dir, signal) in [("int", SIGINT), ("term", SIGTERM), ("kill", SIGKILL)] {
        let (status, log) = interrupted(&dir, work_dir, &[signal]);
        let path = dir.0.join(work_dir);
        if signal == SIGKILL {
            assert_eq!(status.signal(), Some(SIGKILL), "{log}");
        } else {
            assert_eq!(status.code(), Some(128 + signal), "{log}");
            assert!(log.ends_with("rust_train: stopped; --resume goes on\n"), "{log}");
            // Saved where it was, and not at the end of an epoch.
            let saved = format!("iter_{}", iterations(&path));
            assert!(path.join(&saved).is_dir(), "there is no {saved}: {log}");
        }
        assert!(iterations(&path) < EPOCHS * ITERS);
        let resumed = run(training(&dir, work_dir, &["--resume", &epochs]));
        assert!(outcome(&path) == expected, "after signal {signal} it is another run");
        assert_eq!(text(&resumed.stdout), text(&undisturbed.stdout));
    }
}

#[test]
fn a_second_signal_ends_the_process() {
    let dir = TempDir::new("second_signal");
    let (status, log) = interrupted(&dir, "work", &[SIGINT, SIGTERM]);
    // By whichever was the second one to be seen.
    assert!(status.signal().is_some(), "{status}: {log}");
}

#[test]
fn a_new_run_writes_a_new_curve() {
    let dir = TempDir::new("again");
    for epochs in [2, 1] {
        run(training(&dir, "work", &[&format!("train_cfg.max_epochs={epochs}")]));
        assert_eq!(iterations(&dir.0.join("work")), epochs * ITERS);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let dir = TempDir::new("wrong");
    let cut_short = dir.0.join("cut_short");
    fs::create_dir(&cut_short).unwrap();
    let images = fs::read(digits().join("train-images-idx3-ubyte")).unwrap();
    fs::write(cut_short.join("train-images-idx3-ubyte"), &images[..images.len() - 1]).unwrap();
    let digits = digits();
    let digits = digits.to_str().unwrap();
    for (arguments, code, expected) in [
        (&[][..], 2, "rust_train: DATA_DIR is missing\nusage: rust_train DATA_DIR "),
        (&[digits, "--resum"], 2, "rust_train: invalid option '--resum'\nusage: "),
        (&["no/such"], 2, "rust_train: no/such/train-images-idx3-ubyte: No such file or directory"),
        (&["cut_short"], 2, "ubyte: must have the bytes of [1437, 8, 8], has 91967"),
        (&[digits, "train_cfg.max_epoch=3"], 2, "did you mean \"max_epochs\"?"),
        (&[digits, "max_epochs"], 2, "\"max_epochs\" is not of the form path=value"),
        (
            &[digits, "model.sequential.layers.7.linear.out_features=5"],
            1,
            "rust_train: training iteration 1: targets: label ",
        ),
    ] {
        let output = program(&dir).args(arguments).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}
