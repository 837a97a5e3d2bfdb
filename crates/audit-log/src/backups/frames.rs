//! Compresses with zstd in independent frames, so that a line can be read without decompressing
//! what precedes it.
//!
//! Each frame holds up to 1 MiB of whole lines (a longer line takes frames of its own) and has a
//! checksum. A seek table in the [zstd seekable format][format] follows in a skippable frame.
//! Decoders that do not know the format skip it, so `zstdcat` and all libraries can read the file.
//!
//! [format]: https://github.com/facebook/zstd/blob/dev/contrib/seekable_format/zstd_seekable_compression_format.md

use std::io::{self, Write};

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// Maximum uncompressed size of a frame, in bytes.
const FRAME: usize = 1 << 20;
/// The default level of the `zstd` command.
const LEVEL: i32 = 3;
/// Magic numbers of the skippable frame and of the table's footer.
const SKIPPABLE: u32 = 0x184D_2A5E;
const FOOTER: u32 = 0x8F92_EAB1;

/// Compresses the bytes that are written to it.
pub(super) struct FrameWriter<W> {
    out: W,
    compressor: Compressor<'static>,
    buffer: Vec<u8>,
    /// Compressed and uncompressed size of each frame.
    table: Vec<(u32, u32)>,
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(out: W) -> io::Result<FrameWriter<W>> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(FrameWriter { out, compressor, buffer: Vec::with_capacity(FRAME), table: Vec::new() })
    }

    /// Writes the last frame and the seek table. Returns the inner writer, flushed.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.frame(self.buffer.len())?;
        let size = self.table.len() * 8 + 9;
        let mut table = Vec::with_capacity(size + 8);
        table.extend_from_slice(&SKIPPABLE.to_le_bytes());
        table.extend_from_slice(&(size as u32).to_le_bytes());
        for (compressed, uncompressed) in &self.table {
            table.extend_from_slice(&compressed.to_le_bytes());
            table.extend_from_slice(&uncompressed.to_le_bytes());
        }
        table.extend_from_slice(&(self.table.len() as u32).to_le_bytes());
        // No checksums in the table: the frames have their own.
        table.push(0);
        table.extend_from_slice(&FOOTER.to_le_bytes());
        self.out.write_all(&table)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Compresses the first `length` bytes of the buffer.
    fn frame(&mut self, length: usize) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let compressed = self.compressor.compress(&self.buffer[..length])?;
        self.out.write_all(&compressed)?;
        self.table.push((compressed.len() as u32, length as u32));
        self.buffer.drain(..length);
        Ok(())
    }
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(FRAME - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() == FRAME {
            let lines = memchr::memrchr(b'\n', &self.buffer).map_or(FRAME, |newline| newline + 1);
            self.frame(lines)?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_lines_and_any_decoder_reads_them() {
        let mut text = Vec::new();
        for index in 0..60_000 {
            writeln!(text, "line {index} {}", "x".repeat(index % 90)).unwrap();
        }
        // One line that does not fit into a frame, and one without a newline.
        text.extend(std::iter::repeat_n(b'y', FRAME * 2));
        text.extend_from_slice(b"\nend");
        let mut writer = FrameWriter::new(Vec::new()).unwrap();
        for part in text.chunks(70_001) {
            writer.write_all(part).unwrap();
        }
        let compressed = writer.finish().unwrap();
        assert!(zstd::decode_all(&compressed[..]).unwrap() == text);

        let count = &compressed[compressed.len() - 9..][..4];
        let count = u32::from_le_bytes(count.try_into().unwrap()) as usize;
        assert_eq!(compressed[compressed.len() - 4..], FOOTER.to_le_bytes());
        assert!(count >= text.len() / FRAME);
        let table = &compressed[compressed.len() - 9 - 8 * count..];
        let (mut from, mut decoded) = (0, Vec::new());
        for entry in table.as_chunks::<8>().0.iter().take(count) {
            let [a, b, c, d, sizes @ ..] = *entry;
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            let frame = zstd::decode_all(&compressed[from..from + length]).unwrap();
            assert_eq!(frame.len() as u32, u32::from_le_bytes(sizes));
            assert!(frame.len() <= FRAME);
            let is_whole = frame.ends_with(b"\n") || frame.contains(&b'y') || frame == b"\nend";
            assert!(is_whole, "a frame ends within a line");
            decoded.extend_from_slice(&frame);
            from += length;
        }
        assert!(decoded == text);
    }

    #[test]
    fn an_empty_file_is_an_empty_file() {
        let compressed = FrameWriter::new(Vec::new()).unwrap().finish().unwrap();
        assert_eq!(zstd::decode_all(&compressed[..]).unwrap(), b"");
    }
}
