//! Checks by statistics, Bloom filters, and dictionaries whether a row group can be skipped without
//! reading its rows.

use parquet::basic::Encoding;
use parquet::bloom_filter::Sbbf;
use parquet::column::page::Page;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;

use super::file::ParquetFile;
use super::rows::parse_uuid;
use super::schema::{Column, Kind};

/// The statistics, Bloom filters, and dictionaries of one row group.
pub(crate) struct Probe<'a> {
    file: &'a ParquetFile,
    group: usize,
}

impl<'a> Probe<'a> {
    pub(super) fn new(file: &'a ParquetFile, group: usize) -> Probe<'a> {
        Probe { file, group }
    }

    fn column(&self, column: Column) -> Option<&'a ColumnChunkMetaData> {
        let (leaf, _) = self.file.layout.place(column)?;
        Some(self.file.metadata.row_group(self.group).column(leaf))
    }

    fn statistics(&self, column: Column) -> Option<&'a Statistics> {
        self.column(column)?.statistics()
    }

    /// Returns whether all rows are exact, that is, represent their events completely.
    pub(crate) fn is_exact(&self) -> bool {
        match self.statistics(Column::Exact) {
            Some(Statistics::Boolean(flags)) => flags.min_opt() == Some(&true),
            _ => false,
        }
    }

    /// Returns the earliest and the latest time of the events in microseconds since 1970, or `None`
    /// if they are unknown.
    pub(crate) fn times(&self) -> Option<(i64, i64)> {
        let Some(Statistics::Int64(times)) = self.statistics(Column::StageTime) else {
            return None;
        };
        // Events without a `stageTimestamp` have the time of their request.
        (times.null_count_opt() == Some(0)).then_some(())?;
        Some((*times.min_opt()?, *times.max_opt()?))
    }

    /// Returns when the first and the last of the requests were received, in microseconds since
    /// 1970, or `None` if that is unknown.
    pub(crate) fn received(&self) -> Option<(i64, i64)> {
        match self.statistics(Column::Received) {
            Some(Statistics::Int64(times)) => Some((*times.min_opt()?, *times.max_opt()?)),
            _ => None,
        }
    }

    /// Returns whether an event may have a status code between `from` and `to`, inclusive.
    pub(crate) fn has_code(&self, from: i64, to: i64) -> bool {
        let Some(Statistics::Int32(codes)) = self.statistics(Column::Code) else {
            return true;
        };
        match (codes.min_opt(), codes.max_opt()) {
            (Some(min), Some(max)) => i64::from(*min) <= to && i64::from(*max) >= from,
            _ => codes.null_count_opt() != Some(self.file.rows(self.group) as u64),
        }
    }

    /// Returns whether the column may contain one of these values, according to its Bloom filter.
    pub(crate) fn may_have(
        &self,
        column: Column,
        mut values: impl Iterator<Item = Vec<u8>>,
    ) -> bool {
        let Some(chunk) = self.column(column) else { return true };
        match Sbbf::read_from_column_chunk(chunk, &*self.file.file) {
            Ok(Some(filter)) => values.any(|value| filter.check(&value[..])),
            _ => true,
        }
    }

    /// Returns whether one of these audit IDs may occur, according to the Bloom filter.
    pub(crate) fn may_have_audit_id<'b>(&self, ids: impl Iterator<Item = &'b [u8]>) -> bool {
        match self.file.layout.place(Column::AuditId) {
            Some((_, Kind::Uuid)) => {
                let uuids = ids.filter_map(|id| Some(parse_uuid(id)?.to_vec()));
                self.may_have(Column::AuditId, uuids)
            }
            _ => self.may_have(Column::AuditId, ids.map(<[u8]>::to_vec)),
        }
    }

    /// Returns whether one of a column's values (of a map: its keys; of a list: its items) may
    /// match.
    pub(crate) fn any(&self, column: Column, mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        let Some((leaf, _)) = self.file.layout.place(column) else { return true };
        let chunk = self.file.metadata.row_group(self.group).column(leaf);
        let rows = self.file.rows(self.group) as u64;
        if let Some(Statistics::ByteArray(values)) = chunk.statistics()
            && values.null_count_opt() == Some(rows)
            && chunk.num_values() as u64 == rows
        {
            return false;
        }
        let is_dictionary = chunk.page_encoding_stats_mask().is_some_and(|mask| {
            mask.is_only(Encoding::RLE_DICTIONARY) || mask.is_only(Encoding::PLAIN_DICTIONARY)
        });
        if !is_dictionary || chunk.dictionary_page_offset().is_none() {
            return true;
        }
        let page = self.file.first_page(self.group, leaf);
        let Ok(Some(Page::DictionaryPage { buf, .. })) = page else { return true };
        let mut rest = &buf[..];
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let Some((value, tail)) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)
            else {
                return true;
            };
            if matches(value) {
                return true;
            }
            rest = tail;
        }
        false
    }
}
