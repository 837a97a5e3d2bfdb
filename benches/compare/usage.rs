//! Resource usage of processes, from `/proc`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The unit of times in `/proc/PID/stat` (USER_HZ is 100).
const MICROS_PER_TICK: f64 = 10_000.0;

/// The resources that processes have used since their start, or between two points in time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// CPU time in nanoseconds, from the scheduler.
    nanos: u64,
    /// CPU time in user mode in ticks.
    user: u64,
    /// CPU time in the kernel in ticks.
    system: u64,
    /// Voluntary context switches.
    pub waits: u64,
}

impl Usage {
    /// Returns the usage of all threads of these processes.
    pub(crate) fn of(ids: &[u32]) -> Result<Usage> {
        let mut sum = Usage::default();
        for &id in ids {
            sum.add(id).with_context(|| format!("process {id} is gone"))?;
        }
        Ok(sum)
    }

    /// Returns the usage since `before`.
    pub(crate) fn since(self, before: Usage) -> Usage {
        Usage {
            nanos: self.nanos.saturating_sub(before.nanos),
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            waits: self.waits.saturating_sub(before.waits),
        }
    }

    /// Returns CPU time in user mode and in the kernel in microseconds. Ticks only determine how
    /// the exact total is divided, because their own sum is too coarse.
    pub(crate) fn micros(self) -> (f64, f64) {
        let ticks = self.user + self.system;
        let sum = match self.nanos {
            0 => ticks as f64 * MICROS_PER_TICK,
            nanos => nanos as f64 / 1e3,
        };
        let user = if ticks == 0 { 0.5 } else { self.user as f64 / ticks as f64 };
        (sum * user, sum * (1.0 - user))
    }

    fn add(&mut self, id: u32) -> Result<()> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        let fields = stat.rsplit_once(')').context("no name in /proc/PID/stat")?.1;
        // The first field after the name is the third.
        let mut ticks = fields.split_whitespace().skip(14 - 3).map(str::parse::<u64>);
        self.user += ticks.next().context("/proc/PID/stat is short")??;
        self.system += ticks.next().context("/proc/PID/stat is short")??;
        for task in fs::read_dir(format!("/proc/{id}/task"))?.flatten() {
            self.nanos += first_number(&task.path().join("schedstat"));
            self.waits += status_field(&task.path().join("status"), "voluntary_ctxt_switches:");
        }
        Ok(())
    }
}

/// Returns the resident memory in bytes. Shared memory (program, libraries) is counted once, with
/// its largest value.
pub(crate) fn resident(ids: &[u32]) -> u64 {
    let status =
        |id: u32, name: &str| status_field(Path::new(&format!("/proc/{id}/status")), name) * 1024;
    let own: u64 = ids.iter().map(|&id| status(id, "RssAnon:")).sum();
    let shared = ids.iter().map(|&id| status(id, "RssFile:") + status(id, "RssShmem:")).max();
    own + shared.unwrap_or(0)
}

fn first_number(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

fn status_field(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
}
