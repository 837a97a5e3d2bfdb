//! Reads recordings.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::Stream;
use crate::cast::{Description, Summary};

/// Maximum length of a line.
const MAX_LINE: u64 = 64 << 20;
/// The first bytes of a zstd frame.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The first line of a recording.
#[derive(Debug, Clone, Deserialize)]
pub struct CastHeader {
    /// The version of the format.
    pub version: u8,
    /// Columns of the terminal.
    pub width: u16,
    /// Rows of the terminal.
    pub height: u16,
    /// The start, in seconds since 1970.
    #[serde(default)]
    pub timestamp: i64,
    /// The context of the session.
    #[serde(default, rename = "kubeAuditProxy")]
    pub description: Description,
}

/// A line of a recording after the first one.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// Output; `bytes` are exact even if the output is not UTF-8.
    Output {
        /// Seconds since the start.
        at: f64,
        /// Standard output or error.
        stream: Stream,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Input.
    Input {
        /// Seconds since the start.
        at: f64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The terminal has this size.
    Resize {
        /// Seconds since the start.
        at: f64,
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// The next output is from standard error.
    Stderr(f64),
    /// The exact bytes of the next input or output.
    Exact(f64, Vec<u8>),
    /// Bytes of a stream that is not text.
    Binary {
        /// Seconds since the start.
        at: f64,
        /// Which stream.
        stream: Stream,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A marker.
    Marker(f64, String),
    /// The summary.
    Summary(Box<Summary>),
    /// Anything else.
    Other(f64),
}

impl Item {
    /// Returns the time in seconds since the start.
    pub fn at(&self) -> f64 {
        match self {
            Item::Output { at, .. }
            | Item::Input { at, .. }
            | Item::Resize { at, .. }
            | Item::Binary { at, .. }
            | Item::Stderr(at)
            | Item::Exact(at, _)
            | Item::Marker(at, _)
            | Item::Other(at) => *at,
            Item::Summary(summary) => summary.duration,
        }
    }
}

/// Parses a line; `None` if it is not complete.
pub(crate) fn parse_item(line: &[u8]) -> Option<Item> {
    let (at, code, data): (f64, String, String) = serde_json::from_slice(line).ok()?;
    Some(match code.as_str() {
        "o" => Item::Output { at, stream: Stream::Stdout, bytes: data.into_bytes() },
        "i" => Item::Input { at, bytes: data.into_bytes() },
        "e" => Item::Stderr(at),
        "b" => Item::Exact(at, STANDARD.decode(data).ok()?),
        "B" => {
            let (stream, data) = data.split_once(' ')?;
            let stream = match stream {
                "stdin" => Stream::Stdin,
                "stderr" => Stream::Stderr,
                _ => Stream::Stdout,
            };
            Item::Binary { at, stream, bytes: STANDARD.decode(data).ok()? }
        }
        "r" => {
            let (columns, rows) = data.split_once('x')?;
            Item::Resize { at, columns: columns.parse().ok()?, rows: rows.parse().ok()? }
        }
        "m" => Item::Marker(at, data),
        "s" => Item::Summary(Box::new(serde_json::from_str(&data).ok()?)),
        _ => Item::Other(at),
    })
}

/// Reads lines of a plain or compressed file.
pub(crate) struct LineReader<'a> {
    reader: Box<dyn BufRead + 'a>,
    /// Whether a truncated end of the file is accepted.
    is_lenient: bool,
}

impl<'a> LineReader<'a> {
    /// Reads as much as possible; an incomplete line at the end is skipped.
    pub(crate) fn lenient(reader: impl BufRead + 'a, is_compressed: bool) -> io::Result<Self> {
        LineReader::new(reader, is_compressed, true)
    }

    fn new(reader: impl BufRead + 'a, is_compressed: bool, is_lenient: bool) -> io::Result<Self> {
        let reader: Box<dyn BufRead + 'a> = match is_compressed {
            true => Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(reader)?)),
            false => Box::new(reader),
        };
        Ok(LineReader { reader, is_lenient })
    }

    /// Returns the next line without its end.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut line);
        match read {
            Err(_) if self.is_lenient => return Ok(None),
            Err(error) => return Err(error),
            Ok(0) => return Ok(None),
            Ok(_) => {}
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            return if self.is_lenient || (line.len() as u64) < MAX_LINE {
                Ok(None)
            } else {
                Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 64 MiB"))
            };
        }
        Ok(Some(line))
    }
}

/// A recording that is read from its start to its end.
pub struct Recording {
    /// The first line.
    pub header: CastHeader,
    lines: LineReader<'static>,
    is_stderr: bool,
    exact: Option<Vec<u8>>,
}

impl Recording {
    /// Opens a recording, plain or compressed, finished or not.
    ///
    /// # Errors
    /// If it cannot be read, or is not a recording.
    pub fn open(path: &Path) -> io::Result<Recording> {
        let mut reader = BufReader::with_capacity(64 << 10, File::open(path)?);
        let is_compressed = reader.fill_buf()?.starts_with(&ZSTD);
        let is_partial = path.extension().is_some_and(|extension| extension == "partial");
        let mut lines = LineReader::new(reader, is_compressed, is_partial)?;
        let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
        let first = lines.next_line()?.ok_or_else(|| invalid("the file is empty".to_owned()))?;
        let header: CastHeader = serde_json::from_slice(&first)
            .map_err(|error| invalid(format!("line 1 is not an asciicast header: {error}")))?;
        if header.version != 2 {
            return Err(invalid(format!("asciicast version {} is not supported", header.version)));
        }
        Ok(Recording { header, lines, is_stderr: false, exact: None })
    }

    /// Returns the next item. Exact bytes and `stderr` marks are merged into the output that they
    /// belong to.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        loop {
            let Some(line) = self.lines.next_line()? else { return Ok(None) };
            let Some(item) = parse_item(&line) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is not an event"));
            };
            match item {
                Item::Exact(_, bytes) => self.exact = Some(bytes),
                Item::Stderr(_) => self.is_stderr = true,
                Item::Output { at, bytes, .. } => {
                    let is_stderr = std::mem::take(&mut self.is_stderr);
                    let stream = if is_stderr { Stream::Stderr } else { Stream::Stdout };
                    let bytes = self.exact.take().unwrap_or(bytes);
                    return Ok(Some(Item::Output { at, stream, bytes }));
                }
                Item::Input { at, bytes } => {
                    let bytes = self.exact.take().unwrap_or(bytes);
                    return Ok(Some(Item::Input { at, bytes }));
                }
                other => return Ok(Some(other)),
            }
        }
    }
}

/// Returns the summary of a recording, if it has one.
///
/// # Errors
/// If it cannot be read.
pub fn summary(path: &Path) -> io::Result<Option<Summary>> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = [0; 4];
    let is_compressed = file.read(&mut start)? == 4 && start == ZSTD;
    if is_compressed {
        let mut recording = Recording::open(path)?;
        let mut found = None;
        while let Ok(Some(item)) = recording.next_item() {
            if let Item::Summary(summary) = item {
                found = Some(*summary);
            }
        }
        return Ok(found);
    }
    // The last line is shorter than this.
    file.seek(SeekFrom::Start(length.saturating_sub(256 << 10)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let last = end.strip_suffix(b"\n").and_then(|end| end.rsplit(|byte| *byte == b'\n').next());
    Ok(match last.and_then(parse_item) {
        Some(Item::Summary(summary)) => Some(*summary),
        _ => None,
    })
}
