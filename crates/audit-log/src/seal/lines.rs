//! Reads the lines of a log file, compressed or not, as digests. Memory usage depends on neither
//! the size of the file nor the length of a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use flate2::read::MultiGzDecoder;

use super::digest::{Sha256, finish};

const BUFFER: usize = 256 << 10;

/// The digest and the length of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// SHA-256 of the line, including its newline.
    pub hash: Sha256,
    /// Length in bytes, including the newline.
    pub bytes: u64,
    /// Whether the line ends with a newline. If not, it is the last one.
    pub whole: bool,
}

/// Reads lines from a reader.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
}

/// Opens a log file. Its extension shows how it is compressed.
pub(crate) fn open(path: &Path) -> io::Result<Lines<Box<dyn Read>>> {
    let file = File::open(path)?;
    let reader: Box<dyn Read> = match path.extension() {
        Some(extension) if extension == "gz" => Box::new(MultiGzDecoder::new(BufReader::new(file))),
        Some(extension) if extension == "zst" => Box::new(zstd::stream::read::Decoder::new(file)?),
        _ => Box::new(file),
    };
    Ok(Lines::new(reader))
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(reader: R) -> Lines<R> {
        Lines { reader: BufReader::with_capacity(BUFFER, reader) }
    }

    /// Returns the next line, or `None` after the last.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut context = Context::new(&SHA256);
        let (mut bytes, mut whole) = (0, false);
        while !whole {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            if buffer.is_empty() {
                break;
            }
            let end = memchr::memchr(b'\n', buffer);
            whole = end.is_some();
            let length = end.map_or(buffer.len(), |at| at + 1);
            context.update(&buffer[..length]);
            self.reader.consume(length);
            bytes += length as u64;
        }
        Ok((bytes > 0).then(|| Line { hash: finish(context), bytes, whole }))
    }
}
