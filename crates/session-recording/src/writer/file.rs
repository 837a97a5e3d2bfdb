//! The file of one recording.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use prometheus_client::metrics::counter::Counter;

use crate::files::Created;
use crate::stream_state::hex;

/// Number of compressed bytes that are buffered.
const BUFFER: usize = 64 << 10;
/// Fast, with little memory.
const LEVEL: i32 = 1;

/// A recording that is being written.
pub(super) struct RecordingFile {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    name: String,
    begin: Instant,
    encoder: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
    /// The size of the file, which consists of complete lines or frames.
    written: u64,
    hash: Context,
    bytes: Counter,
    /// Whether nothing more can be written.
    is_broken: bool,
    is_dirty: bool,
}

impl RecordingFile {
    pub(super) fn new(created: Created, compress: bool, bytes: Counter) -> io::Result<Self> {
        let encoder = match compress {
            true => Some(zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?),
            false => None,
        };
        let Created { file, partial, path, name } = created;
        Ok(RecordingFile {
            file,
            partial,
            path,
            name,
            begin: Instant::now(),
            encoder,
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

    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Writes complete lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Ok(());
        }
        let Some(encoder) = &mut self.encoder else { return self.write_out(lines) };
        self.is_dirty = true;
        encoder.write_all(lines)?;
        match encoder.get_ref().len() >= BUFFER {
            true => self.write_compressed(),
            false => Ok(()),
        }
    }

    /// Writes everything to the file.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.is_broken || !std::mem::take(&mut self.is_dirty) {
            return Ok(());
        }
        if let Some(encoder) = &mut self.encoder {
            encoder.flush()?;
        }
        self.write_compressed()
    }

    fn write_compressed(&mut self) -> io::Result<()> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        let mut collected = std::mem::take(encoder.get_mut());
        let written = self.write_out(&collected);
        if let Some(encoder) = self.encoder.as_mut().filter(|_| collected.capacity() <= 4 * BUFFER)
        {
            collected.clear();
            *encoder.get_mut() = collected;
        }
        written
    }

    fn write_out(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes);
        if written.is_ok() {
            self.hash.update(bytes);
            self.written += bytes.len() as u64;
            self.bytes.inc_by(bytes.len() as u64);
        } else {
            self.is_broken = true;
            // Removes an incomplete line.
            let _ = self.file.set_len(self.written);
            let _ = self.file.seek(SeekFrom::Start(self.written));
        }
        written
    }

    /// Ends the recording and renames it to its final name. Returns the name, and the SHA-256 of
    /// the file.
    pub(super) fn finish(mut self) -> (String, io::Result<String>) {
        let ended = self.end();
        (self.name, ended)
    }

    fn end(&mut self) -> io::Result<String> {
        if !self.is_broken {
            if let Some(encoder) = &mut self.encoder {
                encoder.do_finish()?;
            }
            let _ = self.write_compressed();
        }
        // Lines that were written before the disk was full are kept.
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
