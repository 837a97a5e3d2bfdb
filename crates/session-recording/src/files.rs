//! The directory of recordings: names, salvage after a crash, retention.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::cast::{self, Summary};
use crate::read::{Item, LineReader, parse_item};

/// The suffix of a recording that is not finished.
const PARTIAL: &str = ".partial";
/// The suffix of a file that is being salvaged.
const SALVAGE: &str = ".salvage";
/// Maximum number of attempts to find an unused name.
const MAX_NAMES: u32 = 1000;

/// A recording that was created.
#[derive(Debug)]
pub(crate) struct Created {
    /// Locked until it is closed.
    pub(crate) file: File,
    pub(crate) partial: PathBuf,
    pub(crate) path: PathBuf,
    pub(crate) name: String,
}

/// Creates a recording with an unused name that only its owner can read.
pub(crate) fn create(
    dir: &Path,
    start: Timestamp,
    audit_id: &str,
    compress: bool,
) -> io::Result<Created> {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let safe = |c: char| if is_safe(c) { c } else { '_' };
    let id: String = audit_id.chars().take(64).map(safe).collect();
    let extension = if compress { "cast.zst" } else { "cast" };
    let stem = format!("{}-{id}", start.strftime("%Y%m%dT%H%M%S.%6fZ"));
    for number in 1..=MAX_NAMES {
        // A client chooses its audit ID, and may send the same one again.
        let again = if number > 1 { format!("-{number}") } else { String::new() };
        let name = format!("{stem}{again}.{extension}");
        let path = dir.join(&name);
        let partial = dir.join(format!("{name}{PARTIAL}"));
        if path.exists() {
            continue;
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial) {
            Ok(file) => {
                // The lock shows a process that is starting that the file is in use, and must not
                // be salvaged.
                file.try_lock()?;
                return Ok(Created { file, partial, path, name });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{stem} exists too many times")))
}

/// Creates the directory if necessary, and checks that files can be created in it.
pub(crate) fn prepare(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    File::create(&probe)?;
    fs::remove_file(probe)
}

/// Returns whether a file has the name of a finished recording.
pub fn is_recording(name: &str) -> bool {
    let bytes = name.as_bytes();
    let is_named = name.ends_with(".cast") || name.ends_with(".cast.zst");
    is_named
        && bytes.len() > 24
        && bytes[8] == b'T'
        && &bytes[22..24] == b"Z-"
        && bytes[..8].iter().all(u8::is_ascii_digit)
}

/// Returns the finished recordings in a directory, oldest first.
///
/// # Errors
/// If the directory cannot be read.
pub fn recordings(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_recording) {
            paths.push(entry.path());
        }
    }
    // Names begin with the time.
    paths.sort();
    Ok(paths)
}

/// Finishes the recordings that a process left behind when it ended abruptly. Returns how many
/// there were.
pub(crate) fn salvage_all(dir: &Path) -> io::Result<usize> {
    let mut salvaged = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(SALVAGE) {
            let _ = fs::remove_file(&path);
        }
        let Some(finished) = name.strip_suffix(PARTIAL).filter(|name| is_recording(name)) else {
            continue;
        };
        match salvage(&path, &dir.join(finished)) {
            Ok(true) => {
                salvaged += 1;
                tracing::warn!(file = finished, "salvaged a session recording");
            }
            // Another process is writing it.
            Ok(false) => {}
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "cannot salvage a session recording");
            }
        }
    }
    Ok(salvaged)
}

fn salvage(partial: &Path, path: &Path) -> io::Result<bool> {
    let file = File::open(partial)?;
    if file.try_lock().is_err() {
        return Ok(false);
    }
    let is_compressed = path.extension().is_some_and(|extension| extension == "zst");
    let mut temporary = partial.as_os_str().to_owned();
    temporary.push(SALVAGE);
    let temporary = PathBuf::from(temporary);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let out = BufWriter::new(options.open(&temporary)?);
    let reader = LineReader::lenient(BufReader::new(&file), is_compressed)?;
    let written = if is_compressed {
        let mut encoder = zstd::stream::write::Encoder::new(out, 3)?;
        copy_lines(reader, &mut encoder)?;
        encoder.finish()?
    } else {
        let mut out = out;
        copy_lines(reader, &mut out)?;
        out
    };
    written.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::remove_file(partial)?;
    Ok(true)
}

/// Copies the complete lines, and appends a summary of them.
fn copy_lines(mut reader: LineReader<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut summary = Summary { salvaged: true, ..Summary::default() };
    summary.incomplete = "the proxy ended abruptly during the session".to_owned();
    let mut last = 0.0;
    let mut is_first = true;
    while let Some(line) = reader.next_line()? {
        if is_first {
            is_first = false;
        } else {
            let Some(item) = parse_item(&line) else { break };
            last = item.at();
            match &item {
                Item::Output { bytes, .. } => summary.bytes_out += bytes.len() as u64,
                Item::Input { bytes, .. } => summary.bytes_in += bytes.len() as u64,
                Item::Summary(_) => continue,
                _ => {}
            }
        }
        out.write_all(&line)?;
        out.write_all(b"\n")?;
    }
    summary.duration = last;
    let mut end = Vec::new();
    cast::summary(Duration::from_secs_f64(last.max(0.0)), &summary, &mut end);
    out.write_all(&end)
}

/// Limits the age and the total size of recordings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Older recordings are deleted.
    pub max_age: Option<Duration>,
    /// The oldest recordings are deleted while the total size exceeds this number of bytes.
    pub max_total_bytes: Option<u64>,
}

/// Deletes recordings beyond the limits. Returns their number.
pub(crate) fn retain(dir: &Path, retention: Retention, now: SystemTime) -> io::Result<usize> {
    if retention.max_age.is_none() && retention.max_total_bytes.is_none() {
        return Ok(0);
    }
    let mut files = Vec::new();
    for path in recordings(dir)? {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let age = metadata.modified().ok().and_then(|at| now.duration_since(at).ok());
        files.push((path, age.unwrap_or_default(), metadata.len()));
    }
    let mut total: u64 = files.iter().map(|(_, _, size)| size).sum();
    let mut deleted = 0;
    for (path, age, size) in files {
        let is_old = retention.max_age.is_some_and(|max| age > max);
        let is_too_much = retention.max_total_bytes.is_some_and(|max| total > max);
        if !is_old && !is_too_much {
            continue;
        }
        fs::remove_file(&path)?;
        tracing::info!(file = %path.display(), "deleted a session recording");
        total -= size;
        deleted += 1;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests;
