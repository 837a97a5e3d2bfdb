//! Deletes and compresses rotated files, in a thread of its own that gives way to all others.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::clock::Clock;
use super::config::Rotation;
use super::open_file::copy_owner_and_mode;
use super::rotate::{BackupNames, with_gz};

/// The clean-up of one log file's backups. Ends with its last round cut short when it is dropped:
/// the next start does what is left.
#[derive(Debug)]
pub(super) struct Cleaner {
    /// Room for one: a round that has not begun sees all backups.
    wake: Option<SyncSender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cleaner {
    /// Starts the thread, which makes a first round. None: there is nothing to do, ever.
    pub(super) fn start(
        names: BackupNames,
        rotation: Rotation,
        clock: Clock,
    ) -> io::Result<Option<Cleaner>> {
        if rotation.max_age_days == 0 && rotation.max_backups == 0 && !rotation.compress {
            return Ok(None);
        }
        let (wake, rounds) = mpsc::sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let backups = Backups { names, rotation, clock, stop: stop.clone() };
        let thread = std::thread::Builder::new()
            .name("audit-cleanup".to_owned())
            .spawn(move || backups.run(&rounds))?;
        let cleaner = Cleaner { wake: Some(wake), stop, thread: Some(thread) };
        cleaner.wake();
        Ok(Some(cleaner))
    }

    /// Asks for a round. Returns at once.
    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Full: one is asked for already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it has been logged, and the log itself does not need it.
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
pub(super) struct Backups {
    names: BackupNames,
    rotation: Rotation,
    clock: Clock,
    stop: Arc<AtomicBool>,
}

/// The files of one backup: the plain one, the compressed one, or (after a crash) both.
#[derive(Debug, Default)]
struct Backup {
    plain: Option<PathBuf>,
    compressed: Option<PathBuf>,
    /// Goes with them. One alone is that of a file that somebody else rotated.
    seal: Option<PathBuf>,
}

impl Backups {
    fn run(&self, rounds: &Receiver<()>) {
        // Lowest priority, for this thread only (on Linux it is the thread's). No matter if not.
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

    /// One round. Goes on after an error, and gives the first.
    fn clean(&self) -> io::Result<()> {
        let mut result = Ok(());
        let age = Duration::from_secs(self.rotation.max_age_days.saturating_mul(24 * 60 * 60));
        let oldest = match self.rotation.max_age_days {
            0 => None,
            // An age that begins before time itself is no limit.
            _ => self.clock.now().checked_sub(age),
        };
        let newest_first = self.list()?.into_iter().rev();
        let mut index = 0;
        for ((time, _), backup) in newest_first {
            if self.stopped() {
                break;
            }
            let too_many = self.rotation.max_backups > 0 && index >= self.rotation.max_backups;
            index += usize::from(backup.plain.is_some() || backup.compressed.is_some());
            let too_old = oldest.is_some_and(|oldest| time < oldest);
            let done = if too_many || too_old {
                backup.delete()
            } else if self.rotation.compress {
                backup.plain.map_or(Ok(()), |plain| self.compress(&plain))
            } else {
                Ok(())
            };
            result = result.and(done);
        }
        result
    }

    /// All backups by the time in their name, a plain file and its compressed twin as one.
    fn list(&self) -> io::Result<BTreeMap<(SystemTime, OsString), Backup>> {
        let mut backups: BTreeMap<_, Backup> = BTreeMap::new();
        for entry in fs::read_dir(&self.names.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((time, suffix)) = self.names.parse(&name) else {
                continue;
            };
            if entry.file_type()?.is_dir() {
                continue;
            }
            match suffix {
                b"" => backups.entry((time, name)).or_default().plain = Some(entry.path()),
                b".gz" => {
                    let plain = Path::new(&name).with_extension("").into_os_string();
                    backups.entry((time, plain)).or_default().compressed = Some(entry.path());
                }
                b".seal" => {
                    let plain = Path::new(&name).with_extension("").into_os_string();
                    backups.entry((time, plain)).or_default().seal = Some(entry.path());
                }
                // Left behind by a crash. Only this thread makes such files, one at a time.
                b".gz.tmp" => fs::remove_file(entry.path())?,
                _ => {}
            }
        }
        Ok(backups)
    }

    /// Replaces the file by a compressed one of the same mode and owner. A crash leaves the plain
    /// file, both, or the compressed one, but never half of it under its name.
    fn compress(&self, plain: &Path) -> io::Result<()> {
        let compressed = with_gz(plain);
        let mut temporary = compressed.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let result = self.compress_to(plain, &temporary);
        match result {
            Ok(true) => {
                fs::rename(&temporary, &compressed)?;
                fs::remove_file(plain)
            }
            Ok(false) => fs::remove_file(&temporary),
            Err(error) => {
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    }

    /// `false`: we were told to stop.
    fn compress_to(&self, plain: &Path, temporary: &Path) -> io::Result<bool> {
        let mut from = File::open(plain)?;
        let to = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(temporary)?;
        copy_owner_and_mode(&from.metadata()?, &to.metadata()?, &to);
        let mut encoder = GzEncoder::new(BufWriter::new(to), Compression::default());
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
        let to = encoder.finish()?.into_inner().map_err(|error| error.into_error())?;
        // The plain file goes next: it must not be that neither is on the disk.
        to.sync_all()?;
        Ok(true)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Backup {
    fn delete(self) -> io::Result<()> {
        // The seal last: without its log it is evidence, and gone with the next round.
        [self.plain, self.compressed, self.seal].into_iter().flatten().try_for_each(fs::remove_file)
    }
}

#[cfg(test)]
#[path = "backups_tests.rs"]
mod tests;
