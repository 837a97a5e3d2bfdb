//! The output of the writer: a file or standard output.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::LogError;
use super::line::Line;
use super::seal::Block;

/// A destination of lines.
pub(super) trait Output: Send {
    /// Writes some of the lines, in order, and at least tries the first.
    fn write(&mut self, lines: &[Line]) -> Written;

    /// Returns whether a write usually takes only microseconds, so that worker threads may write.
    fn is_quick(&self) -> bool {
        false
    }

    /// Checks whether the output is still the one at its path. Called about twice a second. Returns
    /// whether another one was opened.
    fn check(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    /// Reopens the output.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Returns the files that were written, and the directory if it was changed, since the last
    /// call. They may not be on the disk.
    fn unsynced(&mut self) -> Unsynced {
        Unsynced::default()
    }

    /// Takes back what could not be synced.
    fn still_unsynced(&mut self, _unsynced: Unsynced) {}

    /// Syncs everything that was written.
    fn sync(&mut self) -> io::Result<()> {
        let unsynced = self.unsynced();
        unsynced.sync().inspect_err(|_| self.still_unsynced(unsynced))
    }

    /// Returns the blocks that are not sealed yet. `stopped` means that no line follows.
    fn unsealed(&mut self, _stopped: bool) -> VecDeque<Block> {
        VecDeque::new()
    }

    /// Takes back the blocks that could not be sealed, and the reason.
    fn sealed(&mut self, _unsealed: VecDeque<Block>, _failed: Option<String>) {}

    /// Returns whether a write is expected to succeed after a failed one; `false` if only a write
    /// can show it.
    fn probe(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Files and a directory that may not be on the disk. They can be synced while other threads write.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// The oldest first.
    pub(super) files: Vec<Arc<File>>,
    /// The directory, if files were created or renamed in it.
    pub(super) folder: Option<PathBuf>,
}

impl Unsynced {
    /// Syncs the files and the directory.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| file.sync_data())?;
        match &self.folder {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Returns whether there is nothing to sync.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.folder.is_none()
    }
}

/// The result of [`Output::write`].
#[derive(Debug)]
pub(super) struct Written {
    /// Number of lines, from the first, that were written completely.
    pub(super) whole: usize,
    /// Why the next line was not written; later ones were not tried. `None` if at least one line
    /// was written.
    pub(super) error: Option<io::Error>,
}

/// Standard output: a terminal, a pipe, or a file that another process manages.
#[derive(Debug)]
pub(super) struct Stdout {
    file: File,
    torn: bool,
}

impl Stdout {
    /// Opens a handle that bypasses Rust's own buffer.
    pub(super) fn open() -> Result<Stdout, LogError> {
        let descriptor = io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Stdout)?;
        Ok(Stdout { file: File::from(descriptor), torn: false })
    }
}

impl Output for Stdout {
    fn write(&mut self, lines: &[Line]) -> Written {
        let appended = append(&mut self.file, lines, self.torn);
        self.torn = appended.torn;
        Written { whole: appended.whole, error: appended.error }
    }
}

/// The result of [`append`].
#[derive(Debug)]
pub(super) struct Appended {
    /// Number of lines that were written completely.
    pub(super) whole: usize,
    /// Number of bytes that were written.
    pub(super) bytes: u64,
    /// Number of bytes up to the end of the last complete line.
    pub(super) whole_bytes: u64,
    /// Whether the output ends with a partial line.
    pub(super) torn: bool,
    /// Why the next line was not written completely.
    pub(super) error: Option<io::Error>,
}

/// Writes the lines with as few system calls as possible. If the output ends with a partial line
/// (`torn`), terminates that line first.
pub(super) fn append(output: &mut impl Write, lines: &[Line], torn: bool) -> Appended {
    let (bytes, error) = match lines {
        [line] if !torn => write_all(output, &mut [IoSlice::new(line)]),
        _ => {
            let end: &[u8] = if torn { b"\n" } else { b"" };
            let mut slices = Vec::with_capacity(lines.len() + 1);
            slices.push(IoSlice::new(end));
            slices.extend(lines.iter().map(|line| IoSlice::new(line)));
            write_all(output, &mut slices)
        }
    };
    let mut appended = Appended { whole: 0, bytes, whole_bytes: 0, torn, error };
    if torn {
        if bytes == 0 {
            return appended;
        }
        appended.whole_bytes = 1;
    }
    for line in lines {
        let end = appended.whole_bytes + line.len() as u64;
        if end > bytes {
            break;
        }
        appended.whole_bytes = end;
        appended.whole += 1;
    }
    appended.torn = appended.whole_bytes < bytes;
    appended
}

/// Writes all slices until an error occurs. Returns the number of written bytes.
fn write_all(output: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> (u64, Option<io::Error>) {
    // A full pipe returns `WouldBlock` if a process that shares our standard output has made it
    // non-blocking. Its reader gets one second before that counts as an error.
    const PAUSE: Duration = Duration::from_millis(1);
    const PAUSES: u32 = 1000;
    let mut pauses = 0;
    let mut bytes = 0;
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let result = match slices {
            [slice] => output.write(slice),
            _ => output.write_vectored(slices),
        };
        match result {
            Ok(0) => return (bytes, Some(ErrorKind::WriteZero.into())),
            Ok(written) => {
                bytes += written as u64;
                pauses = 0;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && pauses < PAUSES => {
                pauses += 1;
                std::thread::sleep(PAUSE);
            }
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

#[cfg(test)]
mod tests;
