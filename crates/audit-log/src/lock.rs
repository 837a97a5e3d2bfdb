//! Locks a sealed log, because two writers would fork its chain.
//!
//! The lock is an `flock` on a file next to the log, `audit.log.lock`, which is not renamed by
//! rotation, and on the log itself. The kernel locks inodes, so another path to the log (`a/../a`,
//! a symbolic link, a hard link, a bind mount) leads to the same lock. The locks end with the
//! process.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::LogError;
use super::files::{Lock, parent, try_lock, with_suffix};

/// The locks of one log. Dropping it releases them.
#[derive(Debug)]
pub(super) struct LogLock {
    _files: Vec<File>,
}

impl LogLock {
    /// Locks the log at `path`, before it is opened. Its directory must exist.
    ///
    /// # Errors
    /// Returns an error if another process, or another backend of this one, has the lock, or if the
    /// lock file cannot be opened.
    pub(super) fn acquire(path: &Path) -> Result<LogLock, LogError> {
        let mut files = Vec::new();
        for lock in lock_paths(path) {
            files.extend(acquire(path, &lock)?);
        }
        Ok(LogLock { _files: files })
    }
}

/// Locks the open log file itself, because the lock file does not cover hard links and bind mounts.
///
/// # Errors
/// Returns an error if another process, or another backend of this one, has locked it.
pub(super) fn lock_file(path: &Path, file: &File) -> Result<(), LogError> {
    match try_lock(file) {
        Lock::Held | Lock::Unsupported(_) => Ok(()),
        Lock::InUse => Err(LogError::Locked { path: path.to_owned(), owner: String::new() }),
    }
}

/// Returns the lock files: next to the given path and, if that is a symbolic link, next to its
/// target.
fn lock_paths(path: &Path) -> Vec<PathBuf> {
    let mut paths = vec![lock_path(path)];
    if let Ok(real) = fs::canonicalize(path) {
        let given = fs::canonicalize(parent(path).unwrap_or(Path::new(".")))
            .ok()
            .and_then(|parent| Some(parent.join(path.file_name()?)));
        if given.is_none_or(|given| given != real) {
            paths.push(lock_path(&real));
        }
    }
    paths
}

fn lock_path(path: &Path) -> PathBuf {
    with_suffix(path, ".lock")
}

/// Locks one file. Returns `None` if the file system does not support locks.
fn acquire(log: &Path, path: &Path) -> Result<Option<File>, LogError> {
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| LogError::LockFile { path: path.to_owned(), source })?;
    match try_lock(&file) {
        Lock::Held => {
            // Only for the error message of other processes.
            let owner = format!("{}\n", std::process::id());
            let _ = file.set_len(0).and_then(|()| file.write_all(owner.as_bytes()));
            Ok(Some(file))
        }
        Lock::Unsupported(_) => {
            tracing::warn!(
                "the file system of {} does not support locks; make sure that no other process \
                 writes the audit log {}",
                path.display(),
                log.display()
            );
            Ok(None)
        }
        Lock::InUse => Err(LogError::Locked { path: log.to_owned(), owner: owner(&mut file) }),
    }
}

/// Returns ` (process 4711)`, if the owner of the lock is known.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(20).read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(id)) if id == std::process::id() => " (this process)".to_owned(),
        (Ok(_), Ok(id)) => format!(" (process {id})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::test_folder::TestFolder;

    fn is_refused(path: &Path) -> bool {
        match LogLock::acquire(path) {
            Err(LogError::Locked { owner, .. }) => {
                assert_eq!(owner, " (this process)");
                true
            }
            Err(error) => panic!("{error}"),
            Ok(_) => false,
        }
    }

    #[test]
    fn a_log_is_locked_however_its_path_is_spelled() {
        let folder = TestFolder::new();
        fs::create_dir(folder.join("a")).unwrap();
        let log = folder.join("a/audit.log");
        fs::write(&log, "").unwrap();
        symlink(folder.join("a"), folder.join("link")).unwrap();
        symlink(&log, folder.join("log")).unwrap();
        let lock = LogLock::acquire(&log).unwrap();
        for spelling in ["a/audit.log", "a/../a/audit.log", "link/audit.log", "log"] {
            assert!(is_refused(&folder.join(spelling)), "{spelling}");
        }
        LogLock::acquire(&folder.join("a/other.log")).unwrap();
        drop(lock);
        let lock = LogLock::acquire(&folder.join("log")).unwrap();
        assert!(is_refused(&log), "through the link");
        drop(lock);
        assert!(!is_refused(&log));
    }

    #[test]
    fn a_hard_link_is_the_same_file() {
        let folder = TestFolder::new();
        let (log, link) = (folder.join("audit.log"), folder.join("link.log"));
        fs::write(&log, "").unwrap();
        fs::hard_link(&log, &link).unwrap();
        let first = File::open(&log).unwrap();
        lock_file(&log, &first).unwrap();
        let error = lock_file(&link, &File::open(&link).unwrap()).unwrap_err().to_string();
        assert!(error.contains("link.log") && error.contains("another"), "{error}");
    }
}
