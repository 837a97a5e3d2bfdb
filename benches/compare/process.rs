//! Processes that are ended when dropped, and waits that a signal interrupts.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

const START_DEADLINE: Duration = Duration::from_secs(20);
const END_DEADLINE: Duration = Duration::from_secs(5);

/// Set when the user interrupts the benchmark.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A process. Dropping it ends the process and its children.
pub(crate) struct Process {
    name: String,
    child: Child,
    stderr_tail: PathBuf,
}

impl Process {
    /// Starts a program; its output goes into files in `folder`.
    pub(crate) fn start(name: &str, mut command: Command, folder: &Path) -> Result<Process> {
        let file = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let stderr_tail = folder.join(format!("{file}.err"));
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot make {}", path.display()))
        };
        command
            .stdin(Stdio::null())
            .stdout(create(&folder.join(format!("{file}.out")))?)
            .stderr(create(&stderr_tail)?);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Process { name: name.to_owned(), child, stderr_tail })
    }

    /// Returns its process ID, and those of its children.
    pub(crate) fn ids(&self) -> Vec<u32> {
        family(self.child.id())
    }

    /// Waits until it has `count` children.
    pub(crate) fn wait_children(&mut self, count: usize) -> Result<()> {
        let id = self.child.id();
        let is_complete = || (family(id).len() == 1 + count).then_some(());
        self.wait("start its workers", START_DEADLINE, is_complete)
    }

    /// Waits until it listens on `address`.
    pub(crate) fn wait_listening(&mut self, address: SocketAddr) -> Result<()> {
        self.wait("listen", START_DEADLINE, || TcpStream::connect(address).ok())
    }

    /// Waits until `done` returns a value; an error if the process ends first, or after a time
    /// limit.
    pub(crate) fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut() -> Option<T>,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        while done().is_none() {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended ({status}) before it could {what}: {}",
                    self.name,
                    self.stderr_tail()
                );
            }
            ensure!(Instant::now() < end, "{} does not {what}: {}", self.name, self.stderr_tail());
            pause()?;
        }
        Ok(())
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < end, "{} did not end within {limit:?}", self.name);
            pause()?;
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.child.id(), signal);
    }

    /// Returns the last lines of its standard error.
    pub(crate) fn stderr_tail(&self) -> String {
        let text = std::fs::read(&self.stderr_tail).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // First an orderly shutdown, so that nginx ends its workers.
        let ids = self.ids();
        self.signal(Signal::TERM);
        let end = Instant::now() + END_DEADLINE;
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        ids.into_iter().for_each(|id| send(id, Signal::KILL));
        let _ = self.child.wait();
    }
}

/// Sleeps briefly in a loop that waits; an error if the user has interrupted the benchmark.
pub(crate) fn pause() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    std::thread::sleep(Duration::from_millis(1));
    Ok(())
}

/// Returns a free port on loopback.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn send(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Returns a process with all its descendants.
fn family(id: u32) -> Vec<u32> {
    let mut ids = vec![id];
    let mut next = 0;
    while let Some(&parent) = ids.get(next) {
        ids.extend(children(parent));
        next += 1;
    }
    ids
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The preceding name is in parentheses and may contain anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields.split_whitespace().nth(1).and_then(|field| field.parse().ok()) == Some(parent)
    };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(is_child).collect()
}
