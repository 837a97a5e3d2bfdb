//! One run of a credential plugin.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::plugin::ExecPlugin;
use super::protocol::{self, ReturnedCredential};
use super::redact::redact;

/// Bytes of standard output that are read; a credential is shorter.
const MAX_OUTPUT: u64 = 1 << 20;
/// Bytes of standard error that are kept.
const MAX_MESSAGES: u64 = 8 << 10;
/// Interval of checks whether a plugin that closed its output has exited.
const EXIT_POLL: Duration = Duration::from_millis(2);

/// The result of one run.
pub(super) struct Run {
    /// The credential, or why there is none.
    pub(super) result: Result<ReturnedCredential, String>,
    /// The lines of standard error, without secrets.
    pub(super) messages: Vec<String>,
}

/// Runs `plugin` to its end, at most for its timeout; blocks for as long.
///
/// The plugin gets no standard input and a process group of its own. On timeout the whole group is
/// killed, so that nothing that it started is left.
pub(super) fn run(plugin: &ExecPlugin) -> Run {
    let failed = |reason: String| Run { result: Err(reason), messages: Vec::new() };
    let mut command = Command::new(&plugin.command);
    command
        .args(&plugin.args)
        .envs(plugin.env.iter().map(|(name, value)| (name, value)))
        .env("KUBERNETES_EXEC_INFO", protocol::exec_info(plugin))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return failed(plugin.not_found());
        }
        Err(error) => {
            let command = plugin.command.display();
            return failed(format!("exec: executable {command} cannot be started: {error}"));
        }
    };
    let deadline = Instant::now() + plugin.timeout;
    let Finished { status, stdout, stderr } = finish(child, deadline);
    let name = plugin.command.display();
    let result = match status {
        Ok(Some(status)) if status.success() => protocol::parse(&stdout, plugin.api_version),
        Ok(Some(status)) => Err(match status.code() {
            Some(code) => format!("exec: executable {name} failed with exit code {code}"),
            None => format!("exec: executable {name} was terminated ({status})"),
        }),
        Ok(None) => {
            Err(format!("exec: executable {name} did not finish within {:?}", plugin.timeout))
        }
        Err(error) => Err(format!("exec: executable {name}: {error}")),
    };
    let token = result.as_ref().ok().and_then(|returned| returned.header.as_ref());
    let messages = redact(&stderr, &stdout, token);
    Run { result, messages }
}

struct Finished {
    /// `None` after a timeout.
    status: io::Result<Option<ExitStatus>>,
    stdout: Zeroizing<Vec<u8>>,
    stderr: Vec<u8>,
}

fn finish(mut child: Child, deadline: Instant) -> Finished {
    let (sender, receiver) = mpsc::channel();
    read(child.stdout.take(), MAX_OUTPUT, sender.clone(), Output::Stdout);
    read(child.stderr.take(), MAX_MESSAGES, sender, Output::Stderr);
    let (mut stdout, mut stderr) = (Zeroizing::new(Vec::new()), Vec::new());
    let mut keep = |received| match received {
        Output::Stdout(bytes) => stdout = Zeroizing::new(bytes),
        Output::Stderr(bytes) => stderr = bytes,
    };
    let mut is_late = false;
    for _ in 0..2 {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(output) => keep(output),
            Err(RecvTimeoutError::Timeout) => {
                is_late = true;
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = match is_late {
        true => Ok(None),
        false => wait(&mut child, deadline),
    };
    if !matches!(status, Ok(Some(_))) {
        kill(&child);
        let _ = child.wait();
        // Its output before it was killed; its pipes are closed now.
        while let Ok(output) = receiver.recv_timeout(Duration::from_millis(100)) {
            keep(output);
        }
    }
    Finished { status, stdout, stderr }
}

enum Output {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

/// Reads a pipe to its end on a thread of its own. The rest beyond `limit` is discarded, so that
/// the plugin is not blocked.
fn read(
    pipe: Option<impl Read + Send + 'static>,
    limit: u64,
    sender: mpsc::Sender<Output>,
    output: fn(Vec<u8>) -> Output,
) {
    let Some(mut pipe) = pipe else { return };
    thread::spawn(move || {
        let mut bytes = Vec::with_capacity(8 << 10);
        // An error is an early end; what is missing shows when the output is parsed.
        let _ = (&mut pipe).take(limit).read_to_end(&mut bytes);
        let _ = io::copy(&mut pipe, &mut io::sink());
        let _ = sender.send(output(bytes));
    });
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(EXIT_POLL);
    }
}

fn kill(child: &Child) {
    if let Ok(id) = i32::try_from(child.id())
        && let Some(group) = Pid::from_raw(id)
    {
        // It may have exited meanwhile.
        let _ = kill_process_group(group, Signal::KILL);
    }
}
