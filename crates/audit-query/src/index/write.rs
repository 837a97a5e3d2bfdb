//! Writes the index file of a log file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::identity::{Identity, hex};
use super::schema::{Column, Kind, schema};
use super::{IndexError, Rows, Sidecar};
use crate::event::json::{self, Value};
use crate::event::{self, Event, Line};
use crate::input::Input;
use crate::scan::{Progress, chunks, source};

/// Maximum number of events in a row group.
const GROUP: usize = 1 << 16;
/// Maximum size of the distinct values in a row group, in bytes.
const GROUP_SIZE: usize = 24 << 20;
/// The key of the metadata in the Parquet file.
pub(crate) const KEY: &str = "kube-audit-proxy.index";
/// The version of the format.
pub(crate) const VERSION: u32 = 2;

/// The description of the log in its index file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) version: u32,
    pub(crate) log: Identity,
    /// Size of the decompressed log in bytes.
    pub(crate) text: u64,
    pub(crate) events: u64,
    /// Number of lines that are not events.
    pub(crate) skipped: u64,
    /// Whether a value contains a backslash.
    pub(crate) backslashes: bool,
    pub(crate) groups: Vec<Group>,
}

/// The part of the log that a row group covers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The offset of its first line in the log.
    pub(crate) start: u64,
    /// The number of lines that are not events, and the offset of the first.
    pub(crate) skipped: u64,
    pub(crate) first_skipped: u64,
}

/// An index file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The number of events in it.
    pub events: u64,
    /// The size of the decompressed log in bytes.
    pub text: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Atomically writes the index file of a closed log file, with the owner and mode of the log. Calls
/// `stop` regularly and cancels if it returns `true`.
///
/// # Errors
/// Returns an error if the log cannot be read or does not have one event per line, or if the index
/// file cannot be written. An existing index file is then left unchanged.
pub fn write(log: &Path, stop: &dyn Fn() -> bool) -> Result<Written, IndexError> {
    let path = super::path(log);
    let mut temporary = path.clone().into_os_string();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let result = write_to(log, &path, &temporary, stop);
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_to(
    log: &Path,
    path: &Path,
    temporary: &Path,
    stop: &dyn Fn() -> bool,
) -> Result<Written, IndexError> {
    let file = File::open(log)?;
    let identity = Identity::of(&file)?;
    let metadata = file.metadata()?;
    let to =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    // The index gets the owner and mode of the log, so that the same users may read it.
    let own = to.metadata()?;
    if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
        let _ = fchown(&to, Some(metadata.uid()), Some(metadata.gid()));
    }
    let mut permissions = metadata.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, metadata.mode() & 0o666);
    to.set_permissions(permissions)?;

    let (hashed, description) = build(log, file, identity, BufWriter::new(to), stop)?;
    // A log that was modified during indexing is not closed.
    description.log.check(&File::open(log)?)?;
    let to = hashed.out.into_inner().map_err(|error| error.into_error())?;
    to.sync_all()?;
    fs::rename(temporary, path)?;
    Ok(Written {
        path: path.to_owned(),
        size: hashed.size,
        events: description.events,
        text: description.text,
        sha256: hex(hashed.context.finish().as_ref()),
    })
}

/// Returns the SHA-256, in hexadecimal, that the index file of a log would have if this program
/// wrote it from the current log. The state of the log (size, times) is taken from the existing
/// index file.
///
/// If the digest of the existing index file differs, the file does not match the log, or another
/// version of the program wrote it.
///
/// # Errors
/// Returns an error if the log or its index file cannot be read, or if the log does not have one
/// event per line.
pub fn expected_digest(log: &Path) -> Result<String, IndexError> {
    let identity = Sidecar::describe(log)?.log;
    let (hashed, _) = build(log, File::open(log)?, identity, io::sink(), &|| false)?;
    Ok(hex(hashed.context.finish().as_ref()))
}

/// Writes the rows of a log, and the description of the log.
fn build<W: Write + Send>(
    log: &Path,
    file: File,
    identity: Identity,
    out: W,
    stop: &dyn Fn() -> bool,
) -> Result<(Hashed<W>, Description), IndexError> {
    let input = Input { path: log.to_owned(), file: Some(file), object: None };
    let source = source::Source::plan(input).map_err(|error| match error {
        crate::scan::ScanError::Io { error, .. } => IndexError::Io(error),
    })?;
    if matches!(source.format, source::Format::Document | source::Format::Archive) {
        return Err(IndexError::NotLines);
    }
    let out = Hashed { out, context: Context::new(&SHA256), size: 0 };
    let mut table = Table::new(out, &Column::INDEX)?;
    let mut description = Description {
        version: VERSION,
        log: identity,
        text: 0,
        events: 0,
        skipped: 0,
        backslashes: false,
        groups: Vec::new(),
    };
    let progress = Progress::default();
    let mut result = Ok(());
    let mut buffer = chunks::Buffer::default();
    chunks::of_stream(source.stream(&progress)?, &mut buffer, |region, offset| {
        if stop() {
            result = Err(IndexError::Interrupted);
            return ControlFlow::Break(());
        }
        let mut at = offset;
        for line in region.split_inclusive(|byte| *byte == b'\n') {
            if let Err(error) = add(&mut table, &mut description, line, at) {
                result = Err(error);
                return ControlFlow::Break(());
            }
            at += line.len() as u64;
        }
        description.text = at;
        ControlFlow::Continue(())
    })?;
    result?;
    description.backslashes = table.finish_rows()?;
    if let Some(last) = description.groups.last_mut() {
        // Lines after the last event.
        if last.skipped == 0 {
            last.first_skipped = table.before.first_skipped;
        }
        last.skipped += table.before.skipped;
    }
    let value = serde_json::to_string(&description).map_err(io::Error::from)?;
    table.writer.append_key_value_metadata(KeyValue::new(KEY.to_owned(), value));
    Ok((table.writer.into_inner()?, description))
}

fn add<W: Write + Send>(
    table: &mut Table<W>,
    description: &mut Description,
    line: &[u8],
    offset: u64,
) -> Result<(), IndexError> {
    // A row group ends at the end of a line.
    table.make_room()?;
    let is_first = table.is_empty();
    let mut faulty = false;
    match event::parse(line) {
        Line::Event(event) => {
            // White space may precede the event.
            let start = event.raw.as_ptr().addr() - line.as_ptr().addr();
            table.push(&event, offset + start as u64);
            description.events += 1;
        }
        Line::List(items) => {
            let read = json::items(items, |item| {
                let event = match item {
                    Value::Object(text) => Event::parse(text),
                    _ => None,
                };
                match event {
                    Some(event) => {
                        let start = event.raw.as_ptr().addr() - line.as_ptr().addr();
                        table.push(&event, offset + start as u64);
                        description.events += 1;
                    }
                    None => faulty = true,
                }
            });
            faulty |= read.is_none();
        }
        Line::Other => faulty = !line.trim_ascii().is_empty(),
    }
    if is_first && !table.is_empty() {
        // Invalid lines before the first event belong to its row group.
        let group = std::mem::take(&mut table.before);
        description.groups.push(Group { start: offset, ..group });
    }
    if faulty {
        description.skipped += 1;
        let group = match description.groups.last_mut() {
            Some(group) if !table.is_empty() => group,
            _ => &mut table.before,
        };
        if group.skipped == 0 {
            group.first_skipped = offset;
        }
        group.skipped += 1;
    }
    Ok(())
}

/// Writes a Parquet file of events.
pub(crate) struct Table<W: Write + Send> {
    pub(crate) writer: SerializedFileWriter<W>,
    rows: Rows,
    /// Lines since the last row group that are not events.
    before: Group,
}

impl<W: Write + Send> Table<W> {
    pub(crate) fn new(out: W, columns: &[Column]) -> Result<Table<W>, IndexError> {
        let writer =
            SerializedFileWriter::new(out, schema(columns)?, Arc::new(properties(columns)))?;
        Ok(Table { writer, rows: Rows::new(columns), before: Group::default() })
    }

    /// Returns whether no rows are waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    pub(crate) fn push(&mut self, event: &Event<'_>, offset: u64) {
        self.rows.push(event, offset);
    }

    /// Appends a line that is not an event, unchanged.
    pub(crate) fn push_other(&mut self, line: &[u8]) {
        let mut event = Event::default();
        event.raw = line;
        self.rows.push(&event, 0);
        self.rows.mark_inexact();
    }

    /// Writes the waiting rows if a row group is full.
    pub(crate) fn make_room(&mut self) -> Result<(), IndexError> {
        if self.rows.len() >= GROUP
            || self.rows.len().is_multiple_of(256) && self.rows.size() >= GROUP_SIZE
        {
            self.rows.flush(&mut self.writer)?;
        }
        Ok(())
    }

    /// Writes the remaining rows. Returns whether a value contains a backslash.
    pub(crate) fn finish_rows(&mut self) -> Result<bool, IndexError> {
        self.rows.flush(&mut self.writer)?;
        Ok(self.rows.backslashes)
    }
}

fn properties(columns: &[Column]) -> WriterProperties {
    let level =
        |level| ZstdLevel::try_new(level).map_or(Compression::UNCOMPRESSED, Compression::ZSTD);
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by("kube-audit-proxy".to_owned())
        .set_compression(level(3))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(64))
        .set_offset_index_disabled(true)
        .set_dictionary_page_size_limit(16 << 20)
        .set_data_page_row_count_limit(GROUP)
        .set_write_path_in_schema(true);
    let path = |column: Column| ColumnPath::from(column.name());
    for column in columns {
        match column.kind() {
            Kind::Time | Kind::Offset => {
                properties = properties
                    .set_column_dictionary_enabled(path(*column), false)
                    .set_column_encoding(path(*column), Encoding::DELTA_BINARY_PACKED);
            }
            Kind::Uuid | Kind::Json => {
                properties = properties.set_column_dictionary_enabled(path(*column), false);
            }
            _ => {}
        }
    }
    if columns.contains(&Column::Event) {
        // Each false positive of a filter costs a read from object storage.
        for column in [Column::AnyAuditId, Column::Name] {
            properties = properties
                .set_column_bloom_filter_enabled(path(column), true)
                .set_column_bloom_filter_fpp(path(column), 0.02)
                .set_column_bloom_filter_max_ndv(path(column), GROUP as u64);
        }
    }
    if columns.contains(&Column::Offset) {
        // Audit IDs are cheap to compare, so a smaller filter with more false positives is
        // sufficient.
        for (column, rate) in [(Column::AuditId, 0.35), (Column::Name, 0.05)] {
            properties = properties
                .set_column_bloom_filter_enabled(path(column), true)
                .set_column_bloom_filter_fpp(path(column), rate)
                .set_column_bloom_filter_max_ndv(path(column), GROUP as u64);
        }
        // The columns with the most text. Compressing further columns more strongly costs more time
        // than it saves space.
        let addresses = ["source_ips", "list", "element"].map(str::to_owned).to_vec();
        for column in [path(Column::Uri), ColumnPath::new(addresses)] {
            properties = properties.set_column_compression(column, level(6));
        }
    }
    properties.build()
}

/// Counts and hashes the bytes that are written.
struct Hashed<W> {
    out: W,
    context: Context,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.context.update(&bytes[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
