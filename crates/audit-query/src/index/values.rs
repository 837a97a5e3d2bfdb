//! The distinct values of the columns of a row group, and the value of each row.

use bytes::Bytes;
use hashbrown::HashMap;
use parquet::data_type::{BoolType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result};

use super::pages::{Chunk, Levels, NULL};
use super::read::{Json, offsets, optional, push_uuid, required, set_list, set_text};
use super::schema::{Column, Columns, Kind, leaf};
use super::sidecar::Sidecar;
use crate::event::{Event, Lists, Text};
use crate::output::format::push_json;

/// If the product of the numbers of distinct values is at most this, a lookup table is used instead
/// of a hash map.
const TABLE: usize = 1 << 18;

/// Columns of texts, numbers, lists, and maps.
#[derive(Debug)]
pub(crate) struct Values<'a> {
    sidecar: &'a Sidecar,
    group: usize,
    columns: Vec<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    column: Column,
    data: Data,
    /// For each row, the index of its value, or [`NULL`].
    rows: Vec<u32>,
}

#[derive(Debug)]
enum Data {
    Text(Vec<Bytes>),
    Code(Vec<i32>),
    Json(Json),
}

/// Rows grouped by their values: rows of a tuple have the same values in all columns.
#[derive(Debug)]
pub(crate) struct Tuples {
    /// The tuple of each requested row.
    pub(crate) of: Vec<u32>,
    /// One row of each tuple.
    pub(crate) first: Vec<u32>,
}

/// A column of times in microseconds since 1970.
#[derive(Debug)]
pub(crate) struct Times {
    values: Vec<i64>,
    rows: Vec<u32>,
}

impl Times {
    pub(crate) fn get(&self, row: u32) -> Option<i64> {
        self.values.get(*self.rows.get(row as usize)? as usize).copied()
    }

    /// Returns whether every row has a time.
    pub(crate) fn is_complete(&self) -> bool {
        self.values.len() == self.rows.len()
    }
}

/// A column of audit IDs.
#[derive(Debug)]
pub(crate) struct Uuids {
    values: Vec<u8>,
    rows: Vec<u32>,
}

impl Uuids {
    pub(crate) fn get(&self, row: u32) -> Option<[u8; 16]> {
        let at = *self.rows.get(row as usize)? as usize * 16;
        self.values.get(at..)?.first_chunk().copied()
    }

    /// Returns the text of a row's audit ID, empty if it has none.
    pub(crate) fn text(&self, row: u32) -> Vec<u8> {
        let mut text = Vec::new();
        if let Some(uuid) = self.get(row) {
            push_uuid(&uuid, &mut text);
        }
        text
    }
}

impl Sidecar {
    /// Reads columns of a row group, except for times, audit IDs, and offsets. Returns `None` if
    /// one of them is not dictionary-encoded.
    pub(crate) fn values(&self, group: usize, columns: Columns) -> Result<Option<Values<'_>>> {
        let mut values = Values { sidecar: self, group, columns: Vec::new() };
        Ok(values.load(columns)?.then_some(values))
    }

    /// Reads a column of times.
    pub(crate) fn times(&self, group: usize, column: Column) -> Result<Times> {
        let (mut values, mut rows, mut levels) = (Vec::new(), Vec::new(), Vec::new());
        let mut reader = self.reader::<Int64Type>(group, leaf(column))?;
        optional(&mut reader, self.rows(group), &mut levels, &mut rows, &mut values)?;
        Ok(Times { values, rows })
    }

    /// Reads the lengths of the events.
    pub(crate) fn lengths(&self, group: usize) -> Result<Vec<u32>> {
        let mut values = Vec::new();
        let mut reader = self.reader::<Int32Type>(group, leaf(Column::Length))?;
        required(&mut reader, self.rows(group), &mut values)?;
        Ok(values.into_iter().map(|length| length as u32).collect())
    }

    /// Returns the offsets of the events with these lengths.
    pub(crate) fn offsets(&self, group: usize, lengths: &[u32]) -> Result<Vec<u64>> {
        let (mut values, mut rows, mut levels) = (Vec::new(), Vec::new(), Vec::new());
        let mut reader = self.reader::<Int64Type>(group, leaf(Column::Offset))?;
        optional(&mut reader, self.rows(group), &mut levels, &mut rows, &mut values)?;
        Ok(offsets(&values, &rows, lengths, 0))
    }

    /// Returns which rows are exact; `None` if all are.
    pub(crate) fn exact(&self, group: usize) -> Result<Option<Vec<bool>>> {
        if self.is_exact(group) {
            return Ok(None);
        }
        let mut values = Vec::new();
        let mut reader = self.reader::<BoolType>(group, leaf(Column::Exact))?;
        required(&mut reader, self.rows(group), &mut values)?;
        Ok(Some(values))
    }

    /// Reads the audit IDs. Returns `None` if their encoding is not plain.
    pub(crate) fn uuids(&self, group: usize) -> Result<Option<Uuids>> {
        let pages = self.pages(group, leaf(Column::AuditId))?;
        let found = Chunk::read_fixed(pages, 16)?;
        let is_whole = |rows: &Vec<u32>| rows.len() == self.rows(group);
        Ok(found.filter(|(_, rows)| is_whole(rows)).map(|(values, rows)| Uuids { values, rows }))
    }
}

impl Values<'_> {
    /// Reads more columns. Returns `false` if one of them is not dictionary-encoded.
    pub(crate) fn load(&mut self, columns: Columns) -> Result<bool> {
        for column in Column::INDEX {
            let is_loaded = self.columns.iter().any(|loaded| loaded.column == column);
            if !columns.has(column) || is_loaded {
                continue;
            }
            let (sidecar, group) = (self.sidecar, self.group);
            let loaded = match column.kind() {
                Kind::Text | Kind::Code => single(sidecar, group, column)?,
                Kind::List | Kind::Map => lists(sidecar, group, column)?,
                _ => continue,
            };
            let Some((data, rows)) = loaded else { return Ok(false) };
            if rows.len() != sidecar.rows(group) {
                return Err(ParquetError::EOF("a column is too short".to_owned()));
            }
            self.columns.push(Loaded { column, data, rows });
        }
        Ok(true)
    }

    /// Groups rows by their values in the loaded columns that are in `columns`, and by `more`.
    pub(crate) fn tuples(&self, rows: &[u32], columns: Columns, more: Option<&[u32]>) -> Tuples {
        let mut tuples = Tuples { of: vec![0; rows.len()], first: Vec::new() };
        tuples.first.extend(rows.first());
        for loaded in self.columns.iter().filter(|loaded| columns.has(loaded.column)) {
            let count = match &loaded.data {
                Data::Text(values) => values.len(),
                Data::Code(values) => values.len(),
                Data::Json(json) => json.ends.len(),
            };
            if count > 0 {
                tuples.split(rows, count, |row| loaded.rows[row as usize]);
            }
        }
        if let Some(more) = more {
            let count = more.iter().max().map_or(0, |most| *most as usize + 1);
            tuples.split(rows, count, |row| more[row as usize]);
        }
        tuples
    }

    /// Returns the event of a row. Only the members in the loaded columns are set.
    pub(crate) fn event(&self, row: u32) -> Event<'_> {
        let mut event = Event::default();
        let mut lists = Lists::default();
        event.set_length(0);
        for loaded in &self.columns {
            let at = loaded.rows[row as usize];
            if at == NULL {
                continue;
            }
            match &loaded.data {
                Data::Text(values) => {
                    if let Some(text) = values.get(at as usize) {
                        set_text(&mut event, loaded.column, Text::new(text));
                    }
                }
                Data::Code(values) => {
                    event.status.code = values.get(at as usize).map(|code| i64::from(*code));
                }
                Data::Json(json) => set_list(&mut lists, loaded.column, json.get(at)),
            }
        }
        event.with_lists(lists)
    }
}

impl Tuples {
    /// Splits each tuple by another column with `count` distinct values.
    fn split(&mut self, rows: &[u32], count: usize, value: impl Fn(u32) -> u32) {
        const NONE: u32 = u32::MAX;
        // One more for rows without a value.
        let count = count + 1;
        let value = |row| (value(row).wrapping_add(1) as usize).min(count - 1);
        let mut first = Vec::new();
        let size = self.first.len().saturating_mul(count);
        let mut next = |known: &mut u32, row: u32| {
            if *known == NONE {
                *known = first.len() as u32;
                first.push(row);
            }
            *known
        };
        if size <= TABLE {
            let mut table = vec![NONE; size];
            for (tuple, row) in self.of.iter_mut().zip(rows) {
                *tuple = next(&mut table[*tuple as usize * count + value(*row)], *row);
            }
        } else {
            let mut table: HashMap<u64, u32> = HashMap::with_capacity(rows.len().min(TABLE));
            for (tuple, row) in self.of.iter_mut().zip(rows) {
                let key = u64::from(*tuple) << 32 | value(*row) as u64;
                *tuple = next(table.entry(key).or_insert(NONE), *row);
            }
        }
        self.first = first;
    }
}

type Column1 = Option<(Data, Vec<u32>)>;

fn single(sidecar: &Sidecar, group: usize, column: Column) -> Result<Column1> {
    let levels = Levels { definition: 1, repetition: 0 };
    let Some(chunk) = Chunk::read(sidecar.pages(group, leaf(column))?, levels)? else {
        return Ok(None);
    };
    let data = match column.kind() {
        Kind::Code => {
            let (numbers, _) = chunk.dictionary.as_chunks::<4>();
            Data::Code(numbers.iter().map(|number| i32::from_le_bytes(*number)).collect())
        }
        _ => {
            let mut texts = texts(&chunk.dictionary)?;
            if sidecar.description.backslashes {
                texts.iter_mut().for_each(escape);
            }
            Data::Text(texts)
        }
    };
    Ok(Some((data, chunk.rows())))
}

fn lists(sidecar: &Sidecar, group: usize, column: Column) -> Result<Column1> {
    let levels = Levels { definition: 2, repetition: 1 };
    let chunk = |leaf| Chunk::read(sidecar.pages(group, leaf)?, levels);
    let leaf = leaf(column);
    let Some(items) = chunk(leaf)? else { return Ok(None) };
    let values = match column.kind() {
        Kind::Map => match chunk(leaf + 1)? {
            Some(values) if values.indexes.len() == items.indexes.len() => Some(values),
            _ => return Ok(None),
        },
        _ => None,
    };
    let names = texts(&items.dictionary)?;
    let texts = values.as_ref().map_or(Ok(Vec::new()), |values| texts(&values.dictionary))?;
    let push = |text: Option<&Bytes>, out: &mut Vec<u8>| {
        push_json(out, &String::from_utf8_lossy(text.map_or(&[], |text| &text[..])));
    };
    let mut json = Json::default();
    let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
    let mut key = Vec::new();
    let mut rows = Vec::new();
    for range in items.lists(levels.definition) {
        let Some(range) = range else {
            rows.push(NULL);
            continue;
        };
        key.clear();
        key.extend_from_slice(&items.indexes[range.clone()]);
        if let Some(values) = &values {
            key.extend_from_slice(&values.indexes[range.clone()]);
        }
        if let Some(id) = known.get(&key) {
            rows.push(*id);
            continue;
        }
        let id = json.ends.len() as u32;
        let (open, close) = if values.is_some() { (b'{', b'}') } else { (b'[', b']') };
        json.text.push(open);
        for at in 0..range.len() {
            if at > 0 {
                json.text.push(b',');
            }
            push(names.get(key[at] as usize), &mut json.text);
            if values.is_some() {
                json.text.push(b':');
                push(texts.get(key[range.len() + at] as usize), &mut json.text);
            }
        }
        json.text.push(close);
        json.ends.push(json.text.len());
        known.insert(key.clone(), id);
        rows.push(id);
    }
    Ok(Some((Data::Json(json), rows)))
}

/// Returns the values of a dictionary of texts, each of which is preceded by its length.
fn texts(dictionary: &Bytes) -> Result<Vec<Bytes>> {
    let mut texts = Vec::new();
    let mut at = 0;
    while let Some((length, rest)) = dictionary[at..].split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length > rest.len() {
            return Err(ParquetError::General("a dictionary is damaged".to_owned()));
        }
        texts.push(dictionary.slice(at + 4..at + 4 + length));
        at += 4 + length;
    }
    Ok(texts)
}

/// Escapes the value like in JSON, as far as [`Text`] needs it.
fn escape(value: &mut Bytes) {
    if let Some(escaped) = super::read::escaped(value) {
        *value = escaped.into();
    }
}
