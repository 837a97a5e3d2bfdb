//! `kube-audit-proxy session`: lists, shows, and replays recordings of sessions.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use session_recording::cast::{Description, Summary};
use session_recording::read::{self, Item, Recording};
use session_recording::{files, transcript};

use super::output;

const EXAMPLES: &str = "\
Examples:
  kube-audit-proxy session list /var/log/sessions
  kube-audit-proxy session show /var/log/sessions/20261129T010203.500000Z-ID.cast
  kube-audit-proxy session show --dir /var/log/sessions 0b6e…  (the audit ID)
  kube-audit-proxy session play --speed 4 --idle-limit 2 FILE";

/// Arguments of `session`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SessionCommand {
    /// List recordings: when, who, what, how long, and how they ended
    List {
        /// Format
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: ListFormat,
        /// Directory of recordings (--session-recording-dir)
        #[arg(value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Print what a session showed as plain text
    Show {
        /// Print exactly the bytes that the client received, control sequences included
        #[arg(long)]
        raw: bool,
        /// Print what was typed instead, if it was recorded
        #[arg(long, conflicts_with = "raw")]
        input: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Replay a session in the terminal
    Play {
        /// Speed, as a multiple of the original
        #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
        speed: f64,
        /// Longest pause in seconds
        #[arg(long, value_name = "SECONDS")]
        idle_limit: Option<f64>,
        #[command(flatten)]
        which: Which,
    },
}

/// The recording to open.
#[derive(Debug, clap::Args)]
struct Which {
    /// Directory in which to find the recording of an audit ID
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// File, or the audit ID of the session
    #[arg(value_name = "FILE|AUDIT-ID")]
    recording: PathBuf,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ListFormat {
    /// A line for each recording
    Table,
    /// A JSON object a line: the description and the summary of each recording
    Json,
}

/// Runs the subcommand.
pub(super) fn run(args: SessionArgs) -> ExitCode {
    let result = match args.command {
        SessionCommand::List { output, dir } => list(&dir, output),
        SessionCommand::Show { raw, input, which } => show(&which, raw, input),
        SessionCommand::Play { speed, idle_limit, which } => play(&which, speed, idle_limit),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failed(&error, 1),
    }
}

impl Which {
    /// Opens the recording.
    fn open(&self) -> anyhow::Result<Recording> {
        let path = self.path()?;
        Recording::open(&path).with_context(|| path.display().to_string())
    }

    fn path(&self) -> anyhow::Result<PathBuf> {
        if self.recording.is_file() {
            return Ok(self.recording.clone());
        }
        let id = self.recording.to_string_lossy();
        let dir = &self.dir;
        let recordings = files::recordings(dir).with_context(|| dir.display().to_string())?;
        let is_of = |path: &PathBuf| {
            let recording = Recording::open(path);
            recording.is_ok_and(|recording| recording.header.description.audit_id == id)
        };
        let mut found: Vec<PathBuf> = recordings.into_iter().filter(is_of).collect();
        match found.len() {
            0 => bail!(
                "{id}: neither a file nor the audit ID of a recording in {}; give the directory of \
                 recordings by --dir",
                dir.display()
            ),
            1 => Ok(found.remove(0)),
            _ => {
                // A client may send the same audit ID several times.
                let names: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
                bail!(
                    "{id}: several recordings have this audit ID, give one of these files: {}",
                    names.join(", ")
                )
            }
        }
    }
}

fn list(dir: &Path, format: ListFormat) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut rows = Vec::new();
    let recordings = files::recordings(dir).with_context(|| dir.display().to_string())?;
    for path in recordings {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let recording = match Recording::open(&path) {
            Ok(recording) => recording,
            Err(error) => {
                output::error_line(format_args!("warning: {}: {error}", path.display()));
                continue;
            }
        };
        let description = recording.header.description;
        let summary = read::summary(&path)?;
        match format {
            ListFormat::Json => {
                let line = serde_json::json!({
                    "file": name, "description": description, "summary": summary,
                });
                writeln!(out, "{line}")?;
            }
            ListFormat::Table => rows.push(row(name, &description, summary.as_ref())),
        }
    }
    if matches!(format, ListFormat::Table) {
        table(&rows, &mut out)?;
    }
    out.flush()?;
    Ok(())
}

const COLUMNS: [&str; 9] =
    ["START", "USER", "ACTIVITY", "POD", "COMMAND", "DURATION", "EXIT", "OMITTED", "FILE"];

fn row(name: String, description: &Description, summary: Option<&Summary>) -> [String; 9] {
    let user = match &description.impersonated_user {
        Some(other) => format!("{} as {}", description.user.username, other.username),
        None => description.user.username.clone(),
    };
    let exit = match summary {
        None => "incomplete".to_owned(),
        Some(summary) if summary.salvaged => "salvaged".to_owned(),
        Some(summary) => summary.exit_code.map_or("-".to_owned(), |code| code.to_string()),
    };
    // The content of these streams is missing completely or in part.
    let omitted = summary.map(|summary| summary.omitted(description.records_input));
    let omitted = omitted.unwrap_or_default();
    let start = description.start.get(..19).unwrap_or(&description.start);
    let row = [
        format!("{}Z", start.trim_end_matches('Z')),
        user,
        description.activity.clone(),
        format!("{}/{}", description.namespace, description.pod),
        shorten(&description.command.join(" ")),
        summary.map_or("-".to_owned(), |summary| format!("{:.1}s", summary.duration)),
        exit,
        if omitted.is_empty() { "-".to_owned() } else { omitted.join(",") },
        name,
    ];
    // Much of it is chosen by users.
    row.map(|cell| cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

fn shorten(command: &str) -> String {
    match command.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &command[..at]),
        None if command.is_empty() => "-".to_owned(),
        None => command.to_owned(),
    }
}

fn table(rows: &[[String; 9]], out: &mut impl Write) -> io::Result<()> {
    let header = COLUMNS.map(str::to_owned);
    let all = || std::iter::once(&header).chain(rows);
    let mut widths = [0; 9];
    for row in all() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in all() {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn show(which: &Which, raw: bool, input: bool) -> anyhow::Result<()> {
    let mut recording = which.open()?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if input {
        if !recording.header.description.records_input {
            bail!(
                "the input of this session was not recorded; the proxy records it with \
                 --session-recording-input"
            );
        }
        while let Some(item) = recording.next_item()? {
            if let Item::Input { bytes, .. } = item {
                out.write_all(&bytes)?;
            }
        }
    } else if raw {
        transcript::write_raw(recording, &mut out)?;
    } else {
        transcript::write_text(recording, &mut out)?;
    }
    out.flush()?;
    Ok(())
}

fn play(which: &Which, speed: f64, idle_limit: Option<f64>) -> anyhow::Result<()> {
    if !(speed.is_finite() && speed > 0.0) {
        bail!("--speed must be larger than 0, for example 2");
    }
    if idle_limit.is_some_and(|limit| limit.is_nan() || limit < 0.0) {
        bail!("--idle-limit must not be negative, for example 2");
    }
    let mut recording = which.open()?;
    let needs_returns = !recording.header.description.tty && io::stdout().is_terminal();
    let mut out = io::stdout().lock();
    let mut last = 0.0;
    while let Some(item) = recording.next_item()? {
        let pause = (item.at() - last).max(0.0);
        let Item::Output { at, bytes, .. } = item else { continue };
        last = at;
        let pause = pause.min(idle_limit.unwrap_or(f64::MAX)) / speed;
        // At most one year, which fits into a `Duration`.
        std::thread::sleep(Duration::from_secs_f64(pause.min(3.0e7)));
        match needs_returns {
            true => {
                let text = String::from_utf8_lossy(&bytes).replace('\n', "\r\n");
                out.write_all(text.as_bytes())?;
            }
            false => out.write_all(&bytes)?,
        }
        out.flush()?;
    }
    Ok(())
}
