//! Compares recordings of sessions with the audit events that refer to them, for `log verify`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use audit_query::input;
use aws_lc_rs::digest::{Context, SHA256};
use memchr::memmem::Finder;
use serde::Deserialize;

const SHA256_KEY: &str = "kube-audit-proxy/session-sha256";
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The result of the comparison.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// A description of each recording that differs from its event.
    pub(super) changed: Vec<String>,
    /// The number of recordings that match their events.
    pub(super) intact: u64,
    /// The number of recordings that do not exist.
    pub(super) missing: u64,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "auditID", borrow)]
    audit_id: std::borrow::Cow<'a, str>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "kube-audit-proxy/session-recording", default)]
    file: String,
    #[serde(rename = "kube-audit-proxy/session-sha256", default)]
    sha256: String,
}

/// Compares the recordings that the events of these logs refer to. They are looked for in `dir` if
/// given, otherwise in the directories of the logs and in their subdirectories.
///
/// # Errors
/// If a log cannot be read.
pub(super) fn check(logs: &[PathBuf], dir: Option<&Path>) -> anyhow::Result<Checked> {
    let finder = Finder::new(SHA256_KEY);
    let (mut checked, mut seen) = (Checked::default(), HashSet::new());
    for input in input::resolve(logs)? {
        if input.is_stdin() {
            continue;
        }
        let dirs = match dir {
            Some(dir) => vec![dir.to_owned()],
            None => directories_of(&input.path),
        };
        let mut log = open(&input.path)?;
        let mut line = Vec::new();
        while log.read_until(b'\n', &mut line)? > 0 {
            if finder.find(&line).is_some()
                && let Ok(event) = serde_json::from_slice::<Event<'_>>(&line)
                && seen.insert((event.annotations.file.clone(), event.annotations.sha256.clone()))
            {
                check_one(&event, &dirs, &mut checked)?;
            }
            line.clear();
        }
    }
    Ok(checked)
}

fn check_one(event: &Event<'_>, dirs: &[PathBuf], checked: &mut Checked) -> io::Result<()> {
    let Annotations { file, sha256 } = &event.annotations;
    // The file name must not be a path.
    if sha256.is_empty() || file.is_empty() || file.contains('/') {
        return Ok(());
    }
    let found = dirs.iter().map(|dir| dir.join(file)).find(|path| path.is_file());
    let Some(path) = found else {
        checked.missing += 1;
        return Ok(());
    };
    if digest(&path)? == *sha256 {
        checked.intact += 1;
    } else {
        let id = &event.audit_id;
        let what = "the recording is not what was recorded: its SHA-256 differs from that in event";
        checked.changed.push(format!("{}: {what} {id}", path.display()));
    }
    Ok(())
}

/// Returns the directory of a log, and its subdirectories.
fn directories_of(log: &Path) -> Vec<PathBuf> {
    let dir = log.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    std::iter::once(dir.to_owned()).chain(dirs).collect()
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
    let start = reader.fill_buf()?;
    if start.starts_with(&ZSTD) {
        Ok(Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(reader)?)))
    } else if start.starts_with(&GZIP) {
        Ok(Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(reader))))
    } else {
        Ok(Box::new(reader))
    }
}

fn digest(path: &Path) -> io::Result<String> {
    use std::fmt::Write;
    let (mut file, mut context) = (File::open(path)?, Context::new(&SHA256));
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
    }
    let mut text = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
