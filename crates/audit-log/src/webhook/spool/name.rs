//! Names of batch files.
//!
//! `<number>.<checksum>-<events>.json`: the number has 20 digits and gives the order, `events` is
//! the number of events in the batch, and the checksum is the first half of the content's SHA-256
//! in hex. Files of earlier versions have no checksum. A batch that was set aside ends in
//! `.rejected`.

use crate::seal::{hex, sha256};

/// Decimal digits of a batch's number.
const DIGITS: usize = 20;
/// Hexadecimal digits of a checksum.
const CHECKSUM: usize = 32;

/// The name of a batch file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BatchName {
    pub(super) number: u64,
    pub(super) events: u64,
    /// `None` in files of earlier versions.
    checksum: Option<String>,
}

/// The kind of a batch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To be sent.
    Pending,
    /// Set aside: the endpoint refused it, or it is corrupt.
    Rejected,
}

impl BatchName {
    /// Returns the name of a batch with this content.
    pub(super) fn new(number: u64, events: u64, content: &[u8]) -> BatchName {
        BatchName { number, events, checksum: Some(checksum(content)) }
    }

    /// Parses a file name. Returns `None` for any name that [`BatchName::file_name`] cannot return.
    pub(super) fn parse(name: &str) -> Option<(BatchName, Kind)> {
        let (stem, kind) = match name.strip_suffix(".json") {
            Some(stem) => (stem, Kind::Pending),
            None => (name.strip_suffix(".rejected")?, Kind::Rejected),
        };
        let (head, events) = stem.split_once('-')?;
        let (number, checksum) = match head.split_once('.') {
            Some((number, checksum)) => (number, Some(checksum.to_owned())),
            None => (head, None),
        };
        let parsed =
            BatchName { number: number.parse().ok()?, events: events.parse().ok()?, checksum };
        let is_checksum = |text: &String| {
            text.len() == CHECKSUM && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let valid = number.len() == DIGITS && parsed.checksum.iter().all(is_checksum);
        (valid && parsed.file_name(kind) == name).then_some((parsed, kind))
    }

    /// Returns the file name of a batch.
    pub(super) fn file_name(&self, kind: Kind) -> String {
        let BatchName { number, events, checksum } = self;
        let extension = match kind {
            Kind::Pending => "json",
            Kind::Rejected => "rejected",
        };
        match checksum {
            Some(checksum) => format!("{number:020}.{checksum}-{events}.{extension}"),
            None => format!("{number:020}-{events}.{extension}"),
        }
    }

    /// Returns whether `content` is what was written. `None`: the name has no checksum.
    pub(super) fn matches(&self, content: &[u8]) -> Option<bool> {
        self.checksum.as_ref().map(|expected| *expected == checksum(content))
    }
}

fn checksum(content: &[u8]) -> String {
    let mut checksum = hex(&sha256(content));
    checksum.truncate(CHECKSUM);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_strictly() {
        let name = BatchName::new(7, 3, b"content");
        let text = name.file_name(Kind::Pending);
        assert_eq!(BatchName::parse(&text), Some((name.clone(), Kind::Pending)));
        let aside = name.file_name(Kind::Rejected);
        assert_eq!(BatchName::parse(&aside), Some((name.clone(), Kind::Rejected)));
        assert_eq!(name.matches(b"content"), Some(true));
        assert_eq!(name.matches(b"cpntent"), Some(false));

        let (old, _) = BatchName::parse("00000000000000000007-3.json").unwrap();
        assert_eq!((old.number, old.events, old.matches(b"")), (7, 3, None));
        for foreign in [
            "7-3.json",
            "00000000000000000007-03.json",
            "+0000000000000000007-3.json",
            "00000000000000000007.-3.json",
            "00000000000000000007.0123-3.json",
            "00000000000000000007-3-3.json",
            "00000000000000000007-3.tmp",
            "readme.json",
        ] {
            assert_eq!(BatchName::parse(foreign), None, "{foreign}");
        }
    }
}
