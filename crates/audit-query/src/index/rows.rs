//! Collects the columns of one row group.

use std::hash::BuildHasher;

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int32Type,
    Int64Type,
};
use parquet::errors::{ParquetError, Result};
use parquet::file::writer::{
    SerializedColumnWriter, SerializedFileWriter, SerializedRowGroupWriter,
};

use super::schema::{Column, Kind};
use crate::event::json::{self, Value};
use crate::event::time::{canonical_micros, micros};
use crate::event::{Event, Text};

/// Distinct values, each stored once.
#[derive(Debug, Default)]
struct Values {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// For lists and maps: whether a row with this value can be exact.
    plain: Vec<bool>,
}

impl Values {
    fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        &self.bytes[id.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[id]]
    }

    fn insert(&mut self, value: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(value);
        let (bytes, ends) = (&self.bytes, &self.ends);
        let of = |id: u32| {
            let id = id as usize;
            &bytes[id.checked_sub(1).map_or(0, |before| ends[before])..ends[id]]
        };
        if let Some(id) = self.table.find(hash, |id| of(*id) == value) {
            return *id;
        }
        let id = self.ends.len() as u32;
        let hasher = &self.hasher;
        self.table.insert_unique(hash, id, |id| hasher.hash_one(of(*id)));
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
        id
    }

    /// Converts all values to arrays that share one allocation.
    fn into_arrays(self) -> Vec<ByteArray> {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        let slice = |end: usize| {
            let array = ByteArray::from(bytes.slice(start..end));
            start = end;
            array
        };
        self.ends.into_iter().map(slice).collect()
    }
}

/// The index of a missing value.
const NULL: u32 = u32::MAX;

/// The data of one column.
#[derive(Debug)]
enum Data {
    Time(Vec<Option<i64>>),
    Uuid(Vec<u8>, Vec<i16>),
    Code(Vec<Option<i32>>),
    /// The offsets, and the end of the last event.
    Offset(Vec<Option<i64>>, u64),
    Length(Vec<i32>),
    Flag(Vec<bool>),
    /// The distinct values, and the index of each row's value. Lists and maps are stored as their
    /// JSON in the log.
    Values(Values, Vec<u32>),
}

/// Rows that are waiting to be written as a row group.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: Vec<(Column, Data)>,
    rows: usize,
    /// Whether a value contains a backslash.
    pub(crate) backslashes: bool,
}

impl Rows {
    pub(crate) fn new(columns: &[Column]) -> Rows {
        let data = |column: Column| match column.kind() {
            Kind::Time => Data::Time(Vec::new()),
            Kind::Uuid => Data::Uuid(Vec::new(), Vec::new()),
            Kind::Code => Data::Code(Vec::new()),
            Kind::Offset => Data::Offset(Vec::new(), u64::MAX),
            Kind::Length => Data::Length(Vec::new()),
            Kind::Flag => Data::Flag(Vec::new()),
            Kind::Text | Kind::Json | Kind::List | Kind::Map => {
                Data::Values(Values::default(), Vec::new())
            }
        };
        let columns = columns.iter().map(|column| (*column, data(*column))).collect();
        Rows { columns, rows: 0, backslashes: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Returns the approximate size of the values in bytes.
    pub(crate) fn size(&self) -> usize {
        let size = |data: &Data| match data {
            Data::Values(values, rows) => {
                values.bytes.len() + 16 * values.ends.len() + 4 * rows.len()
            }
            Data::Uuid(values, _) => values.len(),
            _ => 8 * self.rows,
        };
        self.columns.iter().map(|(_, data)| size(data)).sum()
    }

    /// Appends an event.
    pub(crate) fn push(&mut self, event: &Event<'_>, offset: u64) {
        let mut exact = true;
        let is_index = self.columns.iter().any(|(column, _)| *column == Column::Offset);
        let has_exact = self.columns.iter().any(|(column, _)| *column == Column::Exact);
        for (column, data) in &mut self.columns {
            match data {
                Data::Time(times) => {
                    let text =
                        if *column == Column::Received { event.received } else { event.stage_time };
                    // The text must be reproducible from an index.
                    let time = if is_index { canonical_micros(text) } else { micros(text) };
                    exact &= time.is_some() || !text.is_present();
                    exact &= !has_exact || is_index || canonical_micros(text) == time;
                    times.push(time);
                }
                Data::Uuid(values, levels) => {
                    let uuid = parse_uuid(event.audit_id.escaped());
                    exact &= uuid.is_some() || !event.audit_id.is_present();
                    values.extend_from_slice(uuid.as_ref().map_or(&[], |uuid| uuid.as_slice()));
                    levels.push(i16::from(uuid.is_some()));
                }
                Data::Code(codes) => {
                    let code = event.status.code;
                    let small = code.and_then(|code| i32::try_from(code).ok());
                    exact &= code.is_none() || small.is_some();
                    codes.push(small);
                }
                Data::Offset(offsets, end) => {
                    // Most events directly follow the previous one, after its newline.
                    let follows = end.checked_add(1) == Some(offset);
                    offsets.push((!follows).then_some(offset as i64));
                    *end = offset + event.raw.len() as u64;
                }
                Data::Length(lengths) => {
                    lengths.push(i32::try_from(event.raw.len()).unwrap_or(i32::MAX));
                }
                Data::Flag(_) => {}
                Data::Values(values, rows) => {
                    let id = match column.kind() {
                        Kind::List | Kind::Map => list(*column, event, values, &mut exact),
                        Kind::Json => {
                            let json = match column {
                                Column::RequestObject => event.request_object,
                                Column::Event => Some(event.raw),
                                _ => event.response_object,
                            };
                            json.map_or(NULL, |json| {
                                values.insert(String::from_utf8_lossy(json).as_bytes())
                            })
                        }
                        _ => text(column.text(event), values, &mut exact),
                    };
                    rows.push(id);
                }
            }
        }
        if event.impersonated_user.is_some_and(|user| !user.name.is_present()) {
            exact = false;
        }
        for (_, data) in &mut self.columns {
            if let Data::Flag(flags) = data {
                flags.push(exact);
            }
        }
        self.rows += 1;
    }

    /// Marks the last row as one that does not represent its event completely.
    pub(crate) fn mark_inexact(&mut self) {
        for (_, data) in &mut self.columns {
            if let Data::Flag(flags) = data
                && let Some(last) = flags.last_mut()
            {
                *last = false;
            }
        }
    }

    /// Writes the rows as a row group and clears them.
    pub(crate) fn flush<W: std::io::Write + Send>(
        &mut self,
        writer: &mut SerializedFileWriter<W>,
    ) -> Result<()> {
        let names: Vec<Column> = self.columns.iter().map(|(column, _)| *column).collect();
        let rows =
            std::mem::replace(self, Rows { backslashes: self.backslashes, ..Rows::new(&names) });
        if rows.rows == 0 {
            return Ok(());
        }
        let mut group = writer.next_row_group()?;
        for (column, data) in rows.columns {
            if let Data::Values(values, _) = &data {
                self.backslashes |= memchr::memchr(b'\\', &values.bytes).is_some();
            }
            match column.kind() {
                Kind::List => list_column(data, next(&mut group)?)?,
                Kind::Map => {
                    let (keys, values) = map_columns(data);
                    keys.write(next(&mut group)?)?;
                    values.write(next(&mut group)?)?;
                }
                _ => single(data, next(&mut group)?)?,
            }
        }
        group.close()?;
        Ok(())
    }
}

fn text(text: Text<'_>, values: &mut Values, exact: &mut bool) -> u32 {
    if !text.is_present() {
        return NULL;
    }
    let bytes = text.bytes();
    if !bytes.is_ascii() && std::str::from_utf8(&bytes).is_err() {
        *exact = false;
        return values.insert(String::from_utf8_lossy(&bytes).as_bytes());
    }
    values.insert(&bytes)
}

/// Adds a list or map as JSON. Filters ignore values of other types in it as well, except for the
/// first source address.
fn list(column: Column, event: &Event<'_>, values: &mut Values, exact: &mut bool) -> u32 {
    let json = match column {
        Column::Groups => event.user.groups_json(),
        Column::SourceIps => event.source_ips_json(),
        _ => event.annotations_json(),
    };
    let Some(json) = json else { return NULL };
    if !json.is_ascii() && std::str::from_utf8(json).is_err() {
        *exact = false;
        return NULL;
    }
    let id = values.insert(json);
    // Each distinct list is inspected once.
    if values.plain.len() <= id as usize {
        values.plain.push(is_plain(column, json));
    }
    *exact &= values.plain[id as usize];
    id
}

/// Returns whether a list contains only strings, or a map contains only strings and no duplicate or
/// escaped key.
fn is_plain(column: Column, json: &[u8]) -> bool {
    let mut plain = true;
    if column == Column::Annotations {
        let mut keys: Vec<&[u8]> = Vec::new();
        json::members(json, 0, |key, at| {
            let (value, end) = json::value(json, at)?;
            plain &=
                matches!(value, Value::String(_)) && !keys.contains(&key) && !key.contains(&b'\\');
            keys.push(key);
            Some(end)
        });
    } else {
        let read = json::items(json, |item| plain &= matches!(item, Value::String(_)));
        plain &= read.is_some();
    }
    plain
}

/// Parses a UUID in the usual form, in lower case.
pub(crate) fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let mut uuid = [0; 16];
    let mut at = 0;
    let mut valid = true;
    for (index, byte) in uuid.iter_mut().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            valid &= text[at] == b'-';
            at += 1;
        }
        let mut digit = |byte: u8| match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => {
                valid = false;
                0
            }
        };
        *byte = digit(text[at]) << 4 | digit(text[at + 1]);
        at += 2;
    }
    valid.then_some(uuid)
}

/// Splits optional values into the present values and the definition levels.
fn levels<T: Copy>(values: Vec<Option<T>>) -> (Vec<T>, Vec<i16>) {
    let levels = values.iter().map(|value| i16::from(value.is_some())).collect();
    (values.into_iter().flatten().collect(), levels)
}

fn next<'a, W: std::io::Write + Send>(
    group: &'a mut SerializedRowGroupWriter<'_, W>,
) -> Result<SerializedColumnWriter<'a>> {
    let next = group.next_column()?;
    next.ok_or_else(|| ParquetError::General("too few columns".to_owned()))
}

fn single(data: Data, mut column: SerializedColumnWriter<'_>) -> Result<()> {
    match data {
        Data::Time(times) => {
            let (values, levels) = levels(times);
            column.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
        }
        Data::Code(codes) => {
            let (values, levels) = levels(codes);
            column.typed::<Int32Type>().write_batch(&values, Some(&levels), None)?;
        }
        Data::Offset(offsets, _) => {
            let (values, levels) = levels(offsets);
            column.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
        }
        Data::Length(values) => {
            column.typed::<Int32Type>().write_batch(&values, None, None)?;
        }
        Data::Flag(values) => {
            column.typed::<BoolType>().write_batch(&values, None, None)?;
        }
        Data::Uuid(bytes, levels) => {
            let bytes = Bytes::from(bytes);
            let uuid =
                |start| FixedLenByteArray::from(ByteArray::from(bytes.slice(start..start + 16)));
            let values: Vec<_> = (0..bytes.len()).step_by(16).map(uuid).collect();
            column.typed::<FixedLenByteArrayType>().write_batch(&values, Some(&levels), None)?;
        }
        Data::Values(values, rows) => {
            let arrays = values.into_arrays();
            let levels: Vec<i16> = rows.iter().map(|row| i16::from(*row != NULL)).collect();
            let present = rows.iter().filter(|row| **row != NULL);
            let values: Vec<_> = present.map(|row| arrays[*row as usize].clone()).collect();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
        }
    }
    column.close()
}

/// A flattened column of a list or map.
#[derive(Default)]
struct Flat {
    values: Vec<ByteArray>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl Flat {
    fn push(&mut self, list: Option<&[ByteArray]>) {
        let items = list.unwrap_or_default();
        if items.is_empty() {
            self.definition.push(i16::from(list.is_some()));
            self.repetition.push(0);
        }
        for (index, item) in items.iter().enumerate() {
            self.values.push(item.clone());
            self.definition.push(2);
            self.repetition.push(i16::from(index > 0));
        }
    }

    fn write(self, mut column: SerializedColumnWriter<'_>) -> Result<()> {
        let (definition, repetition) = (Some(&self.definition[..]), Some(&self.repetition[..]));
        column.typed::<ByteArrayType>().write_batch(&self.values, definition, repetition)?;
        column.close()
    }
}

fn array(text: Text<'_>) -> ByteArray {
    ByteArray::from(text.bytes().into_owned())
}

fn list_column(data: Data, column: SerializedColumnWriter<'_>) -> Result<()> {
    let Data::Values(values, rows) = data else { return Ok(()) };
    let lists: Vec<Vec<ByteArray>> = (0..values.ends.len() as u32)
        .map(|id| {
            let mut items = Vec::new();
            json::items(values.get(id), |item| {
                if let Value::String(text) = item {
                    items.push(array(Text::new(text)));
                }
            });
            items
        })
        .collect();
    let mut flat = Flat::default();
    for row in rows {
        flat.push(lists.get(row as usize).map(Vec::as_slice));
    }
    flat.write(column)
}

fn map_columns(data: Data) -> (Flat, Flat) {
    let (mut keys, mut values) = (Flat::default(), Flat::default());
    let Data::Values(maps, rows) = data else { return (keys, values) };
    let maps: Vec<(Vec<ByteArray>, Vec<ByteArray>)> = (0..maps.ends.len() as u32)
        .map(|id| {
            let json = maps.get(id);
            let mut members: Vec<(ByteArray, ByteArray)> = Vec::new();
            json::members(json, 0, |key, at| {
                let (value, end) = json::value(json, at)?;
                if let Value::String(value) = value {
                    let (key, value) = (array(Text::new(key)), array(Text::new(value)));
                    // The last one of duplicate keys counts, since a Parquet map has each key once.
                    members.retain(|(known, _)| *known != key);
                    members.push((key, value));
                }
                Some(end)
            });
            members.into_iter().unzip()
        })
        .collect();
    for row in rows {
        let map = maps.get(row as usize);
        keys.push(map.map(|(keys, _)| keys.as_slice()));
        values.push(map.map(|(_, values)| values.as_slice()));
    }
    (keys, values)
}
