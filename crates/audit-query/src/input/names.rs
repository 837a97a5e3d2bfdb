//! Names of rotated logs, plain or compressed: `audit-2026-11-23T04-42-40.000.log` of
//! kube-apiserver and kube-audit-proxy, and `audit.log.1` of logrotate.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Extensions of compressed logs.
const COMPRESSED: [&[u8]; 2] = [b".gz", b".zst"];
/// Extensions of logs in a directory.
const EXTENSIONS: [&[u8]; 5] = [b".log", b".json", b".jsonl", b".ndjson", b".audit"];
const STAMP: &[u8; 23] = b"dddd-dd-ddTdd-dd-dd.ddd";

/// The parts of a log's file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogName {
    /// The name of the log from which it was rotated, or its own name: `audit.log`.
    pub(crate) base: Vec<u8>,
    /// The time of rotation in its name; for the live log [`Stamp::Live`], which comes last.
    pub(crate) stamp: Stamp,
    /// Whether the file is compressed. A plain file comes before its compressed copy.
    pub(crate) compressed: bool,
}

/// The position of a file in the order of rotation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stamp {
    /// `.1` is newer than `.2`.
    Numbered(Reverse<u32>),
    /// `2026-11-23T04-42-40.000`
    Rotated(Vec<u8>),
    /// The live log.
    Live,
}

impl LogName {
    /// Parses a file name.
    pub(crate) fn parse(name: &OsStr) -> LogName {
        let name = name.as_bytes();
        let stem = COMPRESSED.iter().find_map(|suffix| name.strip_suffix(*suffix));
        let (stem, compressed) = (stem.unwrap_or(name), stem.is_some());
        if let Some(dot) = stem.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0) {
            let number = std::str::from_utf8(&stem[dot + 1..]).unwrap_or_default();
            // Excludes the milliseconds of a timestamp without an extension.
            let is_number = number.len() <= 2 && number.bytes().all(|byte| byte.is_ascii_digit());
            if let (true, Ok(number)) = (is_number, number.parse()) {
                let stamp = Stamp::Numbered(Reverse(number));
                return LogName { base: stem[..dot].to_vec(), stamp, compressed };
            }
        }
        let dot = stem.iter().rposition(|byte| *byte == b'.').unwrap_or(stem.len());
        // The time contains a dot, which is the last one in a name without an extension.
        for (end, extension) in [(dot, &stem[dot..]), (stem.len(), &[][..])] {
            let Some(start) = end.checked_sub(STAMP.len()) else { continue };
            if is_stamp(&stem[start..end]) && start > 0 && stem[start - 1] == b'-' {
                let base = [&stem[..start - 1], extension].concat();
                return LogName {
                    base,
                    stamp: Stamp::Rotated(stem[start..end].to_vec()),
                    compressed,
                };
            }
        }
        LogName { base: stem.to_vec(), stamp: Stamp::Live, compressed }
    }

    /// Returns whether a file with this name in a directory is a log.
    pub(crate) fn is_log(&self) -> bool {
        EXTENSIONS
            .iter()
            .any(|extension| self.base.len() > extension.len() && self.base.ends_with(extension))
    }
}

fn is_stamp(text: &[u8]) -> bool {
    text.iter().zip(STAMP).all(|(byte, form)| match form {
        b'd' => byte.is_ascii_digit(),
        other => byte == other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split() {
        let stamp = || Stamp::Rotated(b"2026-11-23T04-42-40.000".to_vec());
        for (name, base, expected, compressed) in [
            ("audit.log", "audit.log", Stamp::Live, false),
            ("audit-2026-11-23T04-42-40.000.log", "audit.log", stamp(), false),
            ("audit-2026-11-23T04-42-40.000.log.gz", "audit.log", stamp(), true),
            ("audit-2026-11-23T04-42-40.000.log.zst", "audit.log", stamp(), true),
            ("audit-2026-11-23T04-42-40.000", "audit", stamp(), false),
            ("k8s-audit-2026-11-23T04-42-40.000.jsonl", "k8s-audit.jsonl", stamp(), false),
            ("audit-2026-11-23.log", "audit-2026-11-23.log", Stamp::Live, false),
            ("-2026-11-23T04-42-40.000.log", ".log", stamp(), false),
            ("2026-11-23T04-42-40.000.log", "2026-11-23T04-42-40.000.log", Stamp::Live, false),
            ("audit.log.gz", "audit.log", Stamp::Live, true),
            ("audit.log.12.gz", "audit.log", Stamp::Numbered(Reverse(12)), true),
        ] {
            let found = LogName::parse(OsStr::new(name));
            let base = base.as_bytes().to_vec();
            assert_eq!(found, LogName { base, stamp: expected, compressed }, "{name}");
        }
    }

    #[test]
    fn logs_are_distinguished_from_other_files() {
        for (name, expected) in [
            ("audit.log", true),
            ("audit-2026-11-23T04-42-40.000.log.gz", true),
            ("events.ndjson.zst", true),
            ("audit.log.seal", false),
            ("audit.log.parquet", false),
            ("audit-2026-11-23T04-42-40.000.log.gz.tmp", false),
            (".log", false),
        ] {
            assert_eq!(LogName::parse(OsStr::new(name)).is_log(), expected, "{name}");
        }
    }
}
