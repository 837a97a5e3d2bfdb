//! Determines where the chain continues at startup, and seals lines that were written but not
//! sealed.
//!
//! See the state machine in the [module documentation](super). All found lines are sealed before
//! the first new line is accepted. The start record follows them. A crash during recovery leaves a
//! state that the next start can recover from.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chain::Chain;
use super::checkpoint::{self, Checkpoint, checkpoint_path};
use super::key::SealKey;
use super::lines::{self, Line, Lines};
use super::log_seal::{LogSeal, SealedFile};
use super::record::{Late, Signed};
use super::rotated::{Rotated, rotated};
use super::seal_file::{last_record, mend};
use super::{SealConfig, seal_path};
use crate::LogMetrics;
use crate::disk;
use crate::rotate::BackupNamer;

/// Number of blocks of found lines that are sealed at once.
const TOGETHER: usize = 64;

/// Recovers the chain: seals the lines that were left unsealed, and writes the start record.
///
/// # Errors
/// Returns an error if a seal cannot be read or written. A full disk is not an error; in this case
/// no line is accepted until the start record can be written.
pub(crate) fn recover(
    path: &Path,
    log: &Arc<File>,
    namer: &mut BackupNamer,
    config: &SealConfig,
    key: SealKey,
    metrics: Arc<LogMetrics>,
) -> io::Result<(Chain, LogSeal)> {
    let active = seal_path(path);
    let at = config.checkpoint_file.clone().unwrap_or_else(|| checkpoint_path(path));
    let checkpoint = match Checkpoint::read(&at).map_err(|error| of(&at, &error))? {
        checkpoint::Found::Checkpoint(checkpoint, signer) => Some((checkpoint, signer)),
        checkpoint::Found::Invalid => {
            tracing::error!(
                "the checkpoint {} of the audit log's seal has no valid signature: it was changed",
                at.display()
            );
            metrics.seal.broken.set(1);
            None
        }
        checkpoint::Found::Nothing | checkpoint::Found::Empty => None,
    };
    let rotated = rotated(namer.names())?;
    let found = find(&active, log, &rotated)?;
    if let Found::HalfRotated(seal, _) = &found {
        disk::rename(seal, &active)?;
    }
    let checkpoint = checkpoint.map(|(checkpoint, signer)| {
        // The operator may have changed the key.
        let before = found.last().map(|last| last.record.key.clone());
        if signer != key.public() && before != Some(signer.to_string()) {
            tracing::error!(
                "the checkpoint {} of the audit log's seal is signed by another key, {signer}",
                at.display()
            );
            metrics.seal.broken.set(1);
        }
        checkpoint
    });
    let lost = lost(found.last(), checkpoint.as_ref());
    if let Some(what) = &lost {
        tracing::error!(
            "the seal of the audit log {} is missing or incomplete: {what}; it was removed or replaced, \
             and the log may have been changed; `log verify` reports this from now on",
            path.display()
        );
        metrics.seal.broken.set(1);
    }

    // The record after which the chain continues, unless the checkpoint is of a later one.
    let last = found.last();
    let ahead = checkpoint.filter(|checkpoint| {
        lost.is_some() && last.is_none_or(|last| last.record.chain == checkpoint.chain)
    });
    let head = ahead.as_ref().and_then(Checkpoint::head).or(last.map(Signed::head));
    let id = match (last, &ahead) {
        (Some(last), _) => last.record.chain.clone(),
        (None, Some(checkpoint)) => checkpoint.chain.clone(),
        (None, None) => random_id()?,
    };
    if head.is_none() {
        tracing::info!(key = %key.public(), "a new chain of audit log seals begins");
    }
    let chain = Chain::new(key, id, head, at, config.head_interval, metrics.clone());
    let stopped = last.is_some_and(|last| last.record.stopped);
    let late = match lost {
        Some(_) => Late::Lost,
        None if stopped => Late::Stopped,
        None => Late::Crash,
    };
    let least = ahead.map_or(1, |checkpoint| checkpoint.file);
    let mut recovery = Recovery { chain, seal: None, failed: None };
    let active_file = |number, line, offset, late| Part {
        number,
        path: path.to_owned(),
        log: log.clone(),
        seal: active.clone(),
        line,
        offset,
        late,
        is_active: true,
    };
    match found {
        Found::Nothing => {
            let late = if lost.is_some() { Late::Lost } else { Late::Began };
            mend(&active)?;
            recovery.file(active_file(least, 1, 0, late), &mut Lines::new(from(log, 0)?))?;
        }
        Found::Active(last) | Found::HalfRotated(_, last) => {
            let (line, offset) = (last.record.end_line(), last.record.end_offset());
            mend(&active)?;
            let part = active_file(last.record.file, line, offset, late);
            let size = log.metadata()?.len();
            if size < offset {
                metrics.seal.broken.set(1);
                tracing::error!(
                    "{} bytes of the audit log {} that were sealed are missing; `log verify` \
                     lists the missing lines",
                    offset - size,
                    path.display()
                );
            }
            recovery.file(part, &mut Lines::new(from(log, offset.min(size))?))?;
        }
        Found::Moved(last) => {
            let seal = seal_path(&namer.next()?);
            disk::rename(&active, &seal)?;
            mend(&seal)?;
            let late = if late == Late::Crash { Late::Opened } else { late };
            let number = least.max(last.record.file + 1);
            recovery.file(active_file(number, 1, 0, late), &mut Lines::new(from(log, 0)?))?;
        }
        Found::Rotated(index, last) | Found::LeftBehind(index, last) => {
            let chain_files = &rotated[index..];
            if !chain_files[0].seal.exists() {
                disk::rename(&active, &chain_files[0].seal)?;
            }
            let mut number = last.record.file;
            let mut begin = (last.record.end_line(), last.record.end_offset());
            for (file, next) in chain_files.iter().zip(last.record.file..) {
                number = next;
                recovery.rotated(file, number, begin, late)?;
                begin = (1, 0);
            }
            mend(&active)?;
            let number = least.max(number + 1);
            recovery.file(active_file(number, 1, 0, late), &mut Lines::new(from(log, 0)?))?;
        }
    }
    recovery.end(lost.map(|_| Late::Lost))
}

/// Where the newest record of the chain was found.
#[derive(Debug)]
enum Found {
    /// In no seal.
    Nothing,
    /// In the seal of the active log.
    Active(Signed),
    /// In a seal that was renamed for a rotation whose log was not: it must be renamed back.
    HalfRotated(PathBuf, Signed),
    /// In the seal of this rotated file.
    Rotated(usize, Signed),
    /// In the seal of the active log, but its lines are in this rotated file.
    LeftBehind(usize, Signed),
    /// In the seal of the active log, but its lines are in none of the files: another program moved
    /// them.
    Moved(Signed),
}

impl Found {
    fn last(&self) -> Option<&Signed> {
        match self {
            Found::Nothing => None,
            Found::Active(last)
            | Found::HalfRotated(_, last)
            | Found::Rotated(_, last)
            | Found::LeftBehind(_, last)
            | Found::Moved(last) => Some(last),
        }
    }
}

fn find(active: &Path, log: &Arc<File>, rotated: &[Rotated]) -> io::Result<Found> {
    let first_line = || Lines::new(from(log, 0)?).next();
    if let Some(last) = last_record(active)? {
        if begins_alike(active, first_line)? {
            return Ok(Found::Active(last));
        }
        // By content; the oldest matching file, which was rotated first.
        for (index, file) in rotated.iter().enumerate().filter(|(_, file)| !file.has_seal) {
            let Some(log) = &file.log else { continue };
            if begins_alike(active, || lines::open(log)?.next()).unwrap_or(false) {
                return Ok(Found::LeftBehind(index, last));
            }
        }
        return Ok(Found::Moved(last));
    }
    for (index, file) in rotated.iter().enumerate().rev().filter(|(_, file)| file.has_seal) {
        let Some(last) = last_record(&file.seal)? else { continue };
        let is_log_here = file.log.is_none() && !file.retired;
        if is_log_here && begins_alike(&file.seal, first_line)? {
            return Ok(Found::HalfRotated(file.seal.clone(), last));
        }
        return Ok(Found::Rotated(index, last));
    }
    Ok(Found::Nothing)
}

/// Describes what is missing if the checkpoint is ahead of the seals.
fn lost(last: Option<&Signed>, checkpoint: Option<&Checkpoint>) -> Option<String> {
    let checkpoint = checkpoint?;
    let sealed = format!("block {} was sealed", checkpoint.block);
    match last {
        None => Some(format!("{sealed}, and there is no seal")),
        Some(last) if last.record.chain != checkpoint.chain => {
            Some(format!("{sealed}, and the seal is of another chain"))
        }
        Some(last) if last.record.block < checkpoint.block => {
            Some(format!("{sealed}, and the chain ends with block {}", last.record.block))
        }
        Some(_) => None,
    }
}

/// One file of the chain, and the position from which it is to be sealed.
struct Part {
    number: u64,
    path: PathBuf,
    log: Arc<File>,
    seal: PathBuf,
    line: u64,
    offset: u64,
    late: Late,
    is_active: bool,
}

/// The state of a recovery.
struct Recovery {
    chain: Chain,
    seal: Option<LogSeal>,
    /// Why nothing can be sealed at the moment.
    failed: Option<String>,
}

impl Recovery {
    fn file(&mut self, part: Part, lines: &mut Lines<impl Read>) -> io::Result<()> {
        let Part { number, path, log, seal, line, offset, late, is_active } = part;
        let file = SealedFile::new(number, log, seal.clone());
        let own = LogSeal::new(file, seal, line, offset);
        self.seal = Some(match self.seal.take() {
            None => own,
            Some(before) => before.followed_by(own),
        });
        loop {
            match self.seal().adopt_some(lines, late, !is_active, TOGETHER) {
                Ok(true) => self.flush()?,
                Ok(false) => return Ok(()),
                Err(error) if is_active => return Err(error),
                Err(error) => {
                    // The proxy starts nevertheless; `log verify` reports the file.
                    unreadable(&path, &error);
                    return Ok(());
                }
            }
        }
    }

    /// Seals the rest of a rotated file.
    fn rotated(
        &mut self,
        file: &Rotated,
        number: u64,
        (line, offset): (u64, u64),
        late: Late,
    ) -> io::Result<()> {
        let Some(path) = &file.log else { return Ok(()) };
        mend(&file.seal)?;
        let open = || {
            let mut lines = lines::open(path)?;
            for _ in 1..line {
                lines.next()?;
            }
            Ok::<_, io::Error>((Arc::new(File::open(path)?), lines))
        };
        match open() {
            Ok((log, mut lines)) => {
                let (path, seal) = (path.clone(), file.seal.clone());
                let is_active = false;
                let part = Part { number, path, log, seal, line, offset, late, is_active };
                self.file(part, &mut lines)
            }
            Err(error) => {
                unreadable(path, &error);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failed.is_some() {
            return Ok(());
        }
        let mut blocks = self.seal().take(false);
        if let Err(error) = self.chain.seal(&mut blocks) {
            if !is_full(&error) {
                return Err(error);
            }
            tracing::error!(
                "cannot write the audit log's seal: {error}; no event is written until it can be written"
            );
            self.failed = Some(error.to_string());
        }
        self.seal().outcome(blocks, None);
        Ok(())
    }

    /// Writes the start record, and returns the state of the sealing thread and of the writer.
    fn end(mut self, late: Option<Late>) -> io::Result<(Chain, LogSeal)> {
        self.seal().start(late);
        self.flush()?;
        let failed = self.failed.take();
        let mut seal = self.seal.expect("the log's own file is always a part");
        if let Some(reason) = failed {
            seal.not_started(reason);
        }
        Ok((self.chain, seal))
    }

    fn seal(&mut self) -> &mut LogSeal {
        self.seal.as_mut().expect("it is called after the first file")
    }
}

/// Returns whether the disk is full. This may be temporary, and a proxy that is restarted meanwhile
/// must be able to start.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn unreadable(log: &Path, error: &io::Error) {
    tracing::error!(
        "cannot read the rotated audit log {}: {error}; its last lines are not sealed",
        log.display()
    );
}

/// Returns whether the log begins with the same line as the seal, or the seal has no line.
fn begins_alike(
    seal: &Path,
    first_line: impl FnOnce() -> io::Result<Option<Line>>,
) -> io::Result<bool> {
    let reader = BufReader::new(File::open(seal)?);
    for line in reader.split(b'\n') {
        let Some(first) = Signed::parse(&line?, false) else { continue };
        if first.record.lines == 0 {
            continue;
        }
        let Some(digest) = first.record.short_digests().and_then(|all| all.first().copied()) else {
            // The first lines were not sealed, so their content cannot be compared.
            return Ok(true);
        };
        return Ok(first_line()?.is_some_and(|line| super::digest::short(&line.hash) == digest));
    }
    Ok(true)
}

fn from(log: &Arc<File>, offset: u64) -> io::Result<File> {
    // The clone shares its file position with the writers, which append and do not depend on it.
    let mut log = log.try_clone()?;
    log.seek(SeekFrom::Start(offset))?;
    Ok(log)
}

fn of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}
