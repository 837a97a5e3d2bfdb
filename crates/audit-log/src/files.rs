//! File operations of both the log file and the webhook's spool.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The locks of a killed process may need a moment to disappear.
const TRIES: u32 = if cfg!(test) { 1 } else { 10 };
const PAUSE: Duration = Duration::from_millis(50);

/// Creates a directory, and those above it that are missing, with mode 0700.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Returns the directory of a file. `None`: the path has no name of a directory.
pub(super) fn parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| parent.as_os_str() != OsStr::new(""))
}

/// Appends to the name of a file.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Identifies a file, whatever its path is.
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
    /// Locked until the file is closed, which the end of the process does, too.
    Held,
    /// Another process, or another backend of this one, has locked it.
    InUse,
    /// The file system has no locks, or not of this kind of file.
    Unsupported(io::Error),
}

/// Locks a file or directory (`flock(2)`) until it is closed, unless another process holds the
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
