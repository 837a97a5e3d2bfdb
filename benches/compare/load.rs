//! Sends requests with h2load, and measures their cost for the server.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::peers;
use crate::process::Process;
use crate::servers::Server;
use crate::usage::{Usage, resident};
use crate::workspace::{TOKEN, Workspace, path_of};

/// Maximum duration of h2load.
const DEADLINE: Duration = Duration::from_secs(120);

/// The requests to send.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub http: Http,
    pub connections: usize,
    /// Concurrent requests on each connection.
    pub streams: usize,
    pub requests: usize,
    /// Requests per second on all connections; `None` for full speed.
    pub rate: Option<f64>,
    /// The path of one of the upstream's responses.
    pub body: &'static str,
    /// Which of the requests are measured.
    pub counted: Counted,
}

/// Which requests of a run are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// All of them, including the opening of the connections.
    All,
    /// Those in the middle, while all connections are open.
    Middle,
}

/// The protocol between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// CPU time of the server per request in microseconds.
    pub cpu_us: f64,
    /// Its part in user mode.
    pub user_us: f64,
    /// Its part in the kernel.
    pub system_us: f64,
    /// Requests per second.
    pub rate: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    pub p99_us: f64,
    /// Resident memory at the end in MiB.
    pub memory_mib: f64,
    /// Context switches of the server's threads that waited, per request.
    pub waits: f64,
}

/// Sends `load` to a server.
///
/// # Errors
/// If a response is missing or not 200, or if the audit log does not contain the expected number of
/// events.
pub fn send(work: &Workspace, server: &Server, load: &Load) -> Result<Sample> {
    let attempt = || -> Result<Sample> {
        let rows_file = work.file("h2load.log");
        let _ = std::fs::remove_file(&rows_file);
        let mut client = Process::start("h2load", command(server, load, &rows_file)?, work.path())?;
        let span = Span::of(server, load, &rows_file, &mut client)?;
        let rows = Rows::read(&rows_file)?;
        rows.check(load.requests)?;
        // The time for writing the last events is included.
        if let Some(log) = &server.log {
            log.take(load.requests)?;
        }
        let span = match load.counted {
            Counted::All => Span { after: Snapshot::now(server)?, ..span },
            Counted::Middle => span,
        };
        Ok(rows.sample(&span, load.counted, server))
    };
    attempt().with_context(|| {
        let stderr_tail = server.stderr_tail();
        let stderr_tail = if stderr_tail.is_empty() { "nothing" } else { &stderr_tail };
        format!("{}, which says {stderr_tail}, under {load:?}", server.name)
    })
}

fn command(server: &Server, load: &Load, rows: &Path) -> Result<Command> {
    let mut command = Command::new(peers::find("h2load").context("h2load has gone")?);
    if load.http == Http::One {
        command.arg("--h1");
    }
    command.arg(format!("--clients={}", load.connections));
    command.arg(format!("--max-concurrent-streams={}", load.streams));
    command.arg(format!("--requests={}", load.requests));
    if let Some(rate) = load.rate {
        command.arg(format!("--rps={:.2}", rate / load.connections as f64));
    }
    command.arg(format!("--log-file={}", rows.display()));
    command.arg(format!("--header=authorization: Bearer {TOKEN}"));
    command.arg("--header=accept: application/json");
    command.arg("--header=user-agent: kubectl/v1.36.0 (linux/amd64) kubernetes/0a1b2c3");
    command.arg(format!("https://{}{}", server.address, path_of(load.body)));
    Ok(command)
}

/// The period that is measured.
struct Span {
    before: Snapshot,
    after: Snapshot,
}

struct Snapshot {
    /// Microseconds since 1970, like in the output of h2load.
    time: u128,
    usage: Usage,
}

impl Snapshot {
    fn now(server: &Server) -> Result<Snapshot> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        Ok(Snapshot { time, usage: Usage::of(server.ids())? })
    }
}

impl Span {
    /// Waits for the end of h2load, and takes the usage at both ends of the period.
    fn of(server: &Server, load: &Load, rows: &Path, client: &mut Process) -> Result<Span> {
        let mut before = Snapshot::now(server)?;
        let mut after = None;
        if load.counted == Counted::Middle {
            // A row has a time of 16 digits, a status of 3, a duration of about 4, and 3
            // separators.
            let size = |share: f64| (load.requests as f64 * 26.0 * share) as u64;
            let reached = |share: f64| {
                let length = std::fs::metadata(rows).map_or(0, |file| file.len());
                (length >= size(share)).then_some(())
            };
            client.wait("be half through", DEADLINE, || reached(0.4))?;
            before = Snapshot::now(server)?;
            client.wait("be nearly through", DEADLINE, || reached(0.85))?;
            after = Some(Snapshot::now(server)?);
        }
        let status = client.wait_end(DEADLINE)?;
        ensure!(status.success(), "h2load ended with {status}: {}", client.stderr_tail());
        let after = match after {
            Some(after) => after,
            None => Snapshot::now(server)?,
        };
        Ok(Span { before, after })
    }
}

/// The rows that h2load writes, one for each request.
struct Rows(Vec<Row>);

struct Row {
    /// Microseconds since 1970.
    start: u128,
    status: i32,
    micros: u64,
}

impl Rows {
    fn read(file: &Path) -> Result<Rows> {
        let text = std::fs::read_to_string(file).context("h2load wrote no --log-file")?;
        let row = |line: &str| {
            let mut fields = line.split('\t');
            let start = fields.next()?.parse().ok()?;
            let status = fields.next()?.parse().ok()?;
            Some(Row { start, status, micros: fields.next()?.parse().ok()? })
        };
        let rows = text.lines().map(|line| row(line).with_context(|| format!("a row {line:?}")));
        Ok(Rows(rows.collect::<Result<_>>()?))
    }

    fn check(&self, requests: usize) -> Result<()> {
        let bad = self.0.iter().filter(|row| row.status != 200).count();
        let first = self.0.iter().find(|row| row.status != 200).map_or(0, |row| row.status);
        ensure!(bad == 0, "{bad} of {requests} answers are not 200; the first is {first}");
        ensure!(self.0.len() == requests, "{} answers to {requests} requests", self.0.len());
        Ok(())
    }

    fn sample(&self, span: &Span, counted: Counted, server: &Server) -> Sample {
        let end = |row: &Row| row.start + u128::from(row.micros);
        let during = span.before.time..=span.after.time;
        let is_counted = |row: &&Row| counted == Counted::All || during.contains(&end(row));
        let rows: Vec<&Row> = self.0.iter().filter(is_counted).collect();
        let mut micros: Vec<u64> = rows.iter().map(|row| row.micros).collect();
        micros.sort_unstable();
        let at = |share: f64| {
            let index = (micros.len() as f64 * share) as usize;
            micros.get(index.min(micros.len().saturating_sub(1))).map_or(0.0, |&us| us as f64)
        };
        let (from, to) = match counted {
            Counted::Middle => during.into_inner(),
            Counted::All => (
                rows.iter().map(|row| row.start).min().unwrap_or(0),
                rows.iter().map(|row| end(row)).max().unwrap_or(0),
            ),
        };
        let count = rows.len() as f64;
        let used = span.after.usage.since(span.before.usage);
        let (user, system) = used.micros();
        Sample {
            cpu_us: (user + system) / count,
            user_us: user / count,
            system_us: system / count,
            rate: count / (to.saturating_sub(from).max(1) as f64 / 1e6),
            p50_us: at(0.5),
            p99_us: at(0.99),
            memory_mib: resident(server.ids()) as f64 / f64::from(1 << 20),
            waits: used.waits as f64 / count,
        }
    }
}
