//! Deletes, compresses, and indexes rotated files, in a thread of the lowest priority.
//!
//! A file is left alone until all its lines are sealed ([`ProtectedBackups`]). If it were deleted
//! before its last block is sealed, verification would report it as missing; if it were compressed
//! earlier, recovery would not find it. Files are deleted from the oldest to the newest, and the
//! seal of each is renamed first, so that a crash between two steps leaves no gap in the chain.

mod age;
mod frames;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::SystemTime;

use audit_query::index::IndexError;
use flate2::Compression;
use flate2::write::GzEncoder;

pub(super) use self::age::LogClock;

use self::frames::FrameWriter;
use super::config::{Compress, Rotation};
use super::disk;
use super::files::with_suffix;
use super::open_file::copy_owner_and_mode;
use super::rotate::{BackupNames, GZ, INDEX, RETIRED, SEAL, ZST, without_suffix};
use super::seal::IndexDigest;

/// Runs the cleanup of one log file's backups. Dropping it interrupts the current round; the next
/// start continues with what is left.
#[derive(Debug)]
pub(super) struct Cleaner {
    /// Capacity 1: one pending round is enough, because it sees all backups.
    wake: Option<SyncSender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cleaner {
    /// Starts the thread, which runs a first round at once. Returns `None` if `rotation` asks for
    /// no cleanup at all.
    pub(super) fn start(
        names: BackupNames,
        rotation: Rotation,
        clock: LogClock,
        kept: Arc<ProtectedBackups>,
    ) -> io::Result<Option<Cleaner>> {
        if rotation == (Rotation { max_size_mib: rotation.max_size_mib, ..Rotation::NEVER }) {
            return Ok(None);
        }
        let (wake, rounds) = mpsc::sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let own_stop = stop.clone();
        let not_indexed = BTreeSet::new();
        let mut backups = Backups { names, rotation, clock, kept, stop: own_stop, not_indexed };
        let thread = std::thread::Builder::new()
            .name("audit-cleanup".to_owned())
            .spawn(move || backups.run(&rounds))?;
        let cleaner = Cleaner { wake: Some(wake), stop, thread: Some(thread) };
        cleaner.wake();
        Ok(Some(cleaner))
    }

    /// Requests a round. Returns at once.
    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // If the channel is full, a round has been requested already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been logged, and the log works without it.
            let _ = thread.join();
        }
    }
}

/// Backups that must not be changed yet, by their names before compression.
#[derive(Debug, Default)]
pub(super) struct ProtectedBackups {
    files: Mutex<ProtectedFiles>,
}

#[derive(Debug, Default)]
struct ProtectedFiles {
    /// The most recently rotated file: it may be compressed, but not deleted.
    newest: Option<PathBuf>,
    /// Files whose last blocks are not sealed yet: they are neither compressed nor deleted.
    unsealed: BTreeSet<PathBuf>,
    /// Index files whose digests are to be sealed; `None` if the log is not sealed.
    indexes: Option<Vec<IndexDigest>>,
}

impl ProtectedBackups {
    /// Protects `backup`, to which the log is about to be rotated. `sealed` means that its last
    /// lines will be sealed.
    pub(super) fn rotate(&self, backup: &Path, sealed: bool) {
        let mut files = self.files.lock().expect("nothing panics that holds it");
        files.newest = Some(backup.to_owned());
        if sealed {
            files.unsealed.insert(backup.to_owned());
        }
    }

    /// Collects the digests of index files, because the log is sealed.
    pub(super) fn seal_indexes(&self) {
        self.files.lock().expect("nothing panics that holds it").indexes = Some(Vec::new());
    }

    /// Notes that an index file was written.
    fn indexed(&self, path: &Path, sha256: String) {
        let mut files = self.files.lock().expect("nothing panics that holds it");
        if let (Some(indexes), Some(file)) = (&mut files.indexes, path.file_name()) {
            indexes.push(IndexDigest { file: file.to_string_lossy().into_owned(), sha256 });
        }
    }

    /// Returns the index files that were written since the last call.
    pub(super) fn take_indexes(&self) -> Vec<IndexDigest> {
        let mut files = self.files.lock().expect("nothing panics that holds it");
        files.indexes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Sets the backups whose seals are incomplete. Returns whether the seal of another one has
    /// been completed since the last call.
    pub(super) fn unsealed(&self, backups: &BTreeSet<PathBuf>) -> bool {
        let mut files = self.files.lock().expect("nothing panics that holds it");
        let before = files.unsealed.len();
        files.unsealed.retain(|backup| backups.contains(backup));
        files.unsealed.len() < before
    }

    /// Returns whether `backup` may be deleted; `next` is the backup after it. It must stay until
    /// the next one is sealed, because it may hold the newest record of the chain.
    fn may_delete(&self, backup: &Path, next: Option<&Path>) -> bool {
        let files = self.files.lock().expect("nothing panics that holds it");
        let is_next_sealed = match next {
            Some(next) => !files.unsealed.contains(next),
            None => files.unsealed.is_empty(),
        };
        let is_newest = files.newest.as_deref() == Some(backup);
        is_next_sealed && !is_newest && !files.unsealed.contains(backup)
    }

    fn may_compress(&self, backup: &Path) -> bool {
        !self.files.lock().expect("nothing panics that holds it").unsealed.contains(backup)
    }
}

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Backups {
    pub(super) names: BackupNames,
    pub(super) rotation: Rotation,
    pub(super) clock: LogClock,
    pub(super) kept: Arc<ProtectedBackups>,
    pub(super) stop: Arc<AtomicBool>,
    /// Files that could not be indexed, by their names before compression.
    pub(super) not_indexed: BTreeSet<PathBuf>,
}

/// The files of one backup: the plain one, the compressed one, or (after a crash) both.
#[derive(Debug, Default)]
struct Backup {
    /// The name before compression, whether such a file exists or not.
    name: PathBuf,
    plain: Option<PathBuf>,
    compressed: Vec<PathBuf>,
    /// Deleted with the log, and regenerated from it.
    index: Option<PathBuf>,
    /// Deleted with the log file. A seal without a log file belongs to a file that another program
    /// has rotated.
    seal: Option<PathBuf>,
    /// The renamed seal of a backup whose deletion has begun.
    retired: Option<PathBuf>,
}

type Listed = Vec<(SystemTime, Backup)>;

impl Backups {
    fn run(&mut self, rounds: &Receiver<()>) {
        // The lowest priority, on Linux for this thread only. A failure does not matter.
        let _ = rustix::process::setpriority_process(None, 19);
        while rounds.recv().is_ok() && !self.stopped() {
            if let Err(error) = self.clean() {
                tracing::warn!(
                    "cannot clean up the rotated audit logs in {}: {error}",
                    self.names.folder.display()
                );
            }
        }
    }

    /// Runs one round. Deletes nothing more after an error; returns the first error.
    pub(super) fn clean(&mut self) -> io::Result<()> {
        let (backups, newest) = self.list()?;
        let mut result = Ok(());
        let mut left = Vec::new();
        for (time, backup) in backups {
            // A crash has interrupted its deletion.
            if backup.retired.is_some() {
                result = result.and(backup.delete());
            } else {
                left.push((time, backup));
            }
        }
        let is_log = |backup: &Backup| backup.plain.is_some() || !backup.compressed.is_empty();
        let logs = left.iter().filter(|(_, backup)| is_log(backup)).count();
        let surplus = match self.rotation.max_backups {
            0 => 0,
            most => logs.saturating_sub(most),
        };
        let times: Vec<SystemTime> = left.iter().map(|(time, _)| *time).collect();
        let oldest = self.clock.oldest(self.rotation.max_age_days, newest, &times);
        // From the oldest to the newest. A seal without a log file is deleted with the log file
        // after it.
        let names: Vec<PathBuf> =
            left.iter().filter(|(_, one)| is_log(one)).map(|(_, one)| one.name.clone()).collect();
        let mut seen = 0;
        for (time, backup) in left {
            if self.stopped() {
                break;
            }
            let too_many = seen < surplus;
            seen += usize::from(is_log(&backup));
            let too_old = oldest.is_some_and(|oldest| time < oldest);
            let next = names.get(seen).map(PathBuf::as_path);
            let done = if (too_many || too_old) && self.kept.may_delete(&backup.name, next) {
                if result.is_err() {
                    // Verification would report a deleted file as missing while an older one
                    // exists.
                    continue;
                }
                self.log_deletion(&backup, too_many);
                backup.delete()
            } else if !is_log(&backup) {
                // Another process has deleted the log file of this index.
                backup.index.map_or(Ok(()), |index| disk::remove_if_there(&index))
            } else if self.kept.may_compress(&backup.name) {
                self.improve(backup)
            } else {
                Ok(())
            };
            result = result.and(done);
        }
        result
    }

    /// Compresses and indexes a file, unless that is done already or not configured.
    fn improve(&mut self, backup: Backup) -> io::Result<()> {
        let mut log = backup.plain.or(backup.compressed.into_iter().next());
        if let Some(plain) = log.as_ref().filter(|log| **log == backup.name)
            && let Some(compressed) = self.compress(plain)?
        {
            log = Some(compressed);
        }
        let Some(log) = log.filter(|_| self.rotation.index && !self.stopped()) else {
            return Ok(());
        };
        if self.not_indexed.contains(&backup.name) || audit_query::index::is_current(&log).is_ok() {
            return Ok(());
        }
        disk::step()?;
        match audit_query::index::write(&log, &|| self.stopped()) {
            Ok(written) => self.kept.indexed(&written.path, written.sha256),
            Err(IndexError::Interrupted) => {}
            Err(error) => {
                // The log is complete without an index, and another attempt would fail as well.
                tracing::warn!("cannot index the rotated audit log {}: {error}", log.display());
                self.not_indexed.insert(backup.name);
            }
        }
        Ok(())
    }

    fn log_deletion(&self, backup: &Backup, too_many: bool) {
        let Rotation { max_age_days, max_backups, .. } = self.rotation;
        let path = backup.name.display();
        if too_many {
            tracing::info!(
                "deleting the rotated audit log {path}: there are more than \
                 --audit-log-maxbackup={max_backups}"
            );
        } else {
            tracing::info!(
                "deleting the rotated audit log {path}: it is older than \
                 --audit-log-maxage={max_age_days} days"
            );
        }
    }

    /// Returns all backups by the time in their name, the oldest first, and the newest modification
    /// time of all log files. A plain file and its compressed copy are one backup.
    fn list(&self) -> io::Result<(Listed, Option<SystemTime>)> {
        let mut backups: BTreeMap<(SystemTime, OsString), Backup> = BTreeMap::new();
        let mut newest = None;
        for entry in fs::read_dir(&self.names.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == self.names.log {
                newest = newest.max(modified(&entry));
            }
            let Some((time, suffix)) = self.names.parse(&name) else {
                continue;
            };
            if entry.file_type()?.is_dir() {
                continue;
            }
            let suffix = String::from_utf8_lossy(suffix).into_owned();
            if [".gz.tmp", ".zst.tmp", ".parquet.tmp"].contains(&&*suffix) {
                // Left by a crash: only this thread creates such files, one at a time.
                disk::remove(&entry.path())?;
            }
            if !["", GZ, ZST, INDEX, SEAL, RETIRED].contains(&&*suffix) {
                continue;
            }
            let plain = without_suffix(&name, &suffix);
            let backup = backups.entry((time, plain.clone())).or_default();
            backup.name = self.names.folder.join(plain);
            match &*suffix {
                "" => backup.plain = Some(entry.path()),
                INDEX => backup.index = Some(entry.path()),
                SEAL => backup.seal = Some(entry.path()),
                RETIRED => backup.retired = Some(entry.path()),
                _ => backup.compressed.push(entry.path()),
            }
            if matches!(&*suffix, "" | GZ | ZST) {
                newest = newest.max(modified(&entry));
            }
        }
        Ok((backups.into_iter().map(|((time, _), backup)| (time, backup)).collect(), newest))
    }

    /// Replaces the file by a compressed one with the same mode, owner and modification time, if
    /// compression is configured; returns the path of the new file. A crash leaves the plain file,
    /// both files, or the compressed file, but never an incomplete file under the final name.
    pub(super) fn compress(&self, plain: &Path) -> io::Result<Option<PathBuf>> {
        let (suffix, other) = match self.rotation.compress {
            Compress::No => return Ok(None),
            Compress::Gzip => (GZ, ZST),
            Compress::Zstd => (ZST, GZ),
        };
        let compressed = with_suffix(plain, suffix);
        let temporary = with_suffix(&compressed, ".tmp");
        let result = self.compress_to(plain, &temporary);
        match result {
            Ok(true) => {
                disk::rename(&temporary, &compressed)?;
                // Left by a crash before the configured compression was changed.
                disk::remove_if_there(&with_suffix(plain, other))?;
                disk::remove(plain)?;
                Ok(Some(compressed))
            }
            Ok(false) => disk::remove(&temporary).map(|()| None),
            Err(error) => {
                let _ = disk::remove(&temporary);
                Err(error)
            }
        }
    }

    /// Returns `false` if the shutdown interrupted the compression.
    fn compress_to(&self, plain: &Path, temporary: &Path) -> io::Result<bool> {
        let mut from = File::open(plain)?;
        disk::step()?;
        let to = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(temporary)?;
        let metadata = from.metadata()?;
        copy_owner_and_mode(&metadata, &to.metadata()?, &to);
        let mut encoder = Encoder::new(self.rotation.compress, to)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            if self.stopped() {
                return Ok(false);
            }
            match from.read(&mut buffer)? {
                0 => break,
                length => encoder.write_all(&buffer[..length])?,
            }
        }
        let to = encoder.finish()?;
        if let Ok(modified) = metadata.modified() {
            let _ = to.set_times(FileTimes::new().set_modified(modified));
        }
        // The plain file is deleted next, so the compressed one must be on the disk.
        to.sync_all()?;
        Ok(true)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Backup {
    /// Deletes the files of the backup. The seal is renamed first and deleted last: the log can be
    /// verified while it exists, and is not reported as missing afterwards.
    fn delete(self) -> io::Result<()> {
        let has_log = self.plain.is_some() || !self.compressed.is_empty();
        let retired = match (self.seal, self.retired) {
            (Some(seal), None) if has_log => {
                let retired = with_suffix(&self.name, RETIRED);
                disk::rename(&seal, &retired)?;
                Some(retired)
            }
            (seal, None) => seal,
            (_, retired) => retired,
        };
        self.index
            .into_iter()
            .chain(self.plain)
            .chain(self.compressed)
            .chain(retired)
            .try_for_each(|path| disk::remove_if_there(&path))
    }
}

/// A compressor of files.
enum Encoder {
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(FrameWriter<File>),
}

impl Encoder {
    fn new(compress: Compress, to: File) -> io::Result<Encoder> {
        Ok(match compress {
            Compress::Zstd => Encoder::Zstd(FrameWriter::new(to)?),
            _ => Encoder::Gzip(GzEncoder::new(BufWriter::new(to), Compression::default())),
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Writes what is still buffered. Returns the file.
    fn finish(self) -> io::Result<File> {
        match self {
            Encoder::Gzip(encoder) => {
                encoder.finish()?.into_inner().map_err(|error| error.into_error())
            }
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

fn modified(entry: &fs::DirEntry) -> Option<SystemTime> {
    // For a symbolic link, the modification time of its target.
    fs::metadata(entry.path()).ok()?.modified().ok()
}

#[cfg(test)]
mod tests;
