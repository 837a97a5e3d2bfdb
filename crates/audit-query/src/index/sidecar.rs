//! An index file that is open: what it says of its log, and where its columns are.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::{Buf, Bytes};
use parquet::column::page::{Page, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::TypePtr;

use super::probe::Probe;
use super::read::Batch;
use super::schema::{Column, Columns, schema};
use super::write::{Description, KEY, VERSION};
use super::{IndexError, path};

/// A file that is read at offsets, so that threads can share it.
#[derive(Debug)]
pub(crate) struct Positioned {
    file: File,
    size: u64,
}

impl Length for Positioned {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Positioned {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        // Headers of pages and of Bloom filters are shorter.
        let length = self.size.saturating_sub(start).min(1024);
        Ok(self.get_bytes(start, length as usize)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if start.saturating_add(length as u64) > self.size {
            return Err(ParquetError::EOF("the file is too short".to_owned()));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// A column chunk in memory, read at once.
#[derive(Debug)]
struct InMemory {
    bytes: Bytes,
    start: u64,
}

impl InMemory {
    fn slice(&self, start: u64, length: Option<usize>) -> Result<Bytes> {
        let too_short = || ParquetError::EOF("the column is too short".to_owned());
        let start = usize::try_from(start.checked_sub(self.start).ok_or_else(too_short)?)
            .map_err(|_| too_short())?;
        let end = length.map_or(self.bytes.len(), |length| start.saturating_add(length));
        if start > end || end > self.bytes.len() {
            return Err(too_short());
        }
        Ok(self.bytes.slice(start..end))
    }
}

impl Length for InMemory {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for InMemory {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.slice(start, None)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.slice(start, Some(length))
    }
}

/// The schema that an index file of this version has.
static SCHEMA: LazyLock<Option<TypePtr>> = LazyLock::new(|| schema(&Column::INDEX).ok());

/// An index file that is of the log beside it.
#[derive(Debug)]
pub(crate) struct Sidecar {
    pub(super) file: Arc<Positioned>,
    pub(super) metadata: ParquetMetaData,
    pub(crate) description: Description,
}

impl Sidecar {
    /// Opens the index file of a log file.
    pub(crate) fn open(log: &Path, log_file: &File) -> std::result::Result<Sidecar, IndexError> {
        let sidecar = Sidecar::any(log)?;
        sidecar.description.log.check(log_file)?;
        Ok(sidecar)
    }

    /// What the index file of a log says of it, true or not.
    pub(super) fn describe(log: &Path) -> std::result::Result<Description, IndexError> {
        Sidecar::any(log).map(|sidecar| sidecar.description)
    }

    /// Opens the index file of a log file, whatever state of the log it is of.
    fn any(log: &Path) -> std::result::Result<Sidecar, IndexError> {
        let file = match File::open(path(log)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IndexError::Missing);
            }
            result => result?,
        };
        let size = file.metadata()?.len();
        let file = Arc::new(Positioned { file, size });
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&*file)?;
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
        Ok(Sidecar { file, metadata, description })
    }

    pub(crate) fn groups(&self) -> usize {
        self.description.groups.len()
    }

    /// The part of the log that a row group is about: from the line of its first event, or the
    /// start, to that of the next group.
    pub(crate) fn range(&self, group: usize) -> Range<u64> {
        let starts = &self.description.groups;
        let start = if group == 0 { 0 } else { starts[group].start };
        start..starts.get(group + 1).map_or(self.description.text, |next| next.start)
    }

    pub(crate) fn rows(&self, group: usize) -> usize {
        self.metadata.row_group(group).num_rows() as usize
    }

    /// Reads some columns of a row group, a number of rows at a time.
    pub(crate) fn batch(&self, group: usize, columns: Columns) -> Result<Batch> {
        Batch::open(self, group, columns)
    }

    /// Whether all rows of a group have all that there is to know.
    pub(crate) fn is_exact(&self, group: usize) -> bool {
        self.probe(group).is_exact()
    }

    pub(crate) fn probe(&self, group: usize) -> Probe<'_> {
        Probe::new(self, group)
    }

    pub(super) fn pages(&self, group: usize, leaf: usize) -> Result<Box<dyn PageReader>> {
        let group = self.metadata.row_group(group);
        let column = group.column(leaf);
        let (start, length) = column.byte_range();
        let bytes = self.file.get_bytes(start, length as usize)?;
        let chunk = Arc::new(InMemory { bytes, start });
        let rows = group.num_rows() as usize;
        Ok(Box::new(SerializedPageReader::new(chunk, column, rows, None)?))
    }

    /// The first page of a column, without the others.
    pub(super) fn first_page(&self, group: usize, leaf: usize) -> Result<Option<Page>> {
        let group = self.metadata.row_group(group);
        let (column, rows) = (group.column(leaf), group.num_rows() as usize);
        SerializedPageReader::new(self.file.clone(), column, rows, None)?.get_next_page()
    }

    pub(super) fn reader<T: DataType>(
        &self,
        group: usize,
        leaf: usize,
    ) -> Result<ColumnReaderImpl<T>> {
        let column = self.metadata.row_group(group).column(leaf).column_descr_ptr();
        Ok(ColumnReaderImpl::new(column, self.pages(group, leaf)?))
    }
}
