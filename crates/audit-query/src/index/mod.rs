//! Index files: a Parquet file next to each closed log file, `audit-TIME.log.parquet`.
//!
//! An index file has one row per event, with the values that most filters and reports use, and the
//! position of the event in the log. It does not contain bodies. DuckDB, ClickHouse, and other
//! programs can read it.
//!
//! # When an index is used
//!
//! An index is used only for exactly the log file that it was written for: its metadata contain the
//! size, the modification time, and the SHA-256 of the first and the last 4 KiB of the log. A row
//! whose columns do not represent the event completely (an audit ID that is not a UUID, a timestamp
//! in another form, bytes that are not UTF-8) is marked as not `exact`; its event is read from the
//! log. Events are also read from the log to print them, and to filter by bodies or other members
//! without a column.
//!
//! # Costs
//!
//! An index takes about 3 % of the size of the log. Row groups of 65,536 events have statistics,
//! Bloom filters of audit IDs and names, and dictionaries, which allow a search to skip most row
//! groups.

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

/// The suffix of an index file: it follows the name that the log had before compression.
pub const SUFFIX: &str = ".parquet";

/// The reason why an index file cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// There is no index file.
    #[error("there is no index file")]
    Missing,
    /// The log was modified or replaced after indexing, or the index file belongs to another log.
    #[error("it is of another state of the log: {0}")]
    Stale(&'static str),
    /// The file is not an index file, or has another version.
    #[error("it is not an index file of this version: {0}")]
    Invalid(String),
    /// An event in the index differs from the log.
    #[error("it does not match the log: {0}")]
    Differs(String),
    /// The log does not have one event per line.
    #[error("only logs with one event a line can be indexed")]
    NotLines,
    /// An error of the file system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An error of the Parquet library.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The caller cancelled the operation.
    #[error("interrupted")]
    Interrupted,
}

/// Returns the path of the index file of a log file, which may be compressed.
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

/// Checks that a log file has an index file for its current state. Reads no more than necessary.
///
/// # Errors
/// Returns an error if there is no index file, or if it cannot be used.
pub fn is_current(log: &Path) -> Result<(), IndexError> {
    let file = std::fs::File::open(log)?;
    Sidecar::open(log, &file).map(|_| ())
}

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod tests;
