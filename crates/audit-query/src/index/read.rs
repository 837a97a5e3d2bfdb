//! Reads rows of index files as events.

use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType,
    Int32Type, Int64Type,
};
use parquet::errors::{ParquetError, Result};

use super::file::ParquetFile;
use super::schema::{Column, Columns, Kind};
use crate::event::time::push_canonical;
use crate::event::{Event, Lists, Text, User};
use crate::output::format::push_json;

/// Number of rows to read at a time, so that their columns fit into the L2 cache.
const BATCH: usize = if cfg!(test) { 256 } else { 4096 };

/// The index of a missing value.
const NULL: u32 = super::pages::NULL;

/// Some rows of some columns.
pub(crate) struct Batch {
    columns: Vec<Loaded>,
    left: usize,
    rows: usize,
    /// The start offsets of the events and their lengths in bytes.
    offsets: Vec<u64>,
    lengths: Vec<u32>,
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
    /// With the text of each value, 27 bytes each.
    Time(ColumnReaderImpl<Int64Type>, Vec<i64>, Vec<u8>),
    /// With the text of each value, 36 bytes each.
    Uuid(ColumnReaderImpl<FixedLenByteArrayType>, Vec<FixedLenByteArray>, Vec<u8>),
    Text(ColumnReaderImpl<ByteArrayType>, Vec<ByteArray>),
    Code(ColumnReaderImpl<Int32Type>, Vec<i32>),
    Offset(ColumnReaderImpl<Int64Type>, Vec<i64>),
    Length(ColumnReaderImpl<Int32Type>, Vec<i32>),
    Flag(ColumnReaderImpl<BoolType>, Vec<bool>),
    List(ColumnReaderImpl<ByteArrayType>, Json),
    Map(ColumnReaderImpl<ByteArrayType>, ColumnReaderImpl<ByteArrayType>, Json),
}

/// Lists or maps, encoded as JSON.
#[derive(Debug, Default)]
pub(super) struct Json {
    pub(super) text: Vec<u8>,
    pub(super) ends: Vec<usize>,
}

impl Data {
    fn open(file: &ParquetFile, group: usize, leaf: usize, kind: Kind) -> Result<Data> {
        Ok(match kind {
            Kind::Time => Data::Time(file.reader(group, leaf)?, Vec::new(), Vec::new()),
            Kind::Uuid => Data::Uuid(file.reader(group, leaf)?, Vec::new(), Vec::new()),
            Kind::Text | Kind::Json => Data::Text(file.reader(group, leaf)?, Vec::new()),
            Kind::Code => Data::Code(file.reader(group, leaf)?, Vec::new()),
            Kind::Offset => Data::Offset(file.reader(group, leaf)?, Vec::new()),
            Kind::Length => Data::Length(file.reader(group, leaf)?, Vec::new()),
            Kind::Flag => Data::Flag(file.reader(group, leaf)?, Vec::new()),
            Kind::List => Data::List(file.reader(group, leaf)?, Json::default()),
            Kind::Map => {
                Data::Map(file.reader(group, leaf)?, file.reader(group, leaf + 1)?, Json::default())
            }
        })
    }
}

/// Reads `rows` rows of an optional column.
pub(super) fn optional<T: DataType>(
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

pub(super) fn required<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    values: &mut Vec<T::T>,
) -> Result<()> {
    values.clear();
    let (read, _, _) = reader.read_records(rows, None, None, values)?;
    check(read, rows)
}

/// Returns the offsets of events. An event without an offset follows the one before it, with a
/// newline between; `end` is the offset of the first event if it has none.
pub(super) fn offsets(values: &[i64], index: &[u32], lengths: &[u32], mut end: u64) -> Vec<u64> {
    let offset = |(at, length): (&u32, &u32)| {
        let start = values.get(*at as usize).map_or(end, |offset| *offset as u64);
        end = start + u64::from(*length) + 1;
        start
    };
    index.iter().zip(lengths).map(offset).collect()
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
            Data::Offset(reader, values) => optional(reader, rows, levels, index, values)?,
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
    /// Encodes the list or map of each row.
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

    pub(super) fn get(&self, at: u32) -> Option<&[u8]> {
        let at = at as usize;
        let end = *self.ends.get(at)?;
        self.text.get(at.checked_sub(1).map_or(0, |before| self.ends[before])..end)
    }
}

impl Batch {
    /// Opens columns of a row group.
    pub(super) fn open(file: &ParquetFile, group: usize, columns: Columns) -> Result<Batch> {
        let exact = file.is_exact(group);
        let wanted = |column: &Column| match column {
            Column::Offset | Column::Length => true,
            Column::Exact => !exact,
            column => columns.has(*column),
        };
        let open = |column: Column| {
            let (leaf, kind) = file.layout.place(column)?;
            let data = Data::open(file, group, leaf, kind);
            Some(data.map(|data| Loaded { column, data, index: Vec::new() }))
        };
        let wanted = Column::INDEX.into_iter().filter(wanted);
        let columns = wanted.filter_map(open).collect::<Result<Vec<_>>>()?;
        Ok(Batch {
            columns,
            left: file.rows(group),
            rows: 0,
            offsets: Vec::new(),
            lengths: Vec::new(),
            levels: Vec::new(),
            repetition: Vec::new(),
            backslashes: file.backslashes,
        })
    }

    /// Reads the next rows. Returns how many, 0 at the end.
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
        self.set_places();
        Ok(self.rows)
    }

    fn set_places(&mut self) {
        let end = match (self.offsets.last(), self.lengths.last()) {
            (Some(offset), Some(length)) => offset + u64::from(*length) + 1,
            _ => 0,
        };
        self.lengths.clear();
        for loaded in &self.columns {
            if let Data::Length(_, values) = &loaded.data {
                self.lengths.extend(values.iter().map(|length| *length as u32));
            }
        }
        for loaded in &self.columns {
            if let Data::Offset(_, values) = &loaded.data {
                self.offsets = offsets(values, &loaded.index, &self.lengths, end);
            }
        }
    }

    /// Returns the offset of a row's event in the log of an index, its length in bytes, and whether
    /// the row is exact, that is, represents the event completely.
    pub(crate) fn place(&self, row: usize) -> (u64, u64, bool) {
        let offset = self.offsets.get(row).copied().unwrap_or_default();
        let exact = self.columns.iter().all(|loaded| match &loaded.data {
            Data::Flag(_, values) => values[row],
            _ => true,
        });
        (offset, u64::from(self.lengths[row]), exact)
    }

    /// Returns the event of a row. Only the members in the opened columns are set.
    pub(crate) fn event(&self, row: usize) -> Event<'_> {
        let mut event = Event::default();
        let mut lists = Lists::default();
        event.set_length(u64::from(self.lengths.get(row).copied().unwrap_or_default()));
        for loaded in &self.columns {
            let at = match loaded.data {
                Data::Offset(..) | Data::Length(..) | Data::Flag(..) => continue,
                _ => loaded.index[row],
            };
            if at == NULL {
                continue;
            }
            let text = match &loaded.data {
                Data::Code(_, values) => {
                    event.status.code = values.get(at as usize).map(|code| i64::from(*code));
                    continue;
                }
                Data::List(_, json) | Data::Map(_, _, json) => {
                    set_list(&mut lists, loaded.column, json.get(at));
                    continue;
                }
                Data::Time(_, _, text) => part(text, at, 27),
                Data::Uuid(_, _, text) => part(text, at, 36),
                Data::Text(_, values) => values.get(at as usize).map_or(&[][..], ByteArray::data),
                _ => continue,
            };
            set_text(&mut event, loaded.column, Text::new(text));
        }
        event.with_lists(lists)
    }
}

/// Sets the member of an event that corresponds to a text column.
pub(super) fn set_text<'a>(event: &mut Event<'a>, column: Column, text: Text<'a>) {
    match column {
        Column::StageTime => event.stage_time = text,
        Column::Received => event.received = text,
        Column::AuditId => event.audit_id = text,
        Column::Level => event.level = text,
        Column::Stage => event.stage = text,
        Column::Verb => event.verb = text,
        Column::User => event.user.name = text,
        Column::Impersonated => event.impersonated_user = Some(User::named(text)),
        Column::UserAgent => event.user_agent = text,
        Column::ApiGroup => event.object.api_group = text,
        Column::ApiVersion => event.object.api_version = text,
        Column::Resource => event.object.resource = text,
        Column::Subresource => event.object.subresource = text,
        Column::Namespace => event.object.namespace = text,
        Column::Name => event.object.name = text,
        Column::Uri => event.request_uri = text,
        Column::Reason => event.status.reason = text,
        _ => {}
    }
}

/// Sets the member of an event that corresponds to a column of lists or maps.
pub(super) fn set_list<'a>(lists: &mut Lists<'a>, column: Column, json: Option<&'a [u8]>) {
    match column {
        Column::Groups => lists.groups = json,
        Column::SourceIps => lists.source_ips = json,
        _ => lists.annotations = json,
    }
}

fn part(text: &[u8], at: u32, length: usize) -> &[u8] {
    let start = at as usize * length;
    text.get(start..start + length).unwrap_or_default()
}

/// Returns the value with its backslashes escaped, as [`Text`] expects it, or `None` if it has
/// none.
pub(super) fn escaped(value: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', value)?;
    let mut escaped = Vec::with_capacity(value.len() + 8);
    for byte in value {
        if *byte == b'\\' {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    Some(escaped)
}

fn escape(value: &mut ByteArray) {
    if let Some(escaped) = escaped(value.data()) {
        *value = escaped.into();
    }
}

pub(super) fn push_uuid(uuid: &[u8], out: &mut Vec<u8>) {
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
