//! Determines which log file belongs to which seal.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Finding, Kind};
use crate::rotate::BackupNames;
use crate::seal::digest::{Short, short};
use crate::seal::record::Signed;
use crate::seal::rotated::rotated;
use crate::seal::{checkpoint_path, lines, plain_path, seal_path};

/// Number of lines at the beginning of files that are compared to tell them apart.
const BEGINNING: usize = 32;

/// A seal, and the log file that belongs to it.
#[derive(Debug)]
pub(super) struct Pair {
    pub seal: PathBuf,
    /// `None` if the log file does not exist.
    pub log: Option<PathBuf>,
    /// The number of the file in the chain.
    pub number: u64,
    first_block: u64,
    /// When the file was rotated, by its name; `None` for the active log or other names.
    time: Option<SystemTime>,
}

impl Pair {
    /// The sort key by name.
    fn key(&self) -> (bool, Option<SystemTime>) {
        (self.time.is_none(), self.time)
    }
}

/// The log files and seals that were found.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Seals with their log files, in the order of the chain.
    pub pairs: Vec<Pair>,
    /// Logs without any sealed line, the oldest first.
    pub unsealed: Vec<(PathBuf, Age)>,
    /// Whether a seal file exists, even if it is empty.
    pub sealed: bool,
    pub findings: Vec<Finding>,
}

/// When a log was written in relation to the chain, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Before the chain began.
    Before,
    /// While the chain existed.
    Within,
    /// After the last file of the chain: it may still get sealed.
    After,
}

/// A log file, or its seal, or both, matched by name.
struct Candidate {
    log: Option<PathBuf>,
    time: Option<SystemTime>,
    seal: Option<Seal>,
    beginning: Vec<Short>,
}

struct Seal {
    path: PathBuf,
    number: u64,
    first_block: u64,
    beginning: Vec<Short>,
}

/// Finds the seals of these log files and of the files rotated from them.
pub(super) fn find(files: &[PathBuf]) -> io::Result<Files> {
    let mut candidates = BTreeMap::new();
    let (given, mut files) = (files, Files::default());
    for file in given {
        for (plain, log, time, seal) in named(file)? {
            if let Entry::Vacant(vacant) = candidates.entry(plain) {
                vacant.insert(candidate(seal, log, time, &mut files)?);
            }
        }
    }
    let mut all: Vec<Candidate> = candidates.into_values().collect();
    // Sorted by time, files without one last.
    all.sort_by_key(|one| (one.time.is_none(), one.time));
    let belongs = assign(&all, &mut files.findings);
    let mut taken = vec![false; all.len()];
    for (index, log) in belongs.iter().enumerate() {
        let Some(seal) = &all[index].seal else { continue };
        if let Some(log) = log {
            taken[*log] = true;
        }
        let (number, first_block) = (seal.number, seal.first_block);
        let (seal, log) = (seal.path.clone(), log.and_then(|log| all[log].log.clone()));
        files.pairs.push(Pair { seal, log, number, first_block, time: all[index].time });
    }
    files.pairs.sort_by_key(|pair| pair.number);
    for (index, one) in all.iter().enumerate() {
        if let Some(log) = one.log.as_ref().filter(|_| !taken[index] && one.seal.is_none()) {
            let key = (one.time.is_none(), one.time);
            let age = match (files.pairs.first(), files.pairs.last()) {
                (Some(first), _) if first.first_block == 1 && key < first.key() => Age::Before,
                (_, Some(last)) if key < last.key() => Age::Within,
                _ => Age::After,
            };
            files.unsealed.push((log.clone(), age));
        }
    }
    names_in_order(&mut files);
    Ok(files)
}

/// The path of a file before it was compressed, the existing file, its time of rotation, and the
/// path of its seal.
pub(super) type Named = (PathBuf, Option<PathBuf>, Option<SystemTime>, PathBuf);

/// Returns `file` and the files rotated from it.
pub(super) fn named(file: &Path) -> io::Result<Vec<Named>> {
    let is_seal = file.extension().is_some_and(|extension| extension == "seal");
    let plain = if is_seal { file.with_extension("") } else { plain_path(file) };
    let with = |extension: &str| {
        let mut name = plain.clone().into_os_string();
        name.push(extension);
        PathBuf::from(name)
    };
    let log = if file.exists() && !is_seal {
        Some(file.to_owned())
    } else {
        ["", ".gz", ".zst"].map(with).into_iter().find(|path| path.exists())
    };
    let mut all: Vec<_> = rotated(&BackupNames::of(&plain))?
        .into_iter()
        // If the deletion of a file has begun, its seal counts while the log exists.
        .filter(|one| !one.retired || one.log.is_some())
        .map(|one| (one.plain, one.log, Some(one.time), one.seal))
        .collect();
    let seal = seal_path(&plain);
    if log.is_some() || seal.exists() {
        all.push((plain.clone(), log, None, seal));
    }
    if all.is_empty() && !checkpoint_path(&plain).exists() {
        let missing = format!("{}: there is no such file, nor a seal of it", file.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, missing));
    }
    Ok(all)
}

fn candidate(
    path: PathBuf,
    log: Option<PathBuf>,
    time: Option<SystemTime>,
    files: &mut Files,
) -> io::Result<Candidate> {
    let mut beginning = Vec::new();
    if let Some(log) = &log {
        let mut lines = lines::open(log).map_err(|error| of(log, &error))?;
        // A file that cannot be decompressed is reported later.
        while let Ok(Some(line)) = lines.next() {
            beginning.push(short(&line.hash));
            if beginning.len() == BEGINNING {
                break;
            }
        }
    }
    let seal = if path.exists() { seal(path, files)? } else { None };
    Ok(Candidate { log, time, seal, beginning })
}

/// Returns `None` if the seal has no record.
fn seal(path: PathBuf, files: &mut Files) -> io::Result<Option<Seal>> {
    let mut reader = BufReader::new(File::open(&path).map_err(|error| of(&path, &error))?);
    let mut seal = Seal { path, number: 0, first_block: 0, beginning: Vec::new() };
    let (mut line, mut lines) = (Vec::new(), 0);
    files.sealed = true;
    while {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(|error| of(&seal.path, &error))? > 0
    } {
        if line.pop_if(|byte| *byte == b'\n').is_none() {
            break;
        }
        lines += 1;
        let Some(signed) = Signed::parse(&line, true).filter(|signed| signed.signer.is_some())
        else {
            continue;
        };
        if seal.number == 0 {
            seal.number = signed.record.file;
            seal.first_block = signed.record.block;
        }
        seal.beginning.extend(signed.record.short_digests().unwrap_or_default());
        if seal.beginning.len() >= BEGINNING {
            break;
        }
    }
    if seal.number == 0 && lines > 0 {
        let what = "has no record with a valid signature";
        files.findings.push(Finding::of(Kind::Seal, &seal.path, Some(1), what));
    }
    Ok((seal.number > 0).then_some(seal))
}

/// Returns the log of each seal: the one that matches its name, unless the content shows otherwise.
fn assign(all: &[Candidate], findings: &mut Vec<Finding>) -> Vec<Option<usize>> {
    let alike = |seal: usize, log: usize| {
        let Some(seal) = &all[seal].seal else { return false };
        seal.beginning.iter().any(|digest| all[log].beginning.contains(digest))
    };
    let seals: Vec<usize> = (0..all.len()).filter(|index| all[*index].seal.is_some()).collect();
    let logs: Vec<usize> = (0..all.len()).filter(|index| all[*index].log.is_some()).collect();
    let mut belongs = vec![None; all.len()];
    let mut free: Vec<bool> = all.iter().map(|one| one.log.is_some()).collect();
    for &seal in &seals {
        if free[seal] && alike(seal, seal) {
            belongs[seal] = Some(seal);
            free[seal] = false;
        }
    }
    for &seal in seals.iter().filter(|seal| belongs[**seal].is_none()).collect::<Vec<_>>() {
        let Some(&log) = logs.iter().find(|log| free[**log] && alike(seal, **log)) else {
            continue;
        };
        belongs[seal] = Some(log);
        free[log] = false;
        // A log with another name, and without a seal of that name, was rotated by another process.
        if all[log].seal.is_some() || all[seal].log.is_some() {
            let (place, should) = (all[log].log.clone(), all[seal].seal.as_ref());
            let what = format!(
                "contains the lines of {}: files were swapped or renamed",
                should.map_or_else(String::new, |seal| {
                    seal.path.with_extension("").display().to_string()
                })
            );
            findings.push(Finding::of(Kind::Swapped, &place.unwrap_or_default(), None, what));
        }
    }
    for &seal in &seals {
        if belongs[seal].is_none() && free[seal] {
            belongs[seal] = Some(seal);
            free[seal] = false;
        }
    }
    belongs
}

/// Reports files whose names are not in the order of the chain, because they were renamed together
/// with their seals.
fn names_in_order(files: &mut Files) {
    for two in files.pairs.windows(2) {
        // Logs from several directories, or copies under other names, have no defined order.
        let comparable = two[0].time.is_some() && two[0].seal.parent() == two[1].seal.parent();
        if comparable && two[0].key() > two[1].key() && two[0].number != two[1].number {
            let what = format!(
                "is file {} of the chain, and {}, which is file {}, has an earlier name: they were \
                 swapped or renamed",
                two[0].number,
                two[1].seal.display(),
                two[1].number
            );
            files.findings.push(Finding::of(Kind::Swapped, &two[0].seal, None, what));
        }
    }
}

pub(super) fn of(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}
