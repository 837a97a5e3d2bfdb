//! From paths on the command line to the files of each log, oldest first.

pub(crate) mod names;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use self::names::{LogName, Stamp};
use crate::objects::{self, Object, Stores, Url};

/// One file or object to read, or standard input.
#[derive(Debug)]
pub struct Input {
    /// Its path or URL; `-` for standard input.
    pub path: PathBuf,
    /// The live log is opened before its rotated files are listed, so that a rotation in between
    /// neither hides nor repeats a file.
    pub(crate) file: Option<File>,
    /// An object, instead of a file.
    pub(crate) object: Option<Object>,
}

/// Why a path cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Neither a file nor rotated files of that name.
    #[error("{path}: no such file, and no rotated files such as {example} beside it")]
    NotFound {
        /// As given.
        path: String,
        /// What a rotated file of this log would be called.
        example: String,
    },
    /// A folder without logs.
    #[error(
        "{0}: no audit logs in this folder; files must end in .log, .json, .jsonl, or .ndjson, \
         plain, .gz, or .zst"
    )]
    Empty(String),
    /// No permission, or another error of the file system.
    #[error("{path}: {error}")]
    Io {
        /// As given.
        path: String,
        /// What the system returned.
        error: io::Error,
    },
    /// A bucket cannot be listed.
    #[error("{path}: {error}")]
    Store {
        /// The URL.
        path: String,
        /// What is wrong, and the remedy.
        error: io::Error,
    },
    /// No object of that key, and none below it.
    #[error("{0}: no such object, and no objects below it")]
    NoObjects(String),
    /// Objects, but no logs.
    #[error(
        "{0}: no audit logs among these objects; keys must end in .parquet, .log, .json, .jsonl, or \
         .ndjson, plain, .gz, or .zst"
    )]
    NoLogs(String),
    /// A URL, where only files are read.
    #[error(
        "{0}: this command reads files only; log query, log report, and log export read object storage"
    )]
    FilesOnly(String),
    /// `-` more than once.
    #[error("-: standard input can be read only once")]
    StdinTwice,
}

impl Input {
    /// A file by its path.
    pub fn file(path: impl Into<PathBuf>) -> Input {
        Input { path: path.into(), file: None, object: None }
    }

    /// Whether this is standard input.
    pub fn is_stdin(&self) -> bool {
        self.path.as_os_str() == "-"
    }
}

/// Returns the files to read for `paths`, in the order of time within each log: for a log, the
/// files rotated from it and then itself; for a folder, all logs in it; `-` is standard input. A
/// file that several paths stand for is read once.
///
/// # Errors
/// A path does not exist or cannot be listed, or is a URL.
pub fn resolve(paths: &[PathBuf]) -> Result<Vec<Input>, InputError> {
    resolve_all(paths, None, (None, None))
}

/// Like [`resolve`], but paths may also be URLs of objects, which `stores` opens. Objects in which
/// no event is between the times of `period` (microseconds since 1970) are left out.
pub(crate) fn resolve_all(
    paths: &[PathBuf],
    stores: Option<&dyn Stores>,
    period: (Option<i64>, Option<i64>),
) -> Result<Vec<Input>, InputError> {
    let mut inputs = Inputs::default();
    for path in paths {
        if let Some(url) = Url::parse(path) {
            let stores = stores.ok_or_else(|| InputError::FilesOnly(path.display().to_string()))?;
            let mut found = objects::find(url, stores, period)?;
            // Objects that are found twice are read once; most often there is one URL.
            if paths.iter().filter(|path| objects::is_url(path)).nth(1).is_some() {
                found.retain(|input| inputs.urls.insert(input.path.clone()));
            }
            inputs.list.append(&mut found);
            continue;
        }
        if path.as_os_str() == "-" {
            if inputs.list.iter().any(Input::is_stdin) {
                return Err(InputError::StdinTwice);
            }
            inputs.list.push(Input::file("-"));
            continue;
        }
        let io = |error| InputError::Io { path: path.display().to_string(), error };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => inputs.add_folder(path).map_err(io)?.then_some(()),
            Ok(_) => Some(inputs.add_log(path, true).map_err(io)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let before = inputs.list.len();
                // A folder that does not exist has no rotated files either.
                let _ = inputs.add_log(path, false);
                if inputs.list.len() == before {
                    return Err(not_found(path));
                }
                Some(())
            }
            Err(error) => return Err(io(error)),
        }
        .ok_or_else(|| InputError::Empty(path.display().to_string()))?;
    }
    Ok(inputs.list)
}

/// The log that a file was rotated from; the file itself, if it was not.
pub(crate) fn log_of(path: &Path) -> PathBuf {
    let name = LogName::parse(path.file_name().unwrap_or_default());
    match name.stamp {
        Stamp::Live if !name.compressed => path.to_owned(),
        _ => path.with_file_name(OsStr::from_bytes(&name.base)),
    }
}

fn not_found(path: &Path) -> InputError {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    InputError::NotFound {
        path: path.display().to_string(),
        example: format!("{stem}-2026-11-23T04-42-40.000{}", extension.unwrap_or_default()),
    }
}

#[derive(Debug, Default)]
struct Inputs {
    list: Vec<Input>,
    /// Device and inode of each file.
    seen: HashSet<(u64, u64)>,
    /// URLs of objects.
    urls: HashSet<PathBuf>,
}

impl Inputs {
    fn is_new(&mut self, metadata: &Metadata) -> bool {
        // What is no regular file (a pipe) cannot be told from another by its inode alone.
        !metadata.is_file() || self.seen.insert((metadata.dev(), metadata.ino()))
    }

    /// A log by its path. `exists`: the live file is there.
    fn add_log(&mut self, path: &Path, exists: bool) -> io::Result<()> {
        let name = LogName::parse(path.file_name().unwrap_or_default());
        let live = match exists {
            true => Some(File::open(path)?),
            false => None,
        };
        let metadata = live.as_ref().map(File::metadata).transpose()?;
        let is_new = metadata.as_ref().is_some_and(|metadata| self.is_new(metadata));
        let is_regular = metadata.as_ref().is_none_or(Metadata::is_file);
        if name.stamp == Stamp::Live && !name.compressed && is_regular {
            for (_, rotated) in rotated(&folder_of(path), &name.base)? {
                self.add_rotated(rotated);
            }
        }
        if is_new {
            let keep = is_regular && name.stamp == Stamp::Live;
            let file = if keep { live } else { None };
            self.list.push(Input { path: path.to_owned(), file, object: None });
        }
        Ok(())
    }

    fn add_rotated(&mut self, path: PathBuf) {
        // Gone since it was listed: removed by retention, or compressed, and then opened as such.
        if fs::metadata(&path).map_or(true, |metadata| self.is_new(&metadata)) {
            self.list.push(Input::file(path));
        }
    }

    /// All logs in a folder. Returns whether there is one.
    fn add_folder(&mut self, folder: &Path) -> io::Result<bool> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = LogName::parse(&entry.file_name());
            if name.is_log() && fs::metadata(entry.path()).is_ok_and(|file| file.is_file()) {
                names.push((name, entry.path()));
            }
        }
        names.sort();
        for (_, path) in without_copies(names.clone()) {
            self.add_rotated(path);
        }
        Ok(!names.is_empty())
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The files rotated from a log, oldest first.
pub(crate) fn rotated(folder: &Path, base: &[u8]) -> io::Result<Vec<(LogName, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = LogName::parse(&entry.file_name());
        if name.stamp != Stamp::Live && name.base == base {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(without_copies(found))
}

/// Of a plain file and its compressed copy, which a crash leaves behind, only the plain one.
fn without_copies(mut sorted: Vec<(LogName, PathBuf)>) -> Vec<(LogName, PathBuf)> {
    sorted.dedup_by(|later, earlier| {
        later.0.base == earlier.0.base && later.0.stamp == earlier.0.stamp
    });
    sorted
}

#[cfg(test)]
mod tests;
