//! The file of one recording.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use prometheus_client::metrics::counter::Counter;

use crate::files::Created;
use crate::stream_state::hex;

/// Bytes that are collected before they are written.
const BUFFER: usize = 64 << 10;
/// Small, quick, and in little memory.
const LEVEL: i32 = 1;

/// A recording that is being written.
pub(super) struct RecordingFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    name: String,
    begin: Instant,
    buffer: Buffer,
    /// Bytes given to it.
    size: u64,
    /// Bytes in the file, which are complete lines or frames.
    written: u64,
    hash: Context,
    bytes: Counter,
    /// Nothing more can be written.
    is_broken: bool,
    is_dirty: bool,
}

enum Buffer {
    Plain(Vec<u8>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl RecordingFile {
    pub(super) fn new(created: Created, compress: bool, bytes: Counter) -> io::Result<Self> {
        let buffer = match compress {
            true => Buffer::Zstd(zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?),
            false => Buffer::Plain(Vec::new()),
        };
        let Created { file, partial, path, name } = created;
        Ok(RecordingFile {
            file,
            partial,
            path,
            name,
            begin: Instant::now(),
            buffer,
            size: 0,
            written: 0,
            hash: Context::new(&SHA256),
            bytes,
            is_broken: false,
            is_dirty: false,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of bytes before compression.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Takes complete lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Ok(());
        }
        self.size += lines.len() as u64;
        self.is_dirty = true;
        let collected = match &mut self.buffer {
            Buffer::Plain(buffer) => {
                buffer.extend_from_slice(lines);
                buffer.len()
            }
            Buffer::Zstd(encoder) => {
                encoder.write_all(lines)?;
                encoder.get_ref().len()
            }
        };
        if collected >= BUFFER { self.write_out() } else { Ok(()) }
    }

    /// Writes everything to the file.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.is_broken || !std::mem::take(&mut self.is_dirty) {
            return Ok(());
        }
        if let Buffer::Zstd(encoder) = &mut self.buffer {
            encoder.flush()?;
        }
        self.write_out()
    }

    fn write_out(&mut self) -> io::Result<()> {
        let collected = match &mut self.buffer {
            Buffer::Plain(buffer) => buffer,
            Buffer::Zstd(encoder) => encoder.get_mut(),
        };
        let written = self.file.write_all(collected);
        if written.is_ok() {
            self.hash.update(collected);
            self.written += collected.len() as u64;
            self.bytes.inc_by(collected.len() as u64);
        }
        collected.clear();
        if collected.capacity() > 4 * BUFFER {
            collected.shrink_to(BUFFER);
        }
        if written.is_err() {
            self.is_broken = true;
            // No line is left in part.
            let _ = self.file.set_len(self.written);
            let _ = self.file.seek(SeekFrom::Start(self.written));
        }
        written
    }

    /// Ends the recording and gives it its name. Returns the name, and the SHA-256 of the file.
    pub(super) fn finish(mut self) -> (String, io::Result<String>) {
        let ended = self.end();
        (self.name, ended)
    }

    fn end(&mut self) -> io::Result<String> {
        if !self.is_broken {
            if let Buffer::Zstd(encoder) = &mut self.buffer {
                encoder.do_finish()?;
            }
            let _ = self.write_out();
        }
        // What was written before the disk was full is a recording, too.
        self.file.sync_data()?;
        fs::rename(&self.partial, &self.path)?;
        if let Some(dir) = self.path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(hex(self.hash.clone().finish().as_ref()))
    }

    /// Deletes the file.
    pub(super) fn discard(self) {
        if let Err(error) = fs::remove_file(&self.partial) {
            tracing::warn!(file = %self.partial.display(), %error, "cannot delete a recording");
        }
    }
}
