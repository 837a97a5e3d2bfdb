//! An open index file: its description of the log, and its columns.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::LazyLock;

use parquet::file::metadata::ParquetMetaDataReader;
use parquet::schema::types::TypePtr;

use super::file::{Layout, ParquetFile, Positioned};
use super::schema::{Column, schema};
use super::write::{Description, KEY, VERSION};
use super::{IndexError, path};

/// The schema of index files of this version.
static SCHEMA: LazyLock<Option<TypePtr>> = LazyLock::new(|| schema(&Column::INDEX).ok());

/// An open index file, with its description of the log.
#[derive(Debug)]
pub(crate) struct Sidecar {
    file: ParquetFile,
    pub(crate) description: Description,
}

impl Deref for Sidecar {
    type Target = ParquetFile;

    fn deref(&self) -> &ParquetFile {
        &self.file
    }
}

impl Sidecar {
    /// Opens the index file of a log file, and checks that it belongs to the current state of the
    /// log.
    pub(crate) fn open(log: &Path, log_file: &File) -> std::result::Result<Sidecar, IndexError> {
        let sidecar = Sidecar::any(log)?;
        sidecar.description.log.check(log_file)?;
        Ok(sidecar)
    }

    /// Returns the description in the index file of a log, without comparing it with the log.
    pub(super) fn describe(log: &Path) -> std::result::Result<Description, IndexError> {
        Sidecar::any(log).map(|sidecar| sidecar.description)
    }

    /// Opens the index file of a log file, even if it belongs to another state of the log.
    fn any(log: &Path) -> std::result::Result<Sidecar, IndexError> {
        let file = match File::open(path(log)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IndexError::Missing);
            }
            result => result?,
        };
        let file = Positioned::file(file)?;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file)?;
        let invalid = |problem: &str| IndexError::Invalid(problem.to_owned());
        let values = metadata.file_metadata().key_value_metadata();
        let value = values.into_iter().flatten().find(|value| value.key == KEY);
        let value = value
            .and_then(|value| value.value.as_ref())
            .ok_or_else(|| invalid("no description"))?;
        let description: Description =
            serde_json::from_str(value).map_err(|error| invalid(&error.to_string()))?;
        if description.version != VERSION {
            return Err(invalid("another version"));
        }
        if SCHEMA.as_deref() != Some(metadata.file_metadata().schema()) {
            return Err(invalid("other columns"));
        }
        let starts = &description.groups;
        if starts.len() != metadata.num_row_groups()
            || !starts.is_sorted_by_key(|group| group.start)
            || starts.last().is_some_and(|last| last.start >= description.text)
        {
            return Err(invalid("row groups are not in order"));
        }
        let backslashes = description.backslashes;
        let file = ParquetFile::new(file, metadata, Layout::Index, backslashes);
        Ok(Sidecar { file, description })
    }

    pub(crate) fn groups(&self) -> usize {
        self.description.groups.len()
    }

    /// Returns the byte range of the log that a row group covers: from the line of its first event
    /// (or from the start of the log, for the first group) to that of the next group (or to the
    /// end).
    pub(crate) fn range(&self, group: usize) -> Range<u64> {
        let starts = &self.description.groups;
        let start = if group == 0 { 0 } else { starts[group].start };
        start..starts.get(group + 1).map_or(self.description.text, |next| next.start)
    }
}
