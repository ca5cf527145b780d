//! What this process has of the machine.

use std::fs;

/// Bytes that are in memory.
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is in there");
    let kilobytes = line.split_whitespace().nth(1).expect("a number");
    kilobytes.parse::<u64>().expect("a number") * 1024
}

/// Threads of the operating system.
pub fn num_threads() -> usize {
    fs::read_dir("/proc/self/task").expect("Linux has it").count()
}
