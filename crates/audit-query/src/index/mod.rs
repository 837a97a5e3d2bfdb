//! Index files: a Parquet file beside each closed log file, `audit-TIME.log.parquet`.
//!
//! It has a row for each event, with what most filters and reports ask for, and where the event is
//! in the log. Bodies are not in it. DuckDB, ClickHouse, and other programs read it, too.
//!
//! # When it is used
//!
//! Only if it is of exactly this log file: size, modification time, and SHA-256 of the first and
//! the last 4 KiB are in its metadata. A row whose event cannot be told from its columns (an audit
//! ID that is not a UUID, a timestamp of another form, bytes that are not UTF-8) is marked as not
//! `exact`, and the event is read from the log. So is every event that is printed, and every one
//! whose bodies or other members are asked for.
//!
//! # What it costs
//!
//! About 3 % of the log on disk. Row groups of 65,536 events have statistics, a Bloom filter of
//! audit IDs and one of names, and dictionaries, by which a search leaves most of them out.

mod archive;
mod check;
mod file;
mod identity;
mod json;
mod pages;
mod probe;
mod read;
mod rows;
mod schema;
mod sidecar;
mod values;
mod write;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::archive::{Archive, Events, MAGIC, WITH_EVENTS, io_error};
pub use self::check::verify;
pub(crate) use self::file::ParquetFile;
pub(crate) use self::identity::hex;
pub(crate) use self::json::event as json;
pub(crate) use self::probe::Probe;
use self::rows::Rows;
pub(crate) use self::rows::parse_uuid;
pub(crate) use self::schema::Column;
pub use self::schema::Columns;
pub(crate) use self::sidecar::Sidecar;
pub(crate) use self::values::{Times, Tuples, Uuids, Values};
pub(crate) use self::write::Table;
pub use self::write::{Written, expected_digest, write};

/// What the name of an index file ends in, after the name of the log before compression.
pub const SUFFIX: &str = ".parquet";

/// Why an index file cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// There is none.
    #[error("there is no index file")]
    Missing,
    /// The log was written to or replaced afterwards, or the index file belongs to another one.
    #[error("it is of another state of the log: {0}")]
    Stale(&'static str),
    /// It is not an index file, or of another version.
    #[error("it is not an index file of this version: {0}")]
    Invalid(String),
    /// It has another event than the log.
    #[error("it does not match the log: {0}")]
    Differs(String),
    /// The log is not one event a line.
    #[error("only logs with one event a line can be indexed")]
    NotLines,
    /// The file system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The Parquet library.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The caller wants no more.
    #[error("interrupted")]
    Interrupted,
}

/// The index file of a log file, whether that is compressed or not.
pub fn path(log: &Path) -> PathBuf {
    let compressed =
        log.extension().is_some_and(|extension| extension == "gz" || extension == "zst");
    let mut name = match compressed {
        true => log.with_extension("").into_os_string(),
        false => log.as_os_str().to_owned(),
    };
    name.push(SUFFIX);
    PathBuf::from(name)
}

/// Whether a log file has an index file of its present state. Reads no more than is needed to tell.
///
/// # Errors
/// There is no index file, or it cannot be used.
pub fn is_current(log: &Path) -> Result<(), IndexError> {
    let file = std::fs::File::open(log)?;
    Sidecar::open(log, &file).map(|_| ())
}

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod tests;
