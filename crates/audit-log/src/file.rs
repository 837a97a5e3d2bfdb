//! The log file: opens it, writes to it, and detects that it was moved, deleted or truncated.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::backups::{LogClock, ProtectedBackups};
use super::clock::Clock;
use super::config::Rotation;
use super::disk;
use super::error::LogError;
use super::files::{create_private_dir, parent};
use super::line::Line;
use super::lock::{LogLock, lock_file};
use super::open_file::{OpenFile, mend};
use super::output::{Output, Unsynced, Written, append};
use super::rotate::{BackupNamer, BackupNames, Rotator};
use super::seal::{Block, Chain, LogSeal, SealConfig, SealKey, recover};
use crate::LogMetrics;

/// Free disk space in bytes from which a failing log is healthy again.
const ROOM: u64 = 64 << 10;

/// A log file and its rotation.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) open: OpenFile,
    /// `None` if the log is never rotated.
    pub(super) rotator: Option<Rotator>,
    pub(super) namer: BackupNamer,
    /// The clock; `None` after the cleaner has taken it.
    log_clock: Option<LogClock>,
    pub(super) kept: Arc<ProtectedBackups>,
    /// The lock, held while the log is open.
    lock: Option<LogLock>,
    /// The open file was deleted and no other can be created, for this reason: anything written now
    /// could never be read.
    gone: Option<io::Error>,
    /// Whether it was logged that the file was moved and a new one cannot be created.
    pub(super) complained: bool,
    /// Whether written bytes may not be on the disk yet.
    dirty: bool,
    /// Replaced files that are not synced yet, and the directory if it must be synced.
    older: Unsynced,
    /// Whether the file is synced regularly, so it is kept open until then.
    synced: bool,
    /// The line digests for the seal.
    pub(super) seal: Option<LogSeal>,
}

impl LogFile {
    /// Opens a log file that other processes may write, too.
    #[cfg(test)]
    pub(super) fn open(
        path: &Path,
        rotation: Rotation,
        clock: Clock,
        metrics: Arc<LogMetrics>,
    ) -> Result<LogFile, LogError> {
        LogFile::open_as(path, rotation, clock, metrics, false)
    }

    /// Opens the file. Creates it, and missing directories, if necessary. `exclusively` means that
    /// no other process may write it, so it is locked first.
    pub(super) fn open_as(
        path: &Path,
        rotation: Rotation,
        clock: Clock,
        metrics: Arc<LogMetrics>,
        exclusively: bool,
    ) -> Result<LogFile, LogError> {
        if path.file_name().is_none() || path.is_dir() {
            return Err(LogError::NotAFile(path.to_owned()));
        }
        create_folder(path).map_err(|source| LogError::Folder {
            path: path.parent().unwrap_or(path).to_owned(),
            source,
        })?;
        let is_device = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let lock = if exclusively && !is_device { Some(LogLock::acquire(path)?) } else { None };
        let log_clock = LogClock::new(path, clock.clone());
        let mut open = open_at_start(path)
            .map_err(|source| LogError::File { path: path.to_owned(), source })?;
        if lock.is_some() && open.regular {
            lock_file(path, &open.file)?;
        }
        mend(path, &mut open);
        let rotates = open.regular && rotation.max_size_mib > 0;
        let mut log = LogFile {
            path: path.to_owned(),
            open,
            rotator: rotates.then(|| Rotator::new(rotation, metrics)),
            namer: BackupNamer::new(BackupNames::of(path), clock),
            log_clock: Some(log_clock),
            kept: Arc::default(),
            lock,
            gone: None,
            complained: false,
            dirty: true,
            older: Unsynced::default(),
            synced: true,
            seal: None,
        };
        log.folder_changed();
        Ok(log)
    }

    /// Disables regular syncs; the log is only synced at shutdown.
    pub(super) fn never_synced(self) -> LogFile {
        LogFile { synced: false, ..self }
    }

    /// Enables the seal, for lines that are written from now on and for those in the file. `strict`
    /// means that lines are rejected while the seal cannot be written.
    pub(super) fn seal(
        &mut self,
        config: &SealConfig,
        strict: bool,
        metrics: Arc<LogMetrics>,
    ) -> Result<Chain, LogError> {
        if !self.open.regular {
            return Err(LogError::NotSealable { what: self.path.display().to_string() });
        }
        let key = SealKey::load(&config.key_file)?;
        let log = self.open.file.clone();
        let (chain, seal) = recover(&self.path, &log, &mut self.namer, config, key, metrics)
            .map_err(|source| LogError::Seal { path: self.path.clone(), source })?;
        self.seal = Some(seal.strict(strict));
        self.kept.seal_indexes();
        Ok(chain)
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> Arc<ProtectedBackups> {
        self.kept.clone()
    }

    #[cfg(test)]
    pub(super) fn limit(&mut self, bytes: u64) {
        self.rotator.as_mut().expect("it is rotated").set_limit(bytes);
    }

    /// Starts the cleanup of rotated files. Must be called after [`LogFile::seal`], which reads
    /// them.
    pub(super) fn start_cleaner(&mut self) -> Result<(), LogError> {
        let Some((rotator, clock)) = self.rotator.as_mut().zip(self.log_clock.take()) else {
            return Ok(());
        };
        let names = self.namer.names().clone();
        rotator.start_cleaner(names, clock, self.kept.clone()).map_err(LogError::Thread)
    }

    /// Notes that the directory must be synced.
    fn folder_changed(&mut self) {
        if self.open.regular {
            let folder = parent(&self.path).unwrap_or(Path::new("."));
            self.older.folder = Some(folder.to_owned());
        }
    }

    /// Switches to another file. Returns the previous one.
    pub(super) fn replace(&mut self, new: OpenFile) -> OpenFile {
        if self.lock.is_some() && new.regular {
            // The lock file already ensures that there is one writer; this lock covers hard links
            // and bind mounts.
            let _ = new.file.try_lock();
        }
        let old = std::mem::replace(&mut self.open, new);
        if std::mem::replace(&mut self.dirty, true) && old.regular && self.synced {
            self.older.files.push(old.file.clone());
        }
        self.folder_changed();
        old
    }

    /// Returns how many of the lines fit into this file; 0 if it must be rotated first.
    fn fitting(&self, lines: &[Line]) -> usize {
        let Some(limit) = self.rotator.as_ref().and_then(Rotator::limit) else {
            return lines.len();
        };
        let mut size = self.open.size + u64::from(self.open.torn);
        // kube-apiserver's condition for its first write to a file is `>=`, for all others `>`.
        let mut limit = if self.open.inherited { limit.saturating_sub(1) } else { limit };
        for (index, line) in lines.iter().enumerate() {
            let empty = size == 0;
            size += line.len() as u64;
            // A line longer than the limit is alone in its file.
            if size > limit && !empty {
                return index;
            }
            if index == 0 && self.open.inherited {
                limit += 1;
            }
        }
        lines.len()
    }

    /// Rotates the file before the first of `lines`, if necessary. Checks the file at the path
    /// before, because it may belong to another process, or have been truncated.
    fn make_room(&mut self, lines: &[Line]) {
        if self.check().is_ok() && self.fitting(lines) == 0 {
            self.rotate();
        }
    }

    /// After a failed write, removes `tail`, the written part of a line, if the file ends with it.
    /// Otherwise the next write terminates the partial line with a newline.
    fn cut(&mut self, tail: &[u8]) {
        // Not `self.open.size`: another process may have truncated the file, or written to it.
        let size = self.open.file.metadata().map_or(0, |metadata| metadata.len());
        let Some(start) = size.checked_sub(tail.len() as u64) else {
            return;
        };
        let mut last = vec![0; tail.len()];
        let read = self.open.file.read_exact_at(&mut last, start);
        if read.is_ok() && last == tail && self.open.file.set_len(start).is_ok() {
            self.open.size = start;
            self.open.torn = false;
        }
    }

    /// Copies the bytes that were written to a deleted file since it was last seen at its path. No
    /// other process can have read them.
    fn copy_unseen(&mut self, deleted: &OpenFile) {
        if !deleted.regular || !deleted.unlinked() || deleted.size <= deleted.seen {
            return;
        }
        let copy = |into: &mut OpenFile| {
            let mut from = &*deleted.file;
            from.seek(SeekFrom::Start(deleted.seen))?;
            if into.torn {
                (&*into.file).write_all(b"\n")?;
            }
            io::copy(&mut from, &mut &*into.file)
        };
        let copied = copy(&mut self.open);
        match copied {
            Ok(bytes) => tracing::warn!(
                "the audit log {} was deleted; its last {bytes} bytes were copied to the new file",
                self.path.display()
            ),
            Err(error) => tracing::error!(
                "the audit log {} was deleted; up to {} bytes are lost, because they cannot be \
                 copied: {error}",
                self.path.display(),
                deleted.size - deleted.seen
            ),
        }
        self.open.measure();
    }
}

impl Output for LogFile {
    fn write(&mut self, lines: &[Line]) -> Written {
        let mut fitting = self.fitting(lines);
        if fitting == 0 {
            self.make_room(lines);
            fitting = self.fitting(lines).max(1);
        }
        if let Some(gone) = &self.gone {
            let error = io::Error::new(gone.kind(), gone.to_string());
            return Written { whole: 0, error: Some(error) };
        }
        let refusal = self.seal.as_ref().and_then(LogSeal::refusal);
        if let Some(error) = refusal.or_else(|| disk::step().err()) {
            return Written { whole: 0, error: Some(error) };
        }
        let torn = self.open.torn;
        let appended = append(&mut &*self.open.file, &lines[..fitting], torn);
        self.open.size += appended.bytes;
        self.open.torn = appended.torn;
        self.open.inherited &= appended.bytes == 0;
        self.dirty |= appended.bytes > 0;
        let rest = (appended.bytes - appended.whole_bytes) as usize;
        if rest > 0 && self.open.regular {
            self.cut(&lines[appended.whole][..rest]);
        }
        if let Some(seal) = &mut self.seal {
            seal.wrote(torn && appended.bytes > 0, &lines[..appended.whole]);
            if self.open.torn && rest > 0 {
                seal.torn(&lines[appended.whole][..rest]);
            }
            if seal.is_full() {
                self.close_block();
            }
        }
        Written { whole: appended.whole, error: appended.error }
    }

    fn is_quick(&self) -> bool {
        // The reader of a pipe may be slow.
        self.open.regular
    }

    fn check(&mut self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) if self.open.is(&metadata) => {
                // Another process may have truncated it (logrotate's copytruncate).
                if metadata.len() < self.open.size {
                    self.was_cut(metadata.len());
                }
                self.open.size = metadata.len();
                self.open.seen = metadata.len();
                self.open.torn &= metadata.len() > 0;
                self.gone = None;
                self.complained = false;
                Ok(false)
            }
            _ => {
                let id = self.open.id;
                self.reopen()?;
                Ok(self.open.id != id)
            }
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        match create_folder(&self.path).and_then(|()| OpenFile::open(&self.path)) {
            Ok(new) => {
                tracing::info!("reopened the audit log {}", self.path.display());
                let old = self.replace(new);
                self.copy_unseen(&old);
                self.seal_opened(&old);
                self.gone = None;
                self.complained = false;
                Ok(())
            }
            Err(error) if self.open.unlinked() => {
                self.gone = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
            Err(error) => {
                // The old file still exists under another name.
                if !self.complained {
                    self.complained = true;
                    tracing::error!(
                        "cannot reopen the audit log {}: {error}; events are still written to the \
                         previous file",
                        self.path.display()
                    );
                }
                Ok(())
            }
        }
    }

    fn unsynced(&mut self) -> Unsynced {
        let mut unsynced = std::mem::take(&mut self.older);
        if std::mem::take(&mut self.dirty) && self.open.regular {
            unsynced.files.push(self.open.file.clone());
        }
        unsynced
    }

    fn still_unsynced(&mut self, mut unsynced: Unsynced) {
        unsynced.files.append(&mut self.older.files);
        unsynced.folder = self.older.folder.take().or(unsynced.folder);
        self.older = unsynced;
    }

    fn unsealed(&mut self, stopped: bool) -> VecDeque<Block> {
        let Some(seal) = &mut self.seal else { return VecDeque::new() };
        let mut blocks = seal.take(stopped);
        if let Some(last) = blocks.back_mut() {
            last.indexes.append(&mut self.kept.take_indexes());
        }
        blocks
    }

    fn sealed(&mut self, unsealed: VecDeque<Block>, failed: Option<String>) {
        if let Some(seal) = &mut self.seal {
            let unsealed = seal.outcome(unsealed, failed);
            if self.kept.unsealed(&unsealed)
                && let Some(rotator) = &self.rotator
            {
                // The cleaner may now compress or delete the rotated file.
                rotator.clean();
            }
        }
    }

    fn probe(&mut self) -> io::Result<bool> {
        if let Some(gone) = &self.gone {
            return Err(io::Error::new(gone.kind(), gone.to_string()));
        }
        if !self.open.regular {
            return Ok(false);
        }
        // Reserves space after the end of the file, without changing its length.
        let room = fallocate(&*self.open.file, FallocateFlags::KEEP_SIZE, self.open.size, ROOM);
        match room {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens the log. If it is a named pipe, waits for a moment for its reader, which may be starting
/// at the same time.
fn open_at_start(path: &Path) -> io::Result<OpenFile> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let started = Instant::now();
    loop {
        match OpenFile::open(path) {
            Err(error)
                if error.kind() == io::ErrorKind::NotConnected && started.elapsed() < PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => return opened,
        }
    }
}

fn create_folder(path: &Path) -> io::Result<()> {
    parent(path).map_or(Ok(()), create_private_dir)
}

#[cfg(test)]
pub(super) mod tests;
