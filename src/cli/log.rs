//! `kube-audit-proxy log`: keys for sealing audit logs, and whether a sealed log is what was written.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use crate::sink::seal::verify::{self, Expected, Report};
use crate::sink::seal::{Head, PublicKey, SealKey};

/// Findings that are printed; a log that was replaced has as many as lines.
const PRINTED: usize = 200;

/// Arguments of `log`.
#[derive(Debug, clap::Args)]
pub struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LogCommand {
    /// Makes an Ed25519 key for --audit-log-seal-key-file, and FILE.pub for log verify
    Keygen {
        /// Where the private key goes; must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Verifies that sealed audit logs are as they were written. Exit code: 0 if they are, 1 if
    /// something was changed or a seal is missing, 2 if that cannot be determined
    Verify {
        /// Public keys (PEM) that seals may be signed by
        #[arg(long, value_name = "FILE", required_unless_present = "trust_embedded_key")]
        #[arg(conflicts_with = "trust_embedded_key")]
        public_key: Vec<PathBuf>,
        /// Trust the key that the seal itself names. Detects accidents, not attackers: whoever replaces
        /// the seal chooses that key
        #[arg(long)]
        trust_embedded_key: bool,
        /// A block that the chain must contain, as BLOCK:SHA256 from the proxy's own log (head=...)
        #[arg(long, value_name = "HEAD")]
        head: Vec<Head>,
        /// Checkpoint that the chain must go as far as, if it is not beside the log
        /// (--audit-log-seal-checkpoint-file)
        #[arg(long, value_name = "FILE")]
        checkpoint_file: Vec<PathBuf>,
        /// Log files, compressed or not; each brings the files rotated from it that are beside it
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
    },
}

/// Runs the subcommand.
pub fn run(args: LogArgs) -> ExitCode {
    let result = match args.command {
        LogCommand::Keygen { file } => keygen(&file).map(|()| ExitCode::SUCCESS),
        LogCommand::Verify { public_key, head, checkpoint_file, files, .. } => {
            verify(&public_key, &head, &checkpoint_file, &files)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", super::error::describe(&error));
        ExitCode::from(2)
    })
}

fn keygen(file: &Path) -> anyhow::Result<()> {
    let key = SealKey::generate()?;
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    // The public one first: if that is there already, no private key is left without it.
    create(&public, 0o644, &key.public().to_pem())?;
    create(file, 0o600, &key.to_pem()?)?;
    println!("private key: {}\npublic key:  {}", file.display(), public.display());
    println!("key id:      {}", key.public());
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
) -> anyhow::Result<ExitCode> {
    let mut trusted = Vec::new();
    for path in keys {
        trusted.extend(PublicKey::load(path).context("--public-key")?);
    }
    let report = verify::verify(files, Expected { keys: &trusted, heads, checkpoints })?;
    print(&report, !trusted.is_empty(), &mut io::stdout().lock())?;
    Ok(if report.is_intact() { ExitCode::SUCCESS } else { ExitCode::from(1) })
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
