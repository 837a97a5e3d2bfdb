//! Writes Parquet files with complete events, for object storage.

use std::io::Write;

use super::{NONE, of_time};
use crate::event::Event;
use crate::index::{IndexError, Table, WITH_EVENTS};

/// Microseconds of an hour.
const HOUR: i64 = super::HOUR;

/// The partition of an event: the UTC hour in which its request was received, so that all events of
/// a request are in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(Option<i64>);

impl Hour {
    /// Returns the partition of an event, given its line in the log. An event without
    /// `requestReceivedTimestamp` belongs to the hour of its stage, or to no hour without that,
    /// too.
    pub fn of(line: &[u8]) -> Hour {
        let event = Event::parse(line.trim_ascii_end());
        let time = event.and_then(|event| event.received_time().or_else(|| event.time()));
        Hour(time.map(|time| time.div_euclid(HOUR)))
    }

    /// Returns the partition as part of a key in the layout of Hive: `date=2026-11-23/hour=04`.
    pub fn key(self) -> String {
        match self.0 {
            Some(hour) => {
                let time = hour * HOUR;
                format!("date={}/hour={}", of_time(time, 0..10), of_time(time, 11..13))
            }
            None => format!("date={NONE}/hour={NONE}"),
        }
    }
}

/// Writes a Parquet file with the columns of an export, `line_length` and `exact` (see
/// [`crate::index`]), and `event`, the event as it is in the log. The same events always result in
/// the same bytes.
pub struct ArchiveWriter<W: Write + Send>(Table<W>);

impl<W: Write + Send> ArchiveWriter<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// Returns an error if `out` cannot be written to.
    pub fn new(out: W) -> Result<ArchiveWriter<W>, IndexError> {
        Ok(ArchiveWriter(Table::new(out, &WITH_EVENTS)?))
    }

    /// Appends an event: a line with or without its newline. A line that cannot be parsed gets a
    /// row with the column `event` only.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn push(&mut self, line: &[u8]) -> Result<(), IndexError> {
        self.0.make_room()?;
        let line = line.trim_ascii_end();
        match Event::parse(line) {
            Some(mut event) => {
                event.raw = line;
                self.0.push(&event, 0);
            }
            None => self.0.push_other(line),
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn finish(mut self) -> Result<W, IndexError> {
        self.0.finish_rows()?;
        Ok(self.0.writer.into_inner()?)
    }
}

impl<W: Write + Send> std::fmt::Debug for ArchiveWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ArchiveWriter")
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;

    #[test]
    fn hours_are_those_of_requests() {
        let line = br#"{"auditID":"a","requestReceivedTimestamp":"2026-11-23T04:59:59.999999Z","stageTimestamp":"2026-11-23T05:00:00.000000Z"}"#;
        assert_eq!(Hour::of(line).key(), "date=2026-11-23/hour=04");
        let line = br#"{"auditID":"a","stageTimestamp":"2026-11-23T05:00:00.000000Z"}"#;
        assert_eq!(Hour::of(line).key(), "date=2026-11-23/hour=05");
        let none = format!("date={NONE}/hour={NONE}");
        assert_eq!((Hour::of(b"{}").key(), Hour::of(b"nothing").key()), (none.clone(), none));
    }

    #[test]
    fn events_are_kept_byte_by_byte_and_files_are_reproducible() {
        let lines = [
            "{\"auditID\":\"not a UUID\",\"verb\" : \"get\",\"user\":{\"username\":\"ada\"}}\n",
            "{\"auditID\":\"b\",\"verb\":\"list\",\"x\":\"\u{e9}\"}\n",
            "not an event\n",
        ];
        let write = || {
            let mut writer = ArchiveWriter::new(Vec::new()).unwrap();
            lines.iter().for_each(|line| writer.push(line.as_bytes()).unwrap());
            writer.finish().unwrap()
        };
        let file = write();
        assert_eq!(file, write());
        let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
        let fields = reader.metadata().file_metadata().schema_descr().root_schema().get_fields();
        let at = |name: &str| fields.iter().position(|field| field.name() == name).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        for (row, line) in rows.iter().zip(lines) {
            assert_eq!(row.get_string(at("event")).unwrap(), line.trim_end());
        }
        assert_eq!(rows[0].get_string(at("audit_id")).unwrap(), "not a UUID");
        assert_eq!(rows[1].get_string(at("verb")).unwrap(), "list");
        assert_eq!(rows.len(), 3);
    }
}
