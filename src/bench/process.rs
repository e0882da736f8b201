//! What a process has used so far, as the kernel counts it.

use std::fs;

use super::error::{BenchError, Result};

/// The kernel's unit of CPU time in `/proc`: a hundredth of a second, on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// The CPU time that the process has used, in seconds.
///
/// # Errors
/// When there is no such process.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_err(BenchError::io("read the CPU time of a process"))?;
    // The name in parentheses may hold anything; what follows is numbers, user and system time being
    // the 12th and 13th of them.
    let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = numbers.split_ascii_whitespace().skip(11).take(2);
    let ticks: f64 = times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// The most memory that the process has had at once, in MiB.
///
/// # Errors
/// When there is no such process.
pub(super) fn peak_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .map_err(BenchError::io("read the memory of a process"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.unwrap_or_default() / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_used_something() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).is_ok());
        assert!(peak_mib(pid).unwrap() > 1.0);
    }
}
