//! Opens inputs and tells what they are by their first bytes, or objects by their names.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use flate2::read::MultiGzDecoder;

use super::frames::Frames;
use super::{Progress, ScanError};
use crate::index::{self, Archive, Sidecar};
use crate::input::Input;
use crate::objects::Object;

/// Bytes that tell the format.
const PEEK: usize = 4096;
/// The largest window of a zstd frame, as a power of two: 64 MiB would not fit into the memory that
/// a query may take.
const MAX_WINDOW: u32 = 25;

/// How an input is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One event a line, and any part of the file can be read.
    Lines,
    /// One event a line, compressed, and any part can be decoded.
    Frames,
    /// One event a line, from the start only.
    Stream,
    /// JSON with line breaks within values.
    Document,
    /// A Parquet file with the events in a column.
    Archive,
}

/// An input as planned: opened once to look at it, and again by whoever reads it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) path: PathBuf,
    file: Option<File>,
    object: Option<Object>,
    pub(crate) format: Format,
    pub(super) frames: Option<Frames>,
    /// Its index file, if there is one and it is to be used.
    pub(super) index: Option<Sidecar>,
    /// Bytes on disk, or of the object; 0 if unknown.
    pub(super) size: u64,
}

impl Source {
    pub(crate) fn plan(input: Input) -> Result<Source, ScanError> {
        let Input { path, file, object } = input;
        if let Some(object) = object {
            return Ok(Source::object(path, object));
        }
        if path.as_os_str() == "-" {
            return Ok(Source {
                path,
                file: None,
                object: None,
                format: Format::Stream,
                frames: None,
                index: None,
                size: 0,
            });
        }
        let (path, file) = open(path, file)?;
        let metadata = file.metadata().map_err(|error| ScanError::io(&path, error))?;
        if !metadata.is_file() {
            let (format, file) = (Format::Stream, Some(file));
            return Ok(Source {
                path,
                file,
                object: None,
                format,
                frames: None,
                index: None,
                size: 0,
            });
        }
        let mut start = [0; PEEK];
        let length = file.read_at(&mut start, 0).map_err(|error| ScanError::io(&path, error))?;
        let compression = Compression::of(&start[..length]);
        let size = metadata.len();
        let frames = match compression {
            Some(Compression::Zstd) => {
                Frames::read(&file, size).map_err(|error| ScanError::io(&path, error))?
            }
            _ => None,
        };
        let format = match compression {
            Some(_) if frames.is_some() => Format::Frames,
            Some(_) => Format::Stream,
            None if start[..length].starts_with(index::MAGIC) => Format::Archive,
            None if is_document(&start[..length]) => Format::Document,
            None => Format::Lines,
        };
        let file = Some(file);
        Ok(Source { path, file, object: None, format, frames, index: None, size })
    }

    /// An object is opened by whoever reads it; its name tells the format.
    fn object(path: PathBuf, object: Object) -> Source {
        let is_archive = path.extension().is_some_and(|extension| extension == "parquet");
        let format = if is_archive { Format::Archive } else { Format::Stream };
        let size = object.size;
        let object = Some(object);
        Source { path, file: None, object, format, frames: None, index: None, size }
    }

    /// Opens a Parquet file with events.
    pub(super) fn archive(&self) -> io::Result<Archive> {
        match (&self.object, &self.file) {
            (Some(object), _) => Archive::of_object(object),
            (None, Some(file)) => Archive::of_file(file),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Whether the input is in object storage.
    pub(super) fn is_object(&self) -> bool {
        self.object.is_some()
    }

    /// The file, for reads at any offset.
    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Bytes on disk that so many bytes of text take, about.
    pub(super) fn on_disk(&self, text: u64) -> u64 {
        match self.frames.as_ref().map(Frames::size) {
            Some(size) if size > 0 => {
                (u128::from(text) * u128::from(self.size) / u128::from(size)) as u64
            }
            _ => text,
        }
    }

    /// Returns whether the input can be read a second time from its start.
    pub(super) fn is_file(&self) -> bool {
        self.size > 0
    }

    /// Decoded bytes from the start.
    pub(crate) fn stream<'a>(
        &'a self,
        progress: &'a Progress,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        let mut raw: Box<dyn Read + Send + 'a> = match (&self.object, &self.file) {
            (Some(object), _) => Box::new(object.stream(progress)),
            (None, None) => Box::new(io::stdin()),
            (None, Some(file)) if self.size > 0 => Box::new(AtOffset { file, offset: 0, progress }),
            (None, Some(file)) => Box::new(file),
        };
        let mut start = Vec::new();
        raw.by_ref().take(PEEK as u64).read_to_end(&mut start)?;
        let compression = Compression::of(&start);
        let whole = io::Cursor::new(start).chain(raw);
        Ok(match compression {
            None => Box::new(whole),
            Some(Compression::Gzip) => {
                Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(128 << 10, whole)))
            }
            Some(Compression::Zstd) => {
                let mut decoder = zstd::Decoder::new(whole)?;
                decoder.window_log_max(MAX_WINDOW)?;
                Box::new(decoder)
            }
        })
    }
}

/// Opens a file. One that is gone was perhaps compressed since it was listed.
fn open(path: PathBuf, file: Option<File>) -> Result<(PathBuf, File), ScanError> {
    if let Some(file) = file {
        return Ok((path, file));
    }
    let error = match File::open(&path) {
        Ok(file) => return Ok((path, file)),
        Err(error) => error,
    };
    if error.kind() == io::ErrorKind::NotFound {
        for suffix in [".gz", ".zst"] {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            if let Ok(file) = File::open(&name) {
                return Ok((PathBuf::from(name), file));
            }
        }
    }
    Err(ScanError::io(&path, error))
}

#[derive(Debug, Clone, Copy)]
enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    fn of(start: &[u8]) -> Option<Compression> {
        match start {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Some(Compression::Zstd)
            }
            _ => None,
        }
    }
}

/// Whether the text begins as pretty printers begin: with a bracket alone in its line.
pub(super) fn is_document(start: &[u8]) -> bool {
    let start = start.trim_ascii_start();
    let end = memchr::memchr(b'\n', start).unwrap_or(start.len());
    matches!(start[..end].trim_ascii(), b"{" | b"[") && end < start.len()
}

/// Reads a file from an offset of its own: threads share the file.
struct AtOffset<'a> {
    file: &'a File,
    offset: u64,
    progress: &'a Progress,
}

impl Read for AtOffset<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset += length as u64;
        self.progress.done.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

impl ScanError {
    pub(crate) fn io(path: &Path, error: io::Error) -> ScanError {
        ScanError::Io { path: path.display().to_string(), error }
    }
}
