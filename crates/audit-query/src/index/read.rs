//! Reads index files.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::column::page::PageReader;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType,
    Int32Type, Int64Type,
};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use super::probe::Probe;
use super::schema::{Column, Columns, Kind, leaf, schema};
use super::write::{Description, KEY, VERSION};
use super::{IndexError, path};
use crate::event::time::push_canonical;
use crate::event::{Event, Lists, Object, Status, Text, User};
use crate::output::format::push_json;

/// Rows that are read at a time: their columns fit the second-level cache.
const BATCH: usize = if cfg!(test) { 256 } else { 4096 };

/// A file that threads share: each read has an offset of its own.
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
    type T = BufReader<Cursor>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let file = self.file.try_clone()?;
        Ok(BufReader::with_capacity(4096, Cursor { file, at: start }))
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

/// Reads on from an offset.
#[derive(Debug)]
pub(crate) struct Cursor {
    file: File,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

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
        if *metadata.file_metadata().schema() != *schema(&Column::INDEX)? {
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

    /// Whether all rows of a group have all that there is to know.
    pub(crate) fn is_exact(&self, group: usize) -> bool {
        self.probe(group).is_exact()
    }

    pub(crate) fn probe(&self, group: usize) -> Probe<'_> {
        Probe::new(self, group)
    }

    /// Reads some columns of a row group.
    pub(crate) fn batch(&self, group: usize, columns: Columns) -> Result<Batch> {
        let exact = self.is_exact(group);
        let wanted = |column: &Column| match column {
            Column::Offset | Column::Length => true,
            Column::Exact => !exact,
            column => columns.has(*column),
        };
        let open = |column: Column| {
            let leaf = leaf(column);
            Ok(Loaded {
                column,
                data: Data::open(self, group, leaf, column.kind())?,
                index: Vec::new(),
            })
        };
        let columns =
            Column::INDEX.into_iter().filter(wanted).map(open).collect::<Result<Vec<_>>>()?;
        Ok(Batch {
            columns,
            left: self.rows(group),
            rows: 0,
            levels: Vec::new(),
            repetition: Vec::new(),
            backslashes: self.description.backslashes,
        })
    }

    pub(super) fn pages(&self, group: usize, leaf: usize) -> Result<Box<dyn PageReader>> {
        let group = self.metadata.row_group(group);
        let rows = group.num_rows() as usize;
        let pages = SerializedPageReader::new(self.file.clone(), group.column(leaf), rows, None)?;
        Ok(Box::new(pages))
    }

    fn reader<T: DataType>(&self, group: usize, leaf: usize) -> Result<ColumnReaderImpl<T>> {
        let column = self.metadata.row_group(group).column(leaf).column_descr_ptr();
        Ok(ColumnReaderImpl::new(column, self.pages(group, leaf)?))
    }
}

/// No value.
const NULL: u32 = u32::MAX;

/// Some rows of some columns.
pub(crate) struct Batch {
    columns: Vec<Loaded>,
    left: usize,
    rows: usize,
    levels: Vec<i16>,
    repetition: Vec<i16>,
    backslashes: bool,
}

struct Loaded {
    column: Column,
    data: Data,
    /// For each row, the index of its value.
    index: Vec<u32>,
}

#[allow(clippy::large_enum_variant, reason = "there is one for each column that is read")]
enum Data {
    /// With the text of each value, 27 bytes.
    Time(ColumnReaderImpl<Int64Type>, Vec<i64>, Vec<u8>),
    /// With the text of each value, 36 bytes.
    Uuid(ColumnReaderImpl<FixedLenByteArrayType>, Vec<FixedLenByteArray>, Vec<u8>),
    Text(ColumnReaderImpl<ByteArrayType>, Vec<ByteArray>),
    Code(ColumnReaderImpl<Int32Type>, Vec<i32>),
    Offset(ColumnReaderImpl<Int64Type>, Vec<i64>),
    Length(ColumnReaderImpl<Int32Type>, Vec<i32>),
    Flag(ColumnReaderImpl<BoolType>, Vec<bool>),
    List(ColumnReaderImpl<ByteArrayType>, Json),
    Map(ColumnReaderImpl<ByteArrayType>, ColumnReaderImpl<ByteArrayType>, Json),
}

/// Lists or maps, written as JSON.
#[derive(Default)]
struct Json {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Data {
    fn open(sidecar: &Sidecar, group: usize, leaf: usize, kind: Kind) -> Result<Data> {
        Ok(match kind {
            Kind::Time => Data::Time(sidecar.reader(group, leaf)?, Vec::new(), Vec::new()),
            Kind::Uuid => Data::Uuid(sidecar.reader(group, leaf)?, Vec::new(), Vec::new()),
            Kind::Text | Kind::Json => Data::Text(sidecar.reader(group, leaf)?, Vec::new()),
            Kind::Code => Data::Code(sidecar.reader(group, leaf)?, Vec::new()),
            Kind::Offset => Data::Offset(sidecar.reader(group, leaf)?, Vec::new()),
            Kind::Length => Data::Length(sidecar.reader(group, leaf)?, Vec::new()),
            Kind::Flag => Data::Flag(sidecar.reader(group, leaf)?, Vec::new()),
            Kind::List => Data::List(sidecar.reader(group, leaf)?, Json::default()),
            Kind::Map => Data::Map(
                sidecar.reader(group, leaf)?,
                sidecar.reader(group, leaf + 1)?,
                Json::default(),
            ),
        })
    }
}

/// Reads `rows` rows of an optional column.
fn optional<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    levels: &mut Vec<i16>,
    index: &mut Vec<u32>,
    values: &mut Vec<T::T>,
) -> Result<()> {
    levels.clear();
    values.clear();
    index.clear();
    let (read, count, _) = reader.read_records(rows, Some(levels), None, values)?;
    check(read, rows)?;
    let mut next = 0;
    if count == rows {
        index.extend(0..rows as u32);
        return Ok(());
    }
    index.extend(levels.iter().map(|level| match level {
        0 => NULL,
        _ => {
            next += 1;
            next - 1
        }
    }));
    Ok(())
}

fn required<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    values: &mut Vec<T::T>,
) -> Result<()> {
    values.clear();
    let (read, _, _) = reader.read_records(rows, None, None, values)?;
    check(read, rows)
}

fn check(read: usize, expected: usize) -> Result<()> {
    match read == expected {
        true => Ok(()),
        false => Err(ParquetError::EOF("a column is too short".to_owned())),
    }
}

impl Loaded {
    fn read(
        &mut self,
        rows: usize,
        levels: &mut Vec<i16>,
        repetition: &mut Vec<i16>,
    ) -> Result<()> {
        let index = &mut self.index;
        match &mut self.data {
            Data::Time(reader, values, text) => {
                optional(reader, rows, levels, index, values)?;
                text.clear();
                values.iter().for_each(|micros| push_canonical(*micros, text));
            }
            Data::Uuid(reader, values, text) => {
                optional(reader, rows, levels, index, values)?;
                text.clear();
                values.iter().for_each(|uuid| push_uuid(uuid.data(), text));
            }
            Data::Text(reader, values) => optional(reader, rows, levels, index, values)?,
            Data::Code(reader, values) => optional(reader, rows, levels, index, values)?,
            Data::Offset(reader, values) => required(reader, rows, values)?,
            Data::Length(reader, values) => required(reader, rows, values)?,
            Data::Flag(reader, values) => required(reader, rows, values)?,
            Data::List(reader, json) => {
                levels.clear();
                repetition.clear();
                let mut values = Vec::new();
                let (read, _, _) =
                    reader.read_records(rows, Some(levels), Some(repetition), &mut values)?;
                check(read, rows)?;
                json.fill((b'[', b']'), levels, repetition, index, |at, out| {
                    push_json(out, &String::from_utf8_lossy(values[at].data()));
                });
            }
            Data::Map(keys, values, json) => {
                let (mut names, mut texts) = (Vec::new(), Vec::new());
                for (reader, out) in [(keys, &mut names), (values, &mut texts)] {
                    levels.clear();
                    repetition.clear();
                    let (read, _, _) =
                        reader.read_records(rows, Some(levels), Some(repetition), out)?;
                    check(read, rows)?;
                }
                if names.len() != texts.len() {
                    return Err(ParquetError::General("a map has keys without values".to_owned()));
                }
                json.fill((b'{', b'}'), levels, repetition, index, |at, out| {
                    push_json(out, &String::from_utf8_lossy(names[at].data()));
                    out.push(b':');
                    push_json(out, &String::from_utf8_lossy(texts[at].data()));
                });
            }
        }
        Ok(())
    }
}

impl Json {
    /// Writes the list or map of each row.
    fn fill(
        &mut self,
        (open, close): (u8, u8),
        levels: &[i16],
        repetition: &[i16],
        index: &mut Vec<u32>,
        mut push: impl FnMut(usize, &mut Vec<u8>),
    ) {
        self.text.clear();
        self.ends.clear();
        index.clear();
        let mut next = 0;
        let mut is_open = false;
        for (level, repeated) in levels.iter().zip(repetition) {
            if *repeated == 0 {
                if std::mem::take(&mut is_open) {
                    self.text.push(close);
                    self.ends.push(self.text.len());
                }
                if *level == 0 {
                    index.push(NULL);
                    continue;
                }
                index.push(self.ends.len() as u32);
                self.text.push(open);
                is_open = true;
            } else {
                self.text.push(b',');
            }
            if *level == 2 {
                push(next, &mut self.text);
                next += 1;
            }
        }
        if is_open {
            self.text.push(close);
            self.ends.push(self.text.len());
        }
    }

    fn get(&self, at: u32) -> Option<&[u8]> {
        let at = at as usize;
        let end = *self.ends.get(at)?;
        self.text.get(at.checked_sub(1).map_or(0, |before| self.ends[before])..end)
    }
}

impl Batch {
    /// Reads the next rows. Returns how many; 0 at the end.
    pub(crate) fn next(&mut self) -> Result<usize> {
        self.rows = self.left.min(BATCH);
        self.left -= self.rows;
        if self.rows == 0 {
            return Ok(0);
        }
        for loaded in &mut self.columns {
            loaded.read(self.rows, &mut self.levels, &mut self.repetition)?;
            if let (Data::Text(_, values), true) = (&mut loaded.data, self.backslashes) {
                values.iter_mut().for_each(escape);
            }
        }
        Ok(self.rows)
    }

    /// Where the event of a row begins, how long it is, and whether the row is all there is to
    /// know.
    pub(crate) fn place(&self, row: usize) -> (u64, u64, bool) {
        let (mut offset, mut length, mut exact) = (0, 0, true);
        for loaded in &self.columns {
            match &loaded.data {
                Data::Offset(_, values) => offset = values[row] as u64,
                Data::Length(_, values) => length = values[row] as u64,
                Data::Flag(_, values) => exact = values[row],
                _ => {}
            }
        }
        (offset, length, exact)
    }

    /// The event of a row, as far as columns were read.
    pub(crate) fn event(&self, row: usize) -> Event<'_> {
        let mut event = Event::default();
        let (mut user, mut object, mut status) =
            (User::default(), Object::default(), Status::default());
        let mut lists = Lists::default();
        for loaded in &self.columns {
            let at = match loaded.data {
                Data::Offset(..) | Data::Flag(..) => continue,
                Data::Length(..) => NULL,
                _ => loaded.index[row],
            };
            let text = match &loaded.data {
                Data::Length(_, values) => {
                    event.set_length(values[row] as u64);
                    continue;
                }
                _ if at == NULL => continue,
                Data::Code(_, values) => {
                    status.code = values.get(at as usize).map(|code| i64::from(*code));
                    continue;
                }
                Data::List(_, json) | Data::Map(_, _, json) => {
                    match loaded.column {
                        Column::Groups => lists.groups = json.get(at),
                        Column::SourceIps => lists.source_ips = json.get(at),
                        _ => lists.annotations = json.get(at),
                    }
                    continue;
                }
                Data::Time(_, _, text) => part(text, at, 27),
                Data::Uuid(_, _, text) => part(text, at, 36),
                Data::Text(_, values) => values.get(at as usize).map_or(&[][..], ByteArray::data),
                _ => continue,
            };
            let text = Text::new(text);
            match loaded.column {
                Column::StageTime => event.stage_time = text,
                Column::Received => event.received = text,
                Column::AuditId => event.audit_id = text,
                Column::Level => event.level = text,
                Column::Stage => event.stage = text,
                Column::Verb => event.verb = text,
                Column::User => user.name = text,
                Column::Impersonated => {
                    event.impersonated_user = Some(User::named(text));
                }
                Column::UserAgent => event.user_agent = text,
                Column::ApiGroup => object.api_group = text,
                Column::ApiVersion => object.api_version = text,
                Column::Resource => object.resource = text,
                Column::Subresource => object.subresource = text,
                Column::Namespace => object.namespace = text,
                Column::Name => object.name = text,
                Column::Uri => event.request_uri = text,
                Column::Reason => status.reason = text,
                _ => {}
            }
        }
        (event.user, event.object, event.status) = (user, object, status);
        event.with_lists(lists)
    }
}

fn part(text: &[u8], at: u32, length: usize) -> &[u8] {
    let start = at as usize * length;
    text.get(start..start + length).unwrap_or_default()
}

/// As it would stand in JSON, as far as [`Text`] tells it apart.
fn escape(value: &mut ByteArray) {
    if memchr::memchr(b'\\', value.data()).is_some() {
        let mut escaped = Vec::with_capacity(value.data().len() + 8);
        for byte in value.data() {
            if *byte == b'\\' {
                escaped.push(b'\\');
            }
            escaped.push(*byte);
        }
        *value = escaped.into();
    }
}

fn push_uuid(uuid: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in uuid.iter().take(16).enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    out.extend_from_slice(&text);
}
