//! Reads Parquet files that store complete events: those of the `s3` backend and of `log export
//! --events`, and files that other programs derived from them.

use std::fs::File;
use std::io;
use std::sync::LazyLock;

use parquet::basic::Type;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::schema::types::TypePtr;

use super::file::{Layout, ParquetFile, Positioned};
use super::schema::{Column, schema};
use crate::objects::Object;

/// The magic number at the start of a Parquet file.
pub(crate) const MAGIC: &[u8] = b"PAR1";

/// The columns of a file with complete events, as this program writes it.
pub(crate) static WITH_EVENTS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let mut columns = Column::EXPORT.to_vec();
    columns.extend([Column::Length, Column::Exact, Column::Event]);
    columns
});
static SCHEMA: LazyLock<Option<TypePtr>> = LazyLock::new(|| schema(&WITH_EVENTS).ok());

/// A Parquet file that stores complete events.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) file: ParquetFile,
    /// The index of the leaf column with the events.
    event: usize,
}

impl Archive {
    /// Opens a file.
    pub(crate) fn of_file(file: &File) -> io::Result<Archive> {
        Archive::open(Positioned::file(file.try_clone()?)?)
    }

    /// Opens an object.
    pub(crate) fn of_object(object: &Object) -> io::Result<Archive> {
        Archive::open(Positioned::object(object.clone())?)
    }

    fn open(file: Positioned) -> io::Result<Archive> {
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(io_error)?;
        let schema = metadata.file_metadata().schema();
        // Only files of this program mark the rows that do not represent their event completely.
        let layout = match SCHEMA.as_deref() == Some(schema) {
            true => Layout::Archive(&WITH_EVENTS),
            false => Layout::Unknown,
        };
        let leaves = metadata.file_metadata().schema_descr();
        let is_event = |leaf: &usize| {
            let column = leaves.column(*leaf);
            column.path().parts() == ["event"]
                && column.physical_type() == Type::BYTE_ARRAY
                && column.max_rep_level() == 0
        };
        let event = (0..leaves.num_columns()).find(is_event).ok_or_else(|| {
            io::Error::other(
                "this Parquet file has no column \"event\" with the events; log export writes it with \
                 --events",
            )
        })?;
        Ok(Archive { file: ParquetFile::new(file, metadata, layout, true), event })
    }

    pub(crate) fn groups(&self) -> usize {
        self.file.metadata.num_row_groups()
    }

    /// Returns the number of the first row of a row group in the file.
    pub(crate) fn first_row(&self, group: usize) -> u64 {
        self.file.metadata.row_groups()[..group].iter().map(|group| group.num_rows() as u64).sum()
    }

    /// Returns the compressed size of a row group in bytes.
    pub(crate) fn size(&self, group: usize) -> u64 {
        self.file.metadata.row_group(group).compressed_size().unsigned_abs()
    }

    /// Returns whether the columns can be read instead of the events.
    pub(crate) fn has_columns(&self) -> bool {
        self.file.layout != Layout::Unknown
    }

    /// Returns the mean length of the events of a row group in bytes.
    pub(crate) fn mean_length(&self, group: usize) -> usize {
        let group = self.file.metadata.row_group(group);
        let bytes = group.column(self.event).uncompressed_size().unsigned_abs() as usize;
        bytes / (group.num_rows().max(1) as usize) + 1
    }

    /// Returns a reader of the events of a row group, in ascending row order.
    pub(crate) fn events(&self, group: usize) -> Result<Events> {
        let column = self.file.metadata.row_group(group).column(self.event);
        let optional = column.column_descr().max_def_level() > 0;
        let pages = self.file.long_pages(group, self.event)?;
        let reader = ColumnReaderImpl::new(column.column_descr_ptr(), pages);
        Ok(Events { reader, optional, next: 0, levels: Vec::new(), values: Vec::new() })
    }
}

/// Reads the events of a row group.
pub(crate) struct Events {
    reader: ColumnReaderImpl<ByteArrayType>,
    optional: bool,
    /// The next row to read.
    next: usize,
    levels: Vec<i16>,
    values: Vec<ByteArray>,
}

impl Events {
    /// Reads the event of a row. Rows must be requested in ascending order. Returns an empty line
    /// if the row has no event.
    pub(crate) fn get(&mut self, row: usize) -> Result<&[u8]> {
        let skipped = row.saturating_sub(self.next);
        if skipped > 0 && self.reader.skip_records(skipped)? < skipped {
            return Err(ParquetError::EOF("the column event is too short".to_owned()));
        }
        self.next = row + 1;
        self.levels.clear();
        self.values.clear();
        let levels = self.optional.then_some(&mut self.levels);
        let (read, ..) = self.reader.read_records(1, levels, None, &mut self.values)?;
        match (read, self.values.first()) {
            (0, _) => Err(ParquetError::EOF("the column event is too short".to_owned())),
            (_, Some(value)) => Ok(value.data()),
            (_, None) => Ok(b""),
        }
    }
}

/// Returns the underlying error of the file system or object store, or wraps the Parquet error.
pub(crate) fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    }
}
