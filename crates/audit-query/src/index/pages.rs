//! Decodes pages of an index file to dictionary indexes, without creating a value for each row.
//!
//! A report counts rows by the values of some columns. Each column has few distinct values in a row
//! group and stores each of them once; comparing their indexes costs a fraction of comparing the
//! values.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::{ParquetError, Result};

/// The index of a missing value.
pub(super) const NULL: u32 = u32::MAX;

/// A column chunk in its stored form.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// The dictionary page with the distinct values.
    pub(super) dictionary: Bytes,
    /// For each entry with a value, its index in the dictionary.
    pub(super) indexes: Vec<u32>,
    /// For each entry, its definition level, and whether it continues a list. Empty if every entry
    /// has a value and no entry continues a list.
    pub(super) definition: Vec<u32>,
    pub(super) repetition: Vec<u32>,
    /// The number of entries.
    entries: usize,
}

/// The maximum levels of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) definition: u32,
    pub(super) repetition: u32,
}

fn damaged() -> ParquetError {
    ParquetError::General("a page is damaged".to_owned())
}

/// Splits off a block of levels, which is preceded by its length.
fn split_levels(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)
}

impl Chunk {
    /// Reads a chunk with data pages of version 1. Returns `None` if a page is not encoded with a
    /// dictionary.
    pub(super) fn read(mut pages: Box<dyn PageReader>, levels: Levels) -> Result<Option<Chunk>> {
        let mut chunk = Chunk::default();
        while let Some(page) = pages.get_next_page()? {
            match page {
                Page::DictionaryPage { buf, .. } => chunk.dictionary = buf,
                Page::DataPage {
                    buf,
                    num_values,
                    encoding: Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY,
                    ..
                } => {
                    let rest = chunk.push_levels(&buf, num_values as usize, levels)?;
                    let values = chunk.values_of_last(num_values as usize, levels);
                    if let Some((width, runs)) = rest.split_first() {
                        runs_of(runs, u32::from(*width), values, &mut chunk.indexes)
                            .ok_or_else(damaged)?;
                    } else if values > 0 {
                        return Err(damaged());
                    }
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(chunk))
    }

    /// Reads the values of a chunk of fixed-size values: for each row the index of its value.
    pub(super) fn read_fixed(
        mut pages: Box<dyn PageReader>,
        length: usize,
    ) -> Result<Option<(Vec<u8>, Vec<u32>)>> {
        let levels = Levels { definition: 1, repetition: 0 };
        let mut chunk = Chunk::default();
        let mut values = Vec::new();
        while let Some(page) = pages.get_next_page()? {
            let Page::DataPage { buf, num_values, encoding: Encoding::PLAIN, .. } = page else {
                return Ok(None);
            };
            let rest = chunk.push_levels(&buf, num_values as usize, levels)?;
            let size = chunk.values_of_last(num_values as usize, levels) * length;
            values.extend_from_slice(rest.get(..size).ok_or_else(damaged)?);
        }
        let count = (values.len() / length) as u32;
        chunk.indexes = (0..count).collect();
        Ok(Some((values, chunk.rows())))
    }

    /// Appends the levels of a page. Returns the data after them.
    fn push_levels<'a>(
        &mut self,
        page: &'a [u8],
        count: usize,
        levels: Levels,
    ) -> Result<&'a [u8]> {
        let mut rest = page;
        for (highest, out) in
            [(levels.repetition, &mut self.repetition), (levels.definition, &mut self.definition)]
        {
            if highest > 0 {
                let (block, after) = split_levels(rest)?;
                runs_of(block, u32::BITS - highest.leading_zeros(), count, out)
                    .ok_or_else(damaged)?;
                rest = after;
            }
        }
        self.entries += count;
        Ok(rest)
    }

    /// Returns how many of the last entries have a value.
    fn values_of_last(&self, count: usize, levels: Levels) -> usize {
        if levels.definition == 0 {
            return count;
        }
        let last = &self.definition[self.definition.len() - count..];
        last.iter().filter(|level| **level == levels.definition).count()
    }

    /// Returns the index of the value of each row of a column that is not a list, or [`NULL`].
    pub(super) fn rows(self) -> Vec<u32> {
        if self.indexes.len() == self.entries {
            return self.indexes;
        }
        let mut indexes = self.indexes.into_iter();
        let row = |level: u32| if level == 0 { NULL } else { indexes.next().unwrap_or(NULL) };
        self.definition.into_iter().map(row).collect()
    }

    /// Returns the range in `indexes` of the values of each row of a list column; `None` for rows
    /// without a list. `highest` is the definition level of a value.
    pub(super) fn lists(&self, highest: u32) -> Vec<Option<Range<usize>>> {
        let mut lists: Vec<Option<Range<usize>>> = Vec::new();
        let mut at = 0;
        for (definition, repetition) in self.definition.iter().zip(&self.repetition) {
            if *repetition == 0 {
                lists.push((*definition > 0).then_some(at..at));
            }
            if *definition == highest {
                at += 1;
                if let Some(Some(list)) = lists.last_mut() {
                    list.end = at;
                }
            }
        }
        lists
    }
}

/// Decodes `count` numbers of `width` bits, which are runs of equal numbers and bit-packed numbers.
/// Returns `None` if there are fewer.
fn runs_of(mut bytes: &[u8], width: u32, count: usize, out: &mut Vec<u32>) -> Option<()> {
    if width > 32 {
        return None;
    }
    let wanted = out.len() + count;
    out.reserve(count);
    while out.len() < wanted {
        let header = varint(&mut bytes)?;
        let left = wanted - out.len();
        if header & 1 == 0 {
            let length = usize::try_from(header >> 1).ok()?.min(left);
            let (value, rest) = bytes.split_at_checked(width.div_ceil(8) as usize)?;
            let value = value.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
            out.resize(out.len() + length, value);
            bytes = rest;
            if length == 0 {
                return None;
            }
        } else {
            let groups = usize::try_from(header >> 1).ok()?;
            let size = groups.checked_mul(width as usize)?;
            // The last run may end after its last number.
            let (packed, rest) = bytes.split_at(size.min(bytes.len()));
            let length = groups.checked_mul(8)?.min(left);
            if length == 0 || packed.len() * 8 < length * width as usize {
                return None;
            }
            unpack(packed, width, length, out);
            bytes = rest;
        }
    }
    Some(())
}

/// Decodes bit-packed numbers of `width` bits, lowest bit first.
fn unpack(packed: &[u8], width: u32, length: usize, out: &mut Vec<u32>) {
    let mask = (1_u64 << width) - 1;
    let width = width as usize;
    let number = |index: usize| {
        let bit = index * width;
        let from = &packed[(bit / 8).min(packed.len())..];
        let word = match from.first_chunk::<8>() {
            Some(word) => u64::from_le_bytes(*word),
            None => from.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        };
        (word >> (bit % 8) & mask) as u32
    };
    out.extend((0..length).map(number));
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes numbers as runs, as the format describes it.
    fn encode(numbers: &[u32], width: u32, packed: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let varint = |mut value: usize, out: &mut Vec<u8>| {
            while value >= 0x80 {
                out.push(value as u8 | 0x80);
                value >>= 7;
            }
            out.push(value as u8);
        };
        if packed {
            let groups = numbers.len().div_ceil(8);
            varint(groups << 1 | 1, &mut out);
            let mut bits = vec![0_u8; groups * width as usize];
            for (index, number) in numbers.iter().enumerate() {
                for bit in 0..width as usize {
                    let at = index * width as usize + bit;
                    bits[at / 8] |= ((number >> bit & 1) as u8) << (at % 8);
                }
            }
            out.extend(bits);
        } else {
            for run in numbers.chunk_by(|a, b| a == b) {
                varint(run.len() << 1, &mut out);
                out.extend_from_slice(&run[0].to_le_bytes()[..width.div_ceil(8) as usize]);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn runs_are_decoded(
            width in 0..=32_u32,
            numbers in prop::collection::vec(any::<u32>(), 1..100),
            repeated in 1..20_usize,
            packed: bool,
        ) {
            let mask = ((1_u64 << width) - 1) as u32;
            let numbers: Vec<u32> =
                numbers.iter().flat_map(|number| std::iter::repeat_n(number & mask, repeated)).collect();
            let bytes = encode(&numbers, width, packed);
            let mut found = vec![7];
            prop_assert!(runs_of(&bytes, width, numbers.len(), &mut found).is_some());
            prop_assert_eq!(&found[1..], &numbers);
            let more = numbers.len() + 8;
            prop_assert!(runs_of(&bytes, width, more, &mut Vec::new()).is_none());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, width in 0..40_u32, count in 0..300_usize) {
            let mut found = Vec::new();
            let _ = runs_of(&bytes, width, count, &mut found);
            prop_assert!(found.len() <= count);
        }
    }
}
