//! File operations that the log file and the spool have in common.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Number of attempts to get a lock. The locks of a killed process may need a moment to disappear.
const TRIES: u32 = if cfg!(test) { 1 } else { 10 };
const PAUSE: Duration = Duration::from_millis(50);

/// Creates a directory, and missing ones above it, with mode 0700.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Returns the directory of a file; `None` if the path names no directory.
pub(super) fn parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| parent.as_os_str() != OsStr::new(""))
}

/// Appends to the name of a file.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Identifies a file independently of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> FileId {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The outcome of an attempt to lock a file or directory.
#[derive(Debug)]
pub(crate) enum Lock {
    /// The file is locked until it is closed, at the latest by the end of the process.
    Held,
    /// Another process, or another backend of this one, has locked it.
    InUse,
    /// The file system does not support locks, or not for this kind of file.
    Unsupported(io::Error),
}

/// Locks a file or directory with `flock(2)` until it is closed, unless another process holds the
/// lock.
pub(crate) fn try_lock(file: &File) -> Lock {
    let mut tries = 0;
    loop {
        match file.try_lock() {
            Ok(()) => return Lock::Held,
            Err(TryLockError::WouldBlock) if tries == TRIES => return Lock::InUse,
            Err(TryLockError::WouldBlock) => {
                tries += 1;
                std::thread::sleep(PAUSE);
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Lock::Unsupported(error),
        }
    }
}
