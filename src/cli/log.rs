//! `kube-audit-proxy log`: searches and summarizes audit logs, creates keys for seals, and verifies
//! seals. The same commands are available as `kubectl audit`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use audit_query::cli::{Command, ExportArgs, FollowArgs, IndexArgs, QueryArgs, ReportArgs};

use super::output;
use super::recordings::{self, Checked};
use super::seals::LogSeals;
use audit_log::seal::verify::{self, Expected, Report};
use audit_log::seal::{Head, PublicKey, SealKey};
use audit_stream::s3::Buckets;

/// Maximum number of findings that are printed; a replaced log has one per line.
const PRINTED: usize = 200;

const QUERY_EXAMPLES: &str = "\
Examples:
  Who deleted Secrets in the namespace prod in the last two hours?
    kube-audit-proxy log query --since -2h -n prod --verb delete --resource secrets audit.log
  What failed for Alice yesterday afternoon?
    kube-audit-proxy log query -u alice --failed --since 'yesterday 12:00' --until today audit.log
  The last 20 shells opened by people:
    kube-audit-proxy log query --human --resource pods/exec --reverse --limit 20 audit.log
  Everything about one request, with bodies:
    kube-audit-proxy log query --audit-id ID --stage all -o yaml audit.log
  The sealed blocks that prove who read a Secret:
    kube-audit-proxy log query --resource secrets --name db --proof --public-key seal.pub audit.log
  Who read Secrets of the cluster prod in July, in object storage?
    kube-audit-proxy log query --resource secrets --since 2026-07-01 --until 2026-08-01 s3://audit/logs/cluster=prod
  Deployments scaled above ten replicas:
    kube-audit-proxy log query --resource deployments/scale --where 'requestObject.spec.replicas > 10' audit.log";

const REPORT_EXAMPLES: &str = "\
Examples:
  kube-audit-proxy log report audit.log
  kube-audit-proxy log report secrets -n prod --since -7d audit.log
  kube-audit-proxy log report -o html audit.log > report.html
  kube-audit-proxy log report top --by user,verb,resource,code -o json audit.log
  kube-audit-proxy log report latency --by verb audit.log
  kube-audit-proxy log report agents --new-since yesterday audit.log";

const EXPORT_EXAMPLES: &str = "\
Examples:
  kube-audit-proxy log export --cluster prod --since yesterday --until today audit.log /data/audit
  kube-audit-proxy log export --format ndjson --partition date -u alice --bodies audit.log out
  duckdb -c \"SELECT username, count(*) FROM '/data/audit/**/*.parquet' GROUP BY ALL\"";

/// Arguments of `log`.
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

/// The commands of `log`, and of `kubectl audit`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum LogCommand {
    /// Print the events that match
    ///
    /// Reads logs of kube-apiserver and kube-audit-proxy, plain, gzip, or zstd, with the files
    /// rotated from them, and objects of the backend s3. Prints one line per request, its last
    /// event, oldest first. Exits with 0 if an event matches, 1 if none does, and 2 after an error.
    #[command(after_long_help = QUERY_EXAMPLES)]
    Query(Box<QueryArgs>),
    /// Summarize users, failures, Secrets, exec, RBAC, latency, ...
    ///
    /// Without the name of a report, prints a summary. Counts one event per request, its last.
    #[command(after_long_help = REPORT_EXAMPLES)]
    Report(Box<ReportArgs>),
    /// Print events as they are written, across rotation
    ///
    /// Starts at the end of the log, or at the time of --since. Prints a request when it has
    /// completed; --stage=all prints each of its events.
    Follow(Box<FollowArgs>),
    /// Write index files for rotated logs, which make queries and reports faster
    ///
    /// An index file, audit-TIME.log.parquet, is about 3 % of its log, and is used as long as the
    /// log does not change. The proxy writes them at rotation. Exits with 0 on success, 1 if
    /// --check finds an index file that cannot be used, and 2 after an error.
    Index(IndexArgs),
    /// Write events as Parquet, CSV, or NDJSON for DuckDB, ClickHouse, Trino, or Spark
    ///
    /// Files get their names when all of them are complete. Existing files are replaced only with
    /// --overwrite, objects never. Exits with 0 if an event was exported, 1 if none was, and 2
    /// after an error.
    #[command(after_long_help = EXPORT_EXAMPLES)]
    Export(Box<ExportArgs>),
    /// Create an Ed25519 key for --audit-log-seal-key-file, and FILE.pub for log verify
    Keygen {
        /// File for the private key; must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Verify that sealed audit logs were not changed. Exits with 0 if they were not, 1 if a line
    /// or file was changed or a seal is missing, and 2 if that cannot be determined
    Verify {
        /// Public keys (PEM) of the seals
        #[arg(long, value_name = "FILE", required_unless_present = "trust_embedded_key")]
        #[arg(conflicts_with = "trust_embedded_key")]
        public_key: Vec<PathBuf>,
        /// Trust the key that the seal itself contains. Detects accidents, not attackers: whoever
        /// replaces the seal chooses that key
        #[arg(long)]
        trust_embedded_key: bool,
        /// Block that the chain must contain, as BLOCK:SHA256 from the proxy's own log (head=...)
        #[arg(long, value_name = "HEAD")]
        head: Vec<Head>,
        /// Checkpoint that the chain must reach, if it is not next to the log
        /// (--audit-log-seal-checkpoint-file)
        #[arg(long, value_name = "FILE")]
        checkpoint_file: Vec<PathBuf>,
        /// Directory of the session recordings that events of the logs name
        /// [default: recordings beside the logs, and in directories beside them]
        #[arg(long, value_name = "DIR")]
        session_recording_dir: Option<PathBuf>,
        /// Log files, compressed or not; the files rotated from them are included
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs the subcommand.
pub(super) fn run(args: LogArgs) -> ExitCode {
    execute(args.command)
}

/// Runs a command of `log`.
pub(super) fn execute(command: LogCommand) -> ExitCode {
    let result = match command {
        LogCommand::Query(mut args) => {
            args.input.stores = Some(Arc::new(Buckets));
            return args.run(&LogSeals);
        }
        LogCommand::Report(args) => {
            return args.with_stores(Arc::new(Buckets)).run(&LogSeals);
        }
        LogCommand::Follow(args) => return args.run(),
        LogCommand::Index(args) => return args.run(),
        LogCommand::Export(mut args) => {
            args.stores = Some(Arc::new(Buckets));
            return args.run();
        }
        LogCommand::Keygen { file } => keygen(&file).map(|()| ExitCode::SUCCESS),
        LogCommand::Verify {
            public_key,
            head,
            checkpoint_file,
            files,
            session_recording_dir,
            ..
        } => {
            let recordings = session_recording_dir.as_deref();
            verify(&public_key, &head, &checkpoint_file, &files, recordings)
        }
    };
    result.unwrap_or_else(|error| output::failed(&error, 2))
}

fn keygen(file: &Path) -> anyhow::Result<()> {
    let key = SealKey::generate()?;
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    // The public one first: if that is there already, no private key is left without it.
    create(&public, 0o644, &key.public().to_pem())?;
    create(file, 0o600, &key.to_pem()?)?;
    output::line(format_args!("private key: {}", file.display()))?;
    output::line(format_args!("public key:  {}", public.display()))?;
    output::line(format_args!("key id:      {}", key.public()))?;
    Ok(())
}

fn create(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot make {}", path.display()))
}

fn verify(
    keys: &[PathBuf],
    heads: &[Head],
    checkpoints: &[PathBuf],
    files: &[PathBuf],
    recordings: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let mut trusted = Vec::new();
    for path in keys {
        trusted.extend(PublicKey::load(path).context("--public-key")?);
    }
    let report = verify::verify(files, Expected { keys: &trusted, heads, checkpoints })?;
    print(&report, !trusted.is_empty(), &mut io::stdout().lock())?;
    let checked = recordings::check(files, recordings)?;
    print_recordings(&checked, &mut io::stdout().lock())?;
    let is_intact = report.is_intact() && checked.changed.is_empty();
    Ok(if is_intact { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn print_recordings(checked: &Checked, out: &mut impl Write) -> io::Result<()> {
    let Checked { changed, intact, missing } = checked;
    if changed.is_empty() && *intact == 0 && *missing == 0 {
        return Ok(());
    }
    for finding in changed.iter().take(PRINTED) {
        writeln!(out, "{finding}")?;
    }
    let verdict = if changed.is_empty() { "intact" } else { "NOT INTACT" };
    write!(out, "session recordings {verdict}: {intact} as recorded, {} changed", changed.len())?;
    match missing {
        0 => writeln!(out),
        _ => writeln!(
            out,
            ", {missing} not found (deleted by retention, or elsewhere: --session-recording-dir)"
        ),
    }
}

fn print(report: &Report, trusted: bool, out: &mut impl Write) -> io::Result<()> {
    for finding in report.findings.iter().take(PRINTED) {
        writeln!(out, "{finding}")?;
    }
    if report.findings.len() > PRINTED {
        writeln!(out, "and {} more", report.findings.len() - PRINTED)?;
    }
    for warning in &report.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for key in &report.keys {
        let unknown = if trusted { "" } else { " (the key that the seal names: not verified)" };
        writeln!(out, "signed by {key}{unknown}")?;
    }
    let verdict = if report.is_intact() { "intact" } else { "NOT INTACT" };
    let seconds = report.took.as_secs_f64().max(1e-9);
    let count =
        |number: u64, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    write!(
        out,
        "{verdict}: {}, {}, {}",
        count(report.files, "file"),
        count(report.lines, "line"),
        count(report.blocks, "block")
    )?;
    if let Some((first, last)) = &report.times {
        write!(out, ", sealed {first} to {last}")?;
    }
    writeln!(
        out,
        "; {:.1} MB at {:.0} MB/s",
        report.bytes as f64 / 1e6,
        report.bytes as f64 / 1e6 / seconds
    )?;
    if let Some(head) = &report.head {
        writeln!(out, "head={head}")?;
    }
    Ok(())
}
