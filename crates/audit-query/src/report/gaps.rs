//! Finds what is missing in a log: gaps that the seals prove, and periods that are only unusual.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::render::time;
use super::timeline::QuietPeriod;
use crate::input::log_of;
use crate::input::names::{LogName, Stamp};
use crate::objects::is_url;
use crate::output::format::printable;
use crate::proof::{Outline, Seals};
use crate::scan::Summary as Scanned;

/// Maximum number of quiet periods to list.
const HOLES: usize = 20;

/// The significance of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// The seals prove that events are missing, modified, or inserted.
    Proved,
    /// Unusual, but there may be a harmless reason.
    Unusual,
    /// For information.
    Note,
}

impl Weight {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Weight::Proved => "proved",
            Weight::Unusual => "unusual",
            Weight::Note => "note",
        }
    }
}

/// One gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) weight: Weight,
    pub(crate) what: String,
}

/// All gaps of the logs that were read.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    pub(crate) list: Vec<Gap>,
    /// Number of lines that are not audit events.
    pub(crate) skipped: u64,
    /// Number of files that end in the middle of a line.
    pub(crate) torn: u64,
    /// The result of checking the seals, by log.
    pub(crate) sealed: Vec<(PathBuf, Outline)>,
}

impl Gaps {
    fn push(&mut self, weight: Weight, what: String) {
        let what = printable(what.as_bytes()).into_owned();
        self.list.push(Gap { weight, what });
    }

    /// Collects the gaps. `holes` are the quiet periods, or `None` if a filter selected only some
    /// events.
    pub(crate) fn find(
        files: &[PathBuf],
        scanned: &Scanned,
        holes: Option<Vec<QuietPeriod>>,
        unfinished: u64,
        seals: &dyn Seals,
    ) -> Gaps {
        let mut gaps = Gaps::default();
        let is_file = |path: &&PathBuf| !is_url(path);
        let local: Vec<PathBuf> = files.iter().filter(is_file).cloned().collect();
        gaps.seals(&local, seals);
        gaps.numbers(&local);
        if local.len() < files.len() {
            gaps.push(
                Weight::Note,
                "objects are not sealed: only the sealed logs prove that no event is missing"
                    .to_owned(),
            );
        }
        gaps.lines(scanned);
        match holes {
            Some(holes) => gaps.holes(&holes),
            None => gaps.push(
                Weight::Note,
                "times without events were not looked for, as a filter chooses events".to_owned(),
            ),
        }
        if unfinished > 0 {
            gaps.push(
                Weight::Note,
                format!(
                    "{unfinished} requests have no final event: they still ran, or the writer of the \
                     log was killed"
                ),
            );
        }
        gaps.list.sort_by_key(|gap| gap.weight);
        gaps
    }

    fn seals(&mut self, files: &[PathBuf], seals: &dyn Seals) {
        let mut logs: Vec<PathBuf> = Vec::new();
        for log in files.iter().filter(|file| file.as_os_str() != "-").map(|file| log_of(file)) {
            if !logs.contains(&log) {
                logs.push(log);
            }
        }
        for log in logs {
            match seals.outline(&log) {
                Ok(Some(outline)) => {
                    for what in &outline.missing {
                        self.push(Weight::Proved, what.clone());
                    }
                    for what in &outline.notes {
                        self.push(Weight::Note, what.clone());
                    }
                    self.sealed.push((log, outline));
                }
                Ok(None) => self.push(
                    Weight::Note,
                    format!(
                        "{} is not sealed: nothing proves that no line or file is missing",
                        log.display()
                    ),
                ),
                Err(error) => {
                    self.push(Weight::Unusual, format!("the seals cannot be read: {error}"))
                }
            }
        }
    }

    /// Adds a gap for each missing number in a series of files rotated by logrotate.
    fn numbers(&mut self, files: &[PathBuf]) {
        let mut logs: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
        for file in files {
            let name = LogName::parse(file.file_name().unwrap_or_default());
            if let Stamp::Numbered(Reverse(number)) = name.stamp {
                logs.entry(log_of(file)).or_default().push(number);
            }
        }
        for (log, numbers) in logs {
            let last = numbers.iter().copied().max().unwrap_or_default();
            // logrotate counts from 1, or from 0 if so configured.
            for number in (1..last).filter(|number| !numbers.contains(number)) {
                self.push(
                    Weight::Unusual,
                    format!("{}.{number} is missing, and older files are there", log.display()),
                );
            }
        }
    }

    fn lines(&mut self, scanned: &Scanned) {
        for skipped in &scanned.skipped {
            self.skipped += skipped.lines;
            let path = skipped.path.display();
            let is_live = is_live(&skipped.path);
            let whole = skipped.lines - u64::from(skipped.torn);
            if skipped.torn {
                self.torn += 1;
                let what = format!("{path} ends in the middle of a line");
                match is_live {
                    true => self.push(
                        Weight::Note,
                        what + ": it was being written, or its writer was killed",
                    ),
                    false => self.push(Weight::Unusual, what + ", although it is closed"),
                }
            }
            if whole > 0 {
                let what = match whole {
                    1 => "1 line is not an audit event".to_owned(),
                    whole => format!("{whole} lines are not audit events"),
                };
                self.push(
                    Weight::Unusual,
                    format!("{path}: {what} and not counted; the first is {}", skipped.place()),
                );
            }
        }
        for fault in &scanned.faults {
            self.push(Weight::Unusual, format!("cannot be read to the end: {fault}"));
        }
    }

    fn holes(&mut self, holes: &[QuietPeriod]) {
        for hole in holes.iter().take(HOLES) {
            self.push(
                Weight::Unusual,
                format!(
                    "no events for {}, from {} to {}; as long a time around it has some {} events",
                    duration(hole.to - hole.from),
                    time(hole.from).unwrap_or_default(),
                    time(hole.to).unwrap_or_default(),
                    hole.expected
                ),
            );
        }
        if holes.len() > HOLES {
            let what = format!("{} more such times without events", holes.len() - HOLES);
            self.push(Weight::Unusual, what);
        }
    }
}

fn is_live(path: &Path) -> bool {
    let name = LogName::parse(path.file_name().unwrap_or_default());
    name.stamp == Stamp::Live && !name.compressed
}

/// Formats a duration, such as `2 d 3 h` or `4 min 10 s`.
pub(crate) fn duration(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{ScanError, Skipped};

    struct Sealed;

    impl Seals for Sealed {
        fn prover(&self, _: &[PathBuf]) -> Result<Box<dyn crate::proof::Prover>, String> {
            Err("not here".to_owned())
        }

        fn outline(&self, log: &Path) -> std::io::Result<Option<Outline>> {
            let outline = Outline {
                missing: vec!["file 2 is missing".to_owned()],
                notes: vec!["the last 7 bytes are not sealed (yet)".to_owned()],
                ..Outline::default()
            };
            Ok(log.ends_with("audit.log").then_some(outline))
        }
    }

    #[test]
    fn proved_findings_come_before_unusual_ones() {
        let skipped =
            |path: &str, lines, torn| Skipped { path: path.into(), lines, first: 9, torn };
        let scanned = Scanned {
            skipped: vec![
                skipped("/l/audit.log", 1, true),
                skipped("/l/audit-2026-11-23T04-42-40.000.log", 3, true),
            ],
            faults: vec![ScanError::io(
                Path::new("/l/x.gz"),
                std::io::ErrorKind::UnexpectedEof.into(),
            )],
            ..Scanned::default()
        };
        let files = ["/l/audit.log", "/l/other.log.4", "/l/other.log.2.gz", "/l/other.log.1"];
        let files = files.map(PathBuf::from);
        let hole = QuietPeriod { from: 0, to: 130_000_000, expected: 77 };
        let gaps = Gaps::find(&files, &scanned, Some(vec![hole]), 2, &Sealed);
        assert_eq!((gaps.skipped, gaps.torn), (4, 2));
        let found: Vec<_> =
            gaps.list.iter().map(|gap| format!("{}: {}", gap.weight.name(), gap.what)).collect();
        let expected = [
            "proved: file 2 is missing",
            "unusual: /l/other.log.3 is missing, and older files are there",
            "unusual: /l/audit-2026-11-23T04-42-40.000.log ends in the middle of a line, although",
            "unusual: /l/audit-2026-11-23T04-42-40.000.log: 2 lines are not audit events and not",
            "unusual: cannot be read to the end: /l/x.gz",
            "unusual: no events for 2 min 10 s, from 1970-01-01T00:00:00.000000Z to",
            "note: the last 7 bytes are not sealed (yet)",
            "note: /l/other.log is not sealed",
            "note: /l/audit.log ends in the middle of a line",
            "note: 2 requests have no final event",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} / {expected}");
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, expected) in
            [(59, "59 s"), (250, "4 min 10 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(duration(seconds * 1_000_000), expected);
        }
    }
}
