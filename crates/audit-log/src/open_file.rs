//! The open log file, and its state when it was last checked.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::disk;
use super::files::{FileId, with_suffix};

/// Maximum number of bytes at the end of the file that are examined when it is opened.
const TAIL: u64 = 4 << 20;

/// An open log file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: Arc<File>,
    pub(super) id: FileId,
    /// Whether it is a regular file, which can be truncated, rotated and read, unlike a pipe or
    /// device.
    pub(super) regular: bool,
    /// The expected length of the file.
    pub(super) size: u64,
    /// The length when the file was last seen at its path.
    pub(super) seen: u64,
    /// Whether the file had content when it was opened, and has not been written to yet.
    pub(super) inherited: bool,
    /// Whether the file ends with a partial line.
    pub(super) torn: bool,
}

impl OpenFile {
    pub(super) fn open(path: &Path) -> io::Result<OpenFile> {
        // Opening a pipe for reading would make this process the reader that it waits for.
        let readable = fs::metadata(path).map_or(true, |metadata| metadata.is_file());
        let options = |read| {
            let mut options = OpenOptions::new();
            options.read(read).append(true).create(true).mode(0o600);
            // Without this flag, opening a pipe blocks until it has a reader.
            options.custom_flags(OFlags::NONBLOCK.bits() as i32);
            options
        };
        disk::step()?;
        let file = match options(readable).open(path) {
            Err(error) if readable && error.kind() == io::ErrorKind::PermissionDenied => {
                options(false).open(path)?
            }
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                return Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "it is a named pipe that no process reads; start its reader first",
                ));
            }
            result => result?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            // Writes may block until the reader accepts them.
            let flags = fcntl_getfl(&file)?;
            fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        }
        let mut open = OpenFile {
            file: Arc::new(file),
            id: FileId::of(&metadata),
            regular: metadata.is_file(),
            size: 0,
            seen: 0,
            inherited: false,
            torn: false,
        };
        open.measure();
        Ok(open)
    }

    /// Updates the length, and whether the file ends with a newline.
    pub(super) fn measure(&mut self) {
        if !self.regular {
            return;
        }
        self.size = self.file.metadata().map_or(self.size, |metadata| metadata.len());
        self.seen = self.size;
        self.inherited = self.size > 0;
        let mut last = [b'\n'];
        if self.size > 0 && self.file.read_exact_at(&mut last, self.size - 1).is_err() {
            // The file cannot be read. Assume the usual case, a complete line.
            last = [b'\n'];
        }
        self.torn = last != [b'\n'];
    }

    /// Returns the end of the last complete line, determined by content: a crash of the machine can
    /// leave a partial line, or zeros in place of data. Returns `None` if the file is not a regular
    /// one, cannot be read, or only lacks a newline.
    fn mended_end(&self) -> Option<u64> {
        if !self.regular || self.size == 0 {
            return None;
        }
        let start = self.size.saturating_sub(TAIL);
        let mut tail = vec![0; (self.size - start) as usize];
        self.file.read_exact_at(&mut tail, start).ok()?;
        // No event contains a zero byte.
        let zero = tail.iter().position(|byte| *byte == 0);
        let good = &tail[..zero.unwrap_or(tail.len())];
        let end = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = &good[end..];
        let whole = zero.is_none() && serde_json::from_slice::<serde_json::Value>(rest).is_ok();
        // If the partial line is longer than the examined part, it is terminated with a newline
        // instead.
        let unknown = end == 0 && start > 0;
        (!whole && !unknown).then_some(start + end as u64)
    }

    /// Returns whether the metadata is that of this file.
    pub(super) fn is(&self, metadata: &Metadata) -> bool {
        FileId::of(metadata) == self.id
    }

    /// Returns whether the file was deleted.
    pub(super) fn unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Copies owner and mode of `old`. Errors are ignored: a log that only this user can read is
    /// better than none.
    pub(super) fn resemble(&self, old: &OpenFile) {
        let (Ok(old), Ok(new)) = (old.file.metadata(), self.file.metadata()) else {
            return;
        };
        copy_owner_and_mode(&old, &new, &self.file);
    }
}

/// Sets the owner and mode of `file` (with the metadata `new`) to those of `old`, as far as
/// permitted.
pub(super) fn copy_owner_and_mode(old: &Metadata, new: &Metadata, file: &File) {
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        let _ = fchown(file, Some(old.uid()), Some(old.gid()));
    }
    if old.mode() != new.mode() {
        let _ = file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777));
    }
}

/// Repairs the end of the log at startup, so that each line is a complete event. A line that only
/// lacks its newline is kept; other partial lines are moved to a separate file.
pub(super) fn mend(path: &Path, open: &mut OpenFile) {
    let Some(end) = open.mended_end().filter(|end| *end < open.size) else {
        return;
    };
    let aside = with_suffix(path, ".torn");
    let set_aside = || {
        let mut options = OpenOptions::new();
        let to = options.append(true).create(true).mode(0o600).open(&aside)?;
        let mut rest = vec![0; (open.size - end) as usize];
        open.file.read_exact_at(&mut rest, end)?;
        rest.push(b'\n');
        disk::append(&to, &rest)?;
        to.sync_all()?;
        disk::step()?;
        open.file.set_len(end)
    };
    match set_aside() {
        Ok(()) => tracing::warn!(
            "the audit log {} ended with a partial line; its {} bytes were moved to {}",
            path.display(),
            open.size - end,
            aside.display()
        ),
        Err(error) => tracing::error!(
            "the audit log {} ends with a partial line of {} bytes, which cannot be moved to {}: \
             {error}; it is terminated as a line",
            path.display(),
            open.size - end,
            aside.display()
        ),
    }
    open.measure();
}
