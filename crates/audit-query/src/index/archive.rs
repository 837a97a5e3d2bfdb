//! Reads Parquet files that have the events themselves: those of the backend `s3` and of
//! `log export --events`, and what other programs made of them.

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

/// What files of this format begin with.
pub(crate) const MAGIC: &[u8] = b"PAR1";

/// The columns of a file with whole events, as this program writes it.
pub(crate) static WITH_EVENTS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let mut columns = Column::EXPORT.to_vec();
    columns.extend([Column::Length, Column::Exact, Column::Event]);
    columns
});
static SCHEMA: LazyLock<Option<TypePtr>> = LazyLock::new(|| schema(&WITH_EVENTS).ok());

/// A Parquet file with whole events.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) file: ParquetFile,
    /// The column with the events.
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
        // Only this program marks the rows that have not all that the event has.
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

    /// Number of the first row of a row group in the file.
    pub(crate) fn first_row(&self, group: usize) -> u64 {
        self.file.metadata.row_groups()[..group].iter().map(|group| group.num_rows() as u64).sum()
    }

    /// Bytes of a row group.
    pub(crate) fn size(&self, group: usize) -> u64 {
        self.file.metadata.row_group(group).compressed_size().unsigned_abs()
    }

    /// Whether its columns can be read instead of the events.
    pub(crate) fn has_columns(&self) -> bool {
        self.file.layout != Layout::Unknown
    }

    /// Length of an event of a row group, on average.
    pub(crate) fn mean_length(&self, group: usize) -> usize {
        let group = self.file.metadata.row_group(group);
        let bytes = group.column(self.event).uncompressed_size().unsigned_abs() as usize;
        bytes / (group.num_rows().max(1) as usize) + 1
    }

    /// Reads events of a row group, in ascending order of their rows.
    pub(crate) fn events(&self, group: usize) -> Result<Events> {
        let column = self.file.metadata.row_group(group).column(self.event);
        let optional = column.column_descr().max_def_level() > 0;
        let pages = self.file.long_pages(group, self.event)?;
        let reader = ColumnReaderImpl::new(column.column_descr_ptr(), pages);
        Ok(Events { reader, optional, next: 0, levels: Vec::new(), values: Vec::new() })
    }
}

/// The events of a row group.
pub(crate) struct Events {
    reader: ColumnReaderImpl<ByteArrayType>,
    optional: bool,
    /// The row that is read next.
    next: usize,
    levels: Vec<i16>,
    values: Vec<ByteArray>,
}

impl Events {
    /// Reads the event of a row, which comes after those that were read before. Returns an empty
    /// line if there is none.
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

/// The error of the file system or the store, if it is one.
pub(crate) fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    }
}
