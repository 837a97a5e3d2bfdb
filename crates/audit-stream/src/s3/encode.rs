//! From a segment to objects: one for each hour of its events.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use audit_query::export::{ArchiveWriter, Hour};
use bytes::Bytes;

use super::Format;

/// The level of zstd for JSON lines.
const LEVEL: i32 = 3;

/// A segment, and where the events of each hour are in it.
pub(super) struct Segment {
    file: Arc<File>,
    hours: Vec<(Hour, Vec<Range<u64>>)>,
}

impl Segment {
    /// Reads a segment through, one line at a time.
    pub(super) fn read(file: Arc<File>, bytes: u64) -> io::Result<Segment> {
        let mut hours: BTreeMap<Hour, Vec<Range<u64>>> = BTreeMap::new();
        let mut start = 0;
        each_line(&file, 0..bytes, |line| {
            let end = start + line.len() as u64;
            let ranges = hours.entry(Hour::of(line)).or_default();
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
            start = end;
            Ok(())
        })?;
        Ok(Segment { file, hours: hours.into_iter().collect() })
    }

    /// Returns an hour of its events.
    pub(super) fn hour(&self, index: usize) -> Option<Hour> {
        self.hours.get(index).map(|(hour, _)| *hour)
    }

    /// Returns the object of an hour. It is the same each time.
    pub(super) fn encode(&self, index: usize, format: Format) -> io::Result<Bytes> {
        let ranges = self.hours.get(index).map_or(&[][..], |(_, ranges)| ranges);
        let object = match format {
            Format::Parquet => {
                let mut writer = ArchiveWriter::new(Vec::new()).map_err(io::Error::other)?;
                for range in ranges {
                    each_line(&self.file, range.clone(), |line| {
                        writer.push(line).map_err(io::Error::other)
                    })?;
                }
                writer.finish().map_err(io::Error::other)?
            }
            Format::Ndjson => {
                let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
                encoder.include_checksum(true)?;
                for range in ranges {
                    each_line(&self.file, range.clone(), |line| encoder.write_all(line))?;
                }
                encoder.finish()?
            }
        };
        Ok(object.into())
    }
}

/// Calls `each` with each line of a part of a file, with its newline.
fn each_line(
    file: &File,
    range: Range<u64>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 << 10, Part { file, range });
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        each(&line)?;
    }
}

/// Reads a part of a file that is shared.
struct Part<'a> {
    file: &'a File,
    range: Range<u64>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.range.end.saturating_sub(self.range.start);
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..length], self.range.start)?;
        self.range.start += read as u64;
        Ok(read)
    }
}
