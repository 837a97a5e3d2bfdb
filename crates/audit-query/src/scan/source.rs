//! Opens inputs and detects their format: files by their first bytes, objects by their names.

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

/// Bytes to inspect to detect the format.
const PEEK: usize = 4096;
/// Maximum window size of a zstd frame, as a power of two (32 MiB). A window of 64 MiB would exceed
/// the memory budget of a query.
const MAX_WINDOW: u32 = 25;

/// How to read an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One event per line, with random access.
    Lines,
    /// One event per line, compressed in frames, with random access.
    Frames,
    /// One event per line, readable from the start only.
    Stream,
    /// JSON values that may span lines.
    Document,
    /// A Parquet file with a column of complete events.
    Archive,
}

/// A planned input. A file is opened once and kept open; an object is opened by the thread that
/// reads it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) path: PathBuf,
    file: Option<File>,
    object: Option<Object>,
    pub(crate) format: Format,
    pub(super) frames: Option<Frames>,
    /// The index file, if there is one and the scan uses it.
    pub(super) index: Option<Sidecar>,
    /// Size on disk, or of the object, in bytes; 0 if unknown.
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

    /// Plans an object by its name, without opening it.
    fn object(path: PathBuf, object: Object) -> Source {
        let is_archive = path.extension().is_some_and(|extension| extension == "parquet");
        let format = if is_archive { Format::Archive } else { Format::Stream };
        let size = object.size;
        let object = Some(object);
        Source { path, file: None, object, format, frames: None, index: None, size }
    }

    /// Opens a Parquet file that stores complete events.
    pub(super) fn archive(&self) -> io::Result<Archive> {
        match (&self.object, &self.file) {
            (Some(object), _) => Archive::of_object(object),
            (None, Some(file)) => Archive::of_file(file),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Returns whether the input is in object storage.
    pub(super) fn is_object(&self) -> bool {
        self.object.is_some()
    }

    /// Returns the file for reads at any offset.
    pub(super) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Returns the approximate number of bytes on disk for this many bytes of text.
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

    /// Returns the decompressed input, from its start.
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

/// Opens a file. If it no longer exists, it may have been compressed since it was listed, so tries
/// `.gz` and `.zst` as well.
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

/// Returns whether the text looks pretty-printed: its first line is a single opening bracket.
pub(super) fn is_document(start: &[u8]) -> bool {
    let start = start.trim_ascii_start();
    let end = memchr::memchr(b'\n', start).unwrap_or(start.len());
    matches!(start[..end].trim_ascii(), b"{" | b"[") && end < start.len()
}

/// Reads a shared file at an offset of its own.
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
