//! Property test of the state machine of the [module documentation](super). It runs thousands of
//! random sequences of writes, rotations, seals, compression, retention, clock steps, and errors,
//! with crashes before each change of a file. In no sequence does `log verify` report tampering, a
//! start fail, or a line get lost. Any manipulation after a sequence is reported, also after
//! another start.
//!
//! `SEAL_CASES=100000` explores more sequences; `SEAL_CASE=4711` runs only this one.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::sealed_log::{check, gzip, with_ending};
use super::verify::Report;
use super::{Chain, SealConfig, checkpoint_path, seal_path};
use crate::LogMetrics;
use crate::backups::{Backups, LogClock};
use crate::clock::Clock;
use crate::config::{Compress, Rotation};
use crate::disk::faults::{self, Fault};
use crate::file::LogFile;
use crate::output::Output;
use crate::rotate::BackupNames;
use crate::test_folder::TestFolder;

/// Size in bytes at which the log is rotated: some lines.
const LIMIT: u64 = 120;

/// 2026-11-23T04:42:40Z
const NOW: u64 = 1_795_408_960;

const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIKbaU/lV3Qg18GDhpCzFdFMZBtFFvq+oNK57A3r6b7hd\n\
    -----END PRIVATE KEY-----\n";

/// Deterministic pseudo-random numbers.
struct Random(u64);

impl Random {
    fn of_case(case: u64) -> Random {
        let mut random = Random(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.below(2);
        }
        random
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % bound as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// A process that writes the log.
struct Process {
    log: LogFile,
    chain: Chain,
    backups: Backups,
}

impl Process {
    fn start(folder: &TestFolder, rotation: Rotation, now: SystemTime) -> Result<Process, String> {
        let (path, metrics) = (folder.join("audit.log"), Arc::new(LogMetrics::default()));
        let clock = Clock::fixed(now);
        let log_clock = LogClock::new(&path, clock.clone());
        let mut log = LogFile::open_as(&path, rotation, clock, metrics.clone(), true)
            .map_err(|error| error.to_string())?;
        log.limit(LIMIT);
        let key_file = folder.join("key.pem");
        let head_interval = Duration::from_secs(60);
        let config = SealConfig { key_file, checkpoint_file: None, head_interval };
        let chain = log.seal(&config, false, metrics).map_err(|error| error.to_string())?;
        let backups = Backups {
            names: BackupNames::of(&path),
            rotation,
            clock: log_clock,
            kept: log.kept(),
            stop: Arc::default(),
            not_indexed: BTreeSet::new(),
        };
        Ok(Process { log, chain, backups })
    }

    fn seal(&mut self, stopped: bool) {
        let _ = self.log.check();
        let mut blocks = self.log.unsealed(stopped);
        let result = self.chain.seal(&mut blocks);
        self.log.sealed(blocks, result.err().map(|error| error.to_string()));
    }
}

/// The history of one log.
struct History {
    folder: TestFolder,
    random: Random,
    rotation: Rotation,
    process: Option<Process>,
    /// Accepted lines, in order.
    accepted: Vec<String>,
    started: bool,
    /// The steps so far, for the message of a failure.
    log: Vec<String>,
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:#?}\n{:?}", self.log, self.folder.names());
        }
    }
}

impl History {
    fn new(case: u64) -> History {
        let folder = TestFolder::in_memory();
        fs::write(folder.join("key.pem"), KEY).unwrap();
        let mut random = Random::of_case(case);
        let rotation = Rotation {
            max_size_mib: 1,
            max_backups: [0, 0, 1, 3][random.below(4)],
            max_age_days: [0, 0, 0, 1][random.below(4)],
            compress: match random.one_in(2) {
                true if random.one_in(2) => Compress::Zstd,
                true => Compress::Gzip,
                false => Compress::No,
            },
            index: random.one_in(2),
        };
        let (accepted, log) = (Vec::new(), vec![format!("{rotation:?}")]);
        History { folder, random, rotation, process: None, accepted, started: false, log }
    }

    fn keeps_all(&self) -> bool {
        self.rotation.max_backups == 0 && self.rotation.max_age_days == 0
    }

    fn step(&mut self) {
        let fault = match self.random.below(8) {
            0 | 1 => Fault::Crash(self.random.below(9) as u32),
            2 => Fault::Torn(self.random.below(9) as u32),
            3 => Fault::Once(self.random.below(6) as u32),
            _ => Fault::None,
        };
        let what = self.random.below(12);
        self.log.push(format!("{what} {fault:?} running {}", self.process.is_some()));
        faults::set(fault);
        match (what, &mut self.process) {
            (_, None) => self.start(fault),
            (0..=4, Some(_)) => self.write(),
            (5..=7, Some(process)) => process.seal(false),
            (8 | 9, Some(process)) => drop(process.backups.clean()),
            (10, Some(process)) => {
                process.seal(true);
                self.process = None;
            }
            (_, Some(_)) => self.killed(),
        }
        let is_dead = faults::is_dead();
        faults::set(Fault::None);
        if is_dead && what == 10 {
            // A stopped process writes nothing more.
            self.process = None;
        } else if is_dead {
            self.killed();
        }
        if self.process.is_none() {
            self.is_innocent();
        }
    }

    fn start(&mut self, fault: Fault) {
        // The clock is set forward and back.
        let days = [0, 0, 0, 30, 4000][self.random.below(5)];
        let seconds = NOW + self.random.below(1000) as u64 + days * 86_400;
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        match Process::start(&self.folder, self.rotation, now) {
            Ok(process) => {
                self.process = Some(process);
                self.started |= !faults::is_dead();
            }
            Err(error) => assert!(fault != Fault::None, "the start is refused: {error}"),
        }
    }

    fn write(&mut self) {
        for _ in 0..=self.random.below(6) {
            let Some(process) = &mut self.process else { return };
            let id = self.accepted.len() + self.random.below(1000) * 1_000_000;
            let line = format!("{{\"id\":{id},\"f\":\"{}\"}}\n", "x".repeat(self.random.below(40)));
            let written = process.log.write(&[line.clone().into_bytes().into()]);
            match written.error {
                None => self.accepted.push(line),
                Some(error) => assert!(error.to_string().contains("fault"), "{error}"),
            }
        }
    }

    fn killed(&mut self) {
        if self.process.take().is_some() && self.random.one_in(4) {
            // The process was killed during a write.
            let log = self.folder.join("audit.log");
            if let Ok(mut text) = fs::read(&log) {
                text.extend_from_slice(b"{\"id\":12");
                fs::write(&log, text).unwrap();
            }
        }
    }

    fn is_innocent(&self) {
        if !self.started {
            return;
        }
        let report = check(self.folder.path(), &[]);
        assert!(report.is_intact(), "accused without reason:\n{}", says(&report));
    }

    /// Returns all lines of all files, in the order of the names.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for path in logs(self.folder.path()) {
            let text = String::from_utf8(read(&path)).unwrap();
            lines.extend(text.split_inclusive('\n').map(str::to_owned));
        }
        lines
    }

    /// Ends gracefully, or by a crash after the last line was sealed. In both cases nothing was
    /// changed.
    fn end(&mut self) {
        if self.process.is_none() {
            self.start(Fault::None);
        }
        self.write();
        let stopped = self.random.one_in(2);
        let mut process = self.process.take().unwrap();
        process.seal(stopped);
        drop(process);
        let report = check(self.folder.path(), &[]);
        assert!(report.is_intact(), "accused without reason:\n{}", says(&report));
        let mut lines = self.lines();
        assert_eq!(report.lines, lines.len() as u64, "not all are sealed:\n{}", says(&report));
        // If a partial line could not be moved away at startup, it was terminated as a line.
        lines.retain(|line| line.ends_with("}\n"));
        let expected = &self.accepted[self.accepted.len().saturating_sub(lines.len())..];
        if self.keeps_all() {
            assert_eq!(lines, self.accepted, "lines are missing");
        } else {
            assert_eq!(lines, expected, "lines are missing at other places than the beginning");
        }
    }

    /// Changes something like an attacker without the key. Returns a description, or `None` if
    /// there was nothing to change.
    fn tamper(&mut self) -> Option<String> {
        let folder = self.folder.path().to_owned();
        let logs: Vec<PathBuf> =
            logs(&folder).into_iter().filter(|log| !read(log).is_empty()).collect();
        let log = logs[self.random.below(logs.len())].clone();
        let mut lines: Vec<Vec<u8>> =
            read(&log).split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let at = self.random.below(lines.len());
        let active = folder.join("audit.log");
        let is_active = log == active;
        let what = self.random.below(9);
        match what {
            0 => {
                let byte = self.random.below(lines[at].len() - 1);
                lines[at][byte] ^= 1;
                if lines[at][byte] == b'\n' {
                    lines[at][byte] = b'?';
                }
                write(&log, &lines.concat());
            }
            1 => {
                lines.remove(at);
                write(&log, &lines.concat());
            }
            2 => {
                // Inserted at the end, it could be a line that a crash has left unsealed.
                lines.insert(at, b"{\"id\":\"forged\"}\n".to_vec());
                write(&log, &lines.concat());
            }
            3 => {
                // A file that retention was about to delete may be gone.
                fs::metadata(seal_path(&log)).ok()?;
                fs::remove_file(&log).unwrap();
                // The compressed copy that a crash has left.
                for twin in ["log.gz", "log.zst"] {
                    let _ = fs::remove_file(log.with_extension(twin));
                }
            }
            4 => {
                let seal = seal_path(&log);
                fs::remove_file(&seal).ok()?;
                lines[at][2] ^= 1;
                write(&log, &lines.concat());
            }
            5 => {
                // The last record of the chain, and a line of its block.
                let seal = [seal_path(&active)]
                    .into_iter()
                    .chain(seals(&folder))
                    .find(|seal| fs::metadata(seal).is_ok_and(|metadata| metadata.len() > 0))?;
                let mut records: Vec<_> = fs::read_to_string(&seal)
                    .unwrap()
                    .split_inclusive('\n')
                    .map(str::to_owned)
                    .collect();
                records.pop();
                fs::write(&seal, records.concat()).unwrap();
            }
            6 => {
                // A file with its seal, but not the oldest, which retention deletes, too.
                let index = logs.iter().position(|one| *one == log).filter(|index| *index > 0)?;
                fs::remove_file(&logs[index]).unwrap();
                fs::remove_file(seal_path(&logs[index])).ok()?;
            }
            7 => {
                seals(&folder).iter().for_each(|seal| fs::remove_file(seal).unwrap());
                lines[at][2] ^= 1;
                write(&log, &lines.concat());
            }
            _ => {
                let checkpoint = checkpoint_path(&active);
                let text = fs::read_to_string(&checkpoint).unwrap();
                fs::write(&checkpoint, text.replace("\"block\":", "\"block\":1")).unwrap();
            }
        }
        Some(format!("way {what} at line {at} of {} (active: {is_active})", log.display()))
    }
}

fn says(report: &Report) -> String {
    let all = report.findings.iter().chain(&report.warnings);
    all.map(|finding| format!("{:?} {finding}\n", finding.kind)).collect()
}

/// Returns the log files, the oldest first; the plain one if there is a compressed copy, too.
fn logs(folder: &Path) -> Vec<PathBuf> {
    let mut all = with_ending(folder, ".log");
    all.retain(|path| !path.ends_with("audit.log"));
    for path in [".log.gz", ".log.zst"].iter().flat_map(|ending| with_ending(folder, ending)) {
        if !all.contains(&path.with_extension("")) {
            all.push(path);
        }
    }
    all.sort();
    all.push(folder.join("audit.log"));
    all
}

/// Returns the seals, the newest first.
fn seals(folder: &Path) -> Vec<PathBuf> {
    let mut all = with_ending(folder, ".seal");
    all.reverse();
    all
}

fn read(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    match path.extension().unwrap().to_str() {
        Some("gz") => {
            let mut plain = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(&*bytes);
            std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
            plain
        }
        Some("zst") => zstd::decode_all(&*bytes).unwrap(),
        _ => bytes,
    }
}

fn write(path: &Path, bytes: &[u8]) {
    let packed = match path.extension().unwrap().to_str() {
        Some("gz") => gzip(bytes),
        Some("zst") => zstd::encode_all(bytes, 1).unwrap(),
        _ => bytes.to_vec(),
    };
    fs::write(path, packed).unwrap();
}

/// Returns the number of steps.
fn explore(case: u64) -> u64 {
    let mut history = History::new(case);
    let steps = 4 + history.random.below(14);
    for _ in 0..steps {
        history.step();
    }
    history.end();
    let steps = steps as u64 + 1;
    let Some(what) = history.tamper() else { return steps };
    let report = check(history.folder.path(), &[]);
    assert!(!report.is_intact(), "is not noticed: {what}\n{}", says(&report));
    // Another start does not hide the manipulation.
    history.start(Fault::None);
    history.write();
    history.process.take().unwrap().seal(true);
    // Retention may delete the changed file, and a checkpoint is rewritten.
    if !what.starts_with("way 8") {
        let report = check(history.folder.path(), &[]);
        assert!(!report.is_intact(), "is not noticed after a start: {what}\n{}", says(&report));
    }
    steps + 2
}

#[test]
fn no_false_accusation_and_no_tampering_missed() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cases = match number("SEAL_CASE") {
        Some(case) => case..case + 1,
        None => 0..number("SEAL_CASES").unwrap_or(600),
    };
    let started = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (next, steps) = (AtomicU64::new(cases.start), AtomicU64::new(0));
    let run = || {
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if !cases.contains(&case) {
                return;
            }
            let result = std::panic::catch_unwind(|| explore(case));
            faults::set(Fault::None);
            match result {
                Ok(taken) => drop(steps.fetch_add(taken, Ordering::Relaxed)),
                Err(panic) => {
                    eprintln!("SEAL_CASE={case}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    let (seconds, steps) = (started.elapsed().as_secs_f64(), steps.into_inner());
    let count = cases.end - cases.start;
    println!("{count} histories, {:.0} steps a second", steps as f64 / seconds);
}
