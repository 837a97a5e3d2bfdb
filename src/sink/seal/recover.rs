//! Where the chain goes on at the start, and what was written and not sealed before.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::chain::Chain;
use super::key::SealKey;
use super::lines::{self, Lines};
use super::log_seal::{LogSeal, SealedFile};
use super::record::{Late, Signed};
use super::seal_file::{last_record, mend};
use super::{SealConfig, seal_path};
use crate::metrics::SinkMetrics;
use crate::sink::rotate::BackupNames;

/// Reads where the chain was, and takes over the lines that came after; they are sealed with the
/// first block. The seal file is made if it is missing, so that a folder where it cannot be is
/// noticed at the start.
pub(crate) fn recover(
    path: &Path,
    log: &Arc<File>,
    config: &SealConfig,
    key: SealKey,
    metrics: Arc<SinkMetrics>,
) -> io::Result<(Chain, LogSeal)> {
    let (names, active) = (BackupNames::of(path), seal_path(path));
    mend(&active)?;
    let mut rotated = rotated(&names)?;
    let mut last = last_record(&active)?;
    let mut moved = false;
    let in_active = last.is_some() && begins_alike(&active, log)?;
    if let Some(signed) = last.as_ref().filter(|_| !in_active) {
        // The process ended within a rotation, or the log was moved while it did not run.
        let unsealed = rotated.iter().rposition(|file| {
            !file.seal.exists() && file.log.as_ref().is_some_and(|log| fits(log, signed))
        });
        match unsealed {
            Some(index) => {
                fs::rename(&active, &rotated[index].seal)?;
                rotated.drain(..index);
            }
            None => {
                moved = true;
                fs::rename(&active, seal_path(&names.free_now()?))?;
                rotated.clear();
            }
        }
    } else if last.is_none() {
        while let Some(newest) = rotated.iter().rposition(|file| file.seal.exists()) {
            last = last_record(&rotated[newest].seal)?;
            if last.is_some() {
                rotated.drain(..newest);
                break;
            }
            rotated.truncate(newest);
        }
    }

    let new_file = |number, log: &Arc<File>, seal| SealedFile::new(number, log.clone(), seal);
    let Some(last) = last else {
        let file = new_file(1, log, active.clone());
        file.seal.lock().expect("nothing panics that holds it").ensure(log)?;
        let mut seal = LogSeal::new(file, active, 1, 0);
        seal.adopt(&mut Lines::new(from(log, 0)?), Late::Began)?;
        tracing::info!(key = %key.public(), "a new chain of audit log seals begins");
        return Ok((Chain::new(key, random_id()?, None, config.head_interval, metrics), seal));
    };

    let late = if last.record.stopped { Late::Stopped } else { Late::Crash };
    let (line, offset) = (last.record.end_line(), last.record.end_offset());
    let (id, head) = (last.record.chain.clone(), last.head());
    let chain = Chain::new(key, id, Some(head), config.head_interval, metrics);
    if in_active {
        let file = new_file(last.record.file, log, active.clone());
        file.seal.lock().expect("nothing panics that holds it").ensure(log)?;
        let mut seal = LogSeal::new(file, active, line, offset);
        let size = log.metadata()?.len();
        if size < offset {
            tracing::error!(
                "the audit log {} is {} bytes shorter than what was sealed of it; `log verify` \
                 tells which lines are missing",
                path.display(),
                offset - size
            );
        } else {
            seal.adopt(&mut Lines::new(from(log, offset)?), late)?;
        }
        return Ok((chain, seal));
    }
    // The chain's last file was rotated, and perhaps more after it, before all was sealed.
    let mut number = last.record.file;
    let mut seal: Option<LogSeal> = None;
    if !moved {
        for (index, file) in rotated.iter().enumerate() {
            let Some(log_path) = &file.log else { continue };
            let opened = Arc::new(File::open(log_path)?);
            let mut lines = lines::open(log_path)?;
            let begin = if index == 0 { (line, offset) } else { (1, 0) };
            number = last.record.file + index as u64;
            for _ in 1..begin.0 {
                lines.next()?;
            }
            let sealed = new_file(number, &opened, file.seal.clone());
            let one = LogSeal::new(sealed, file.seal.clone(), begin.0, begin.1);
            seal = Some(match seal {
                None => one,
                Some(before) => before.followed_by(one),
            });
            seal.as_mut().expect("it was just set").adopt(&mut lines, late)?;
        }
    }
    let file = new_file(number + 1, log, active.clone());
    file.seal.lock().expect("nothing panics that holds it").ensure(log)?;
    let own = LogSeal::new(file, active, 1, 0);
    let mut seal = match seal {
        None => own,
        Some(before) => before.followed_by(own),
    };
    seal.adopt(&mut Lines::new(from(log, 0)?), if moved { Late::Opened } else { late })?;
    Ok((chain, seal))
}

/// A rotated file, by what is there of it.
pub(super) struct Rotated {
    pub log: Option<PathBuf>,
    pub seal: PathBuf,
    /// By its name.
    pub time: SystemTime,
}

/// The oldest first.
pub(super) fn rotated(names: &BackupNames) -> io::Result<Vec<Rotated>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir(&names.folder)? {
        let (path, name) = {
            let entry = entry?;
            (entry.path(), entry.file_name())
        };
        let Some((time, suffix)) = names.parse(&name) else { continue };
        let plain = match suffix {
            b"" | b".gz" | b".zst" => super::plain_path(&path),
            b".seal" => path.with_extension(""),
            _ => continue,
        };
        let seal = seal_path(&plain);
        let file = found.entry((time, plain)).or_insert(Rotated { log: None, seal, time });
        // Of a plain file and its compressed twin, the twin may not be whole.
        if suffix == b"" || (suffix != b".seal" && file.log.is_none()) {
            file.log = Some(path);
        }
    }
    Ok(found.into_values().collect())
}

/// Whether the log begins with the line that the seal begins with.
fn begins_alike(seal: &Path, log: &Arc<File>) -> io::Result<bool> {
    let reader = BufReader::new(File::open(seal)?);
    for line in reader.split(b'\n') {
        let Some(first) = Signed::parse(&line?, false) else { continue };
        let Some(digest) = first.record.short_digests().and_then(|all| all.first().copied()) else {
            continue;
        };
        let line = Lines::new(from(log, 0)?).next()?;
        return Ok(line.is_some_and(|line| super::digest::short(&line.hash) == digest));
    }
    Ok(true)
}

fn fits(log: &Path, last: &Signed) -> bool {
    let plain = log.extension().is_none_or(|extension| extension != "gz" && extension != "zst");
    fs::metadata(log).is_ok_and(|log| plain && log.len() >= last.record.end_offset())
}

fn from(log: &Arc<File>, offset: u64) -> io::Result<File> {
    // The position is that of all who write to it, who append and do not care.
    let mut log = log.try_clone()?;
    log.seek(SeekFrom::Start(offset))?;
    Ok(log)
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}
