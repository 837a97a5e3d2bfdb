//! Names of batch files.
//!
//! A name has the form `<number>.<checksum>-<events>.json`, or another extension than `json`
//! ([`Format`](crate::delivery::Format)). The number has 20 digits and defines the order, `events`
//! is the number of events in the batch, and the checksum is the first half of the content's
//! SHA-256 in hex. Files of earlier versions have no checksum. The name of a batch that was set
//! aside ends in `.rejected`.

use crate::seal::{Sha256, hex, sha256};

/// Number of decimal digits of a batch's number.
const DIGITS: usize = 20;
/// Number of hexadecimal digits of a checksum.
const CHECKSUM: usize = 32;

/// The name of a batch file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchName {
    pub(crate) number: u64,
    pub(crate) events: u64,
    /// `None` in files of earlier versions.
    checksum: Option<String>,
    extension: &'static str,
}

/// The state of a batch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To be sent.
    Pending,
    /// Set aside: the endpoint rejected the batch, or it is corrupt.
    Rejected,
}

impl BatchName {
    /// Returns the name of a batch with this content.
    pub(crate) fn new(
        extension: &'static str,
        number: u64,
        events: u64,
        content: &[u8],
    ) -> BatchName {
        BatchName::hashed(extension, number, events, &sha256(content))
    }

    /// Returns the name of a batch whose content has this SHA-256.
    pub(crate) fn hashed(
        extension: &'static str,
        number: u64,
        events: u64,
        hash: &Sha256,
    ) -> BatchName {
        BatchName { number, events, checksum: Some(checksum(hash)), extension }
    }

    /// Parses a file name. Returns `None` for any name that [`BatchName::file_name`] cannot return.
    pub(crate) fn parse(extension: &'static str, name: &str) -> Option<(BatchName, Kind)> {
        let pending = name.strip_suffix(extension).and_then(|name| name.strip_suffix('.'));
        let (stem, kind) = match pending {
            Some(stem) => (stem, Kind::Pending),
            None => (name.strip_suffix(".rejected")?, Kind::Rejected),
        };
        let (head, events) = stem.split_once('-')?;
        let (number, checksum) = match head.split_once('.') {
            Some((number, checksum)) => (number, Some(checksum.to_owned())),
            None => (head, None),
        };
        let (order, events) = (number.parse().ok()?, events.parse().ok()?);
        let parsed = BatchName { number: order, events, checksum, extension };
        let is_checksum = |text: &String| {
            text.len() == CHECKSUM && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let valid = number.len() == DIGITS && parsed.checksum.iter().all(is_checksum);
        (valid && parsed.file_name(kind) == name).then_some((parsed, kind))
    }

    /// Returns the file name of a batch.
    pub(crate) fn file_name(&self, kind: Kind) -> String {
        let BatchName { number, events, checksum, extension } = self;
        let extension = match kind {
            Kind::Pending => *extension,
            Kind::Rejected => "rejected",
        };
        match checksum {
            Some(checksum) => format!("{number:020}.{checksum}-{events}.{extension}"),
            None => format!("{number:020}-{events}.{extension}"),
        }
    }

    /// Returns whether the checksum matches `content`, or `None` if there is no checksum.
    pub(crate) fn matches(&self, content: &[u8]) -> Option<bool> {
        self.matches_hash(&sha256(content))
    }

    /// Returns whether the checksum matches this SHA-256, or `None` if there is no checksum.
    pub(crate) fn matches_hash(&self, hash: &Sha256) -> Option<bool> {
        self.checksum.as_ref().map(|expected| *expected == checksum(hash))
    }
}

fn checksum(hash: &Sha256) -> String {
    let mut checksum = hex(hash);
    checksum.truncate(CHECKSUM);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_strictly() {
        let name = BatchName::new("json", 7, 3, b"content");
        let text = name.file_name(Kind::Pending);
        assert_eq!(BatchName::parse("json", &text), Some((name.clone(), Kind::Pending)));
        let aside = name.file_name(Kind::Rejected);
        assert_eq!(BatchName::parse("json", &aside), Some((name.clone(), Kind::Rejected)));
        assert_eq!(name.matches(b"content"), Some(true));
        assert_eq!(name.matches(b"cpntent"), Some(false));

        let (old, _) = BatchName::parse("json", "00000000000000000007-3.json").unwrap();
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
            assert_eq!(BatchName::parse("json", foreign), None, "{foreign}");
        }
    }
}
