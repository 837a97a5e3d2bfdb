//! An open Parquet file of events: the layout of its columns, and how to read them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use parquet::column::page::{Page, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use super::probe::Probe;
use super::read::Batch;
use super::schema::{Column, Columns, Kind, leaf};
use crate::objects::Object;

/// Bytes to read from the end of an object when it is opened: usually its metadata, or all of a
/// small object.
const TAIL: u64 = 64 << 10;
/// Parts of an object that are at most this many bytes apart are read in one request.
const GAP: u64 = 64 << 10;
/// Longer column chunks, in bytes, are not read ahead.
const LONGEST: u64 = 4 << 20;
/// Bytes of a long column chunk to read at a time.
const WINDOW: u64 = 2 << 20;

/// A file or object with reads at any offset, so that threads can share it.
#[derive(Debug)]
pub(crate) struct Positioned {
    content: Content,
    size: u64,
    /// Parts of an object that were read ahead: their start offsets and bytes.
    ahead: Mutex<Vec<(u64, Bytes)>>,
    /// The end of an object: its start offset and bytes.
    tail: (u64, Bytes),
}

#[derive(Debug)]
enum Content {
    File(File),
    Object(Object),
}

impl Positioned {
    pub(super) fn file(file: File) -> io::Result<Positioned> {
        let size = file.metadata()?.len();
        let (content, tail) = (Content::File(file), (size, Bytes::new()));
        Ok(Positioned { content, size, ahead: Mutex::default(), tail })
    }

    pub(super) fn object(object: Object) -> io::Result<Positioned> {
        let size = object.size;
        let start = size.saturating_sub(TAIL);
        let tail = (start, object.read(start..size)?);
        Ok(Positioned { content: Content::Object(object), size, ahead: Mutex::default(), tail })
    }

    /// Reads parts of an object in as few requests as possible. Does nothing for a file.
    fn read_ahead(&self, mut parts: Vec<(u64, u64)>) -> io::Result<()> {
        let Content::Object(object) = &self.content else { return Ok(()) };
        parts.retain(|(start, end)| end - start <= LONGEST && *start < self.tail.0);
        parts.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in parts {
            match merged.last_mut() {
                Some(last) if start <= last.1 + GAP && end - last.0 <= LONGEST => {
                    last.1 = last.1.max(end);
                }
                _ => merged.push((start, end)),
            }
        }
        let read = |(start, end)| Ok((start, object.read(start..end)?));
        let ahead = merged.into_iter().map(read).collect::<io::Result<_>>()?;
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = ahead;
        Ok(())
    }

    fn known(&self, start: u64, length: usize) -> Option<Bytes> {
        let part = |(from, bytes): &(u64, Bytes)| {
            let at = usize::try_from(start.checked_sub(*from)?).ok()?;
            let end = at.checked_add(length)?;
            (end <= bytes.len()).then(|| bytes.slice(at..end))
        };
        let ahead = || {
            let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            ahead.iter().find_map(part)
        };
        part(&self.tail).or_else(ahead)
    }
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
        let end = start.saturating_add(length as u64);
        if end > self.size {
            return Err(ParquetError::EOF("the file is too short".to_owned()));
        }
        match &self.content {
            Content::File(file) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, start)?;
                Ok(bytes.into())
            }
            Content::Object(object) => match self.known(start, length) {
                Some(bytes) => Ok(bytes),
                None => Ok(object.read(start..end)?),
            },
        }
    }
}

/// A column chunk that is completely in memory.
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

/// A column chunk of which only a window is in memory at a time.
#[derive(Debug)]
pub(super) struct Windowed {
    file: Arc<Positioned>,
    end: u64,
    window: Mutex<(u64, Bytes)>,
}

impl Windowed {
    /// Returns the bytes from `start` on: at least `least` of them, or all up to the end of the
    /// chunk.
    fn from(&self, start: u64, least: u64) -> Result<Bytes> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, bytes) = &*window;
        let wanted = start.saturating_add(least).min(self.end);
        if *from <= start && wanted <= *from + bytes.len() as u64 {
            return Ok(bytes.slice((start - from) as usize..));
        }
        let end = self.end.min(wanted.max(start.saturating_add(WINDOW)));
        let length = end.saturating_sub(start) as usize;
        let bytes = self.file.get_bytes(start, length)?;
        *window = (start, bytes.clone());
        Ok(bytes)
    }
}

impl Length for Windowed {
    fn len(&self) -> u64 {
        self.end
    }
}

impl ChunkReader for Windowed {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        // Page headers that other programs write may contain values (statistics), and so be longer.
        Ok(self.from(start, 64 << 10)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.from(start, length as u64)?;
        match bytes.len() >= length {
            true => Ok(bytes.slice(..length)),
            false => Err(ParquetError::EOF("the column is too short".to_owned())),
        }
    }
}

/// The columns of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// The columns of an index file.
    Index,
    /// These columns, in this order. Audit IDs are texts.
    Archive(&'static [Column]),
    /// The columns of another program. Only the events are read.
    Unknown,
}

impl Layout {
    /// Returns the first leaf of a column, and how its values are stored.
    pub(super) fn place(self, column: Column) -> Option<(usize, Kind)> {
        match self {
            Layout::Index => Some((leaf(column), column.kind())),
            Layout::Archive(columns) => {
                let column = match column {
                    Column::AuditId => Column::AnyAuditId,
                    column => column,
                };
                let at = columns.iter().position(|one| *one == column)?;
                // A map has two leaves.
                let maps = columns[..at].iter().filter(|one| one.kind() == Kind::Map).count();
                Some((at + maps, column.kind()))
            }
            Layout::Unknown => None,
        }
    }
}

/// A Parquet file of events.
#[derive(Debug)]
pub(crate) struct ParquetFile {
    pub(super) file: Arc<Positioned>,
    pub(super) metadata: ParquetMetaData,
    pub(super) layout: Layout,
    /// Values may contain backslashes.
    pub(super) backslashes: bool,
}

impl ParquetFile {
    pub(super) fn new(
        file: Positioned,
        metadata: ParquetMetaData,
        layout: Layout,
        backslashes: bool,
    ) -> ParquetFile {
        ParquetFile { file: Arc::new(file), metadata, layout, backslashes }
    }

    pub(crate) fn rows(&self, group: usize) -> usize {
        self.metadata.row_group(group).num_rows() as usize
    }

    /// Opens columns of a row group, to be read a number of rows at a time.
    pub(crate) fn batch(&self, group: usize, columns: Columns) -> Result<Batch> {
        Batch::open(self, group, columns)
    }

    /// Returns whether all rows of a group are exact, that is, represent their events completely.
    pub(crate) fn is_exact(&self, group: usize) -> bool {
        self.probe(group).is_exact()
    }

    pub(crate) fn probe(&self, group: usize) -> Probe<'_> {
        Probe::new(self, group)
    }

    /// Reads columns of a row group of an object in as few requests as possible. Does nothing for a
    /// file.
    pub(crate) fn read_ahead(&self, group: usize, columns: Columns) -> Result<()> {
        let chunks = self.metadata.row_group(group).columns();
        let mut parts = Vec::new();
        for column in Column::INDEX {
            let always = matches!(column, Column::Length | Column::Exact);
            if !always && !columns.has(column) {
                continue;
            }
            let Some((leaf, kind)) = self.layout.place(column) else { continue };
            let leaves = if kind == Kind::Map { 2 } else { 1 };
            for chunk in chunks.iter().skip(leaf).take(leaves) {
                let (start, length) = chunk.byte_range();
                parts.push((start, start.saturating_add(length)));
            }
        }
        Ok(self.file.read_ahead(parts)?)
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

    /// Returns the pages of a column that may be long. Only a window of it is in memory at a time.
    pub(super) fn long_pages(&self, group: usize, leaf: usize) -> Result<Box<dyn PageReader>> {
        let group = self.metadata.row_group(group);
        let column = group.column(leaf);
        let (start, length) = column.byte_range();
        let window = Mutex::new((start, Bytes::new()));
        let chunk = Windowed { file: self.file.clone(), end: start + length, window };
        let rows = group.num_rows() as usize;
        Ok(Box::new(SerializedPageReader::new(Arc::new(chunk), column, rows, None)?))
    }

    /// Returns the first page of a column without reading the others.
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
