//! Random access to a zstd file through its seek table (zstd seekable format), which allows
//! decoding single frames.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use zstd::bulk::Decompressor;

/// Maximum decompressed size of a frame. A file with a larger frame is read from its start.
const LARGEST: u64 = 4 << 20;
/// Maximum number of frames; limits the seek table to about 12 MiB.
const MOST: u64 = 1 << 20;
const SKIPPABLE: u32 = 0x184D_2A5E;
const FOOTER: u32 = 0x8F92_EAB1;
const FOOTER_SIZE: u64 = 9;

/// The positions of the frames in a file.
#[derive(Debug)]
pub(crate) struct Frames {
    /// The start offset of each frame in the file and in the decompressed text, followed by the end
    /// offsets of the last frame.
    starts: Vec<(u64, u64)>,
}

impl Frames {
    /// Reads the seek table of a file of `size` bytes. Returns `None` if the file has no valid seek
    /// table and must be read from its start.
    pub(crate) fn read(file: &File, size: u64) -> io::Result<Option<Frames>> {
        let Some(footer_at) = size.checked_sub(FOOTER_SIZE) else { return Ok(None) };
        let mut footer = [0; FOOTER_SIZE as usize];
        file.read_exact_at(&mut footer, footer_at)?;
        if number(&footer[5..]) != FOOTER {
            return Ok(None);
        }
        let count = u64::from(number(&footer));
        let entry = if footer[4] & 0x80 == 0 { 8 } else { 12 };
        let length = count * entry + FOOTER_SIZE;
        let Some(start) = size.checked_sub(length + 8).filter(|_| count <= MOST) else {
            return Ok(None);
        };
        let mut table = vec![0; (length + 8) as usize];
        file.read_exact_at(&mut table, start)?;
        if number(&table) != SKIPPABLE || u64::from(number(&table[4..])) != length {
            return Ok(None);
        }
        let mut starts = vec![(0, 0)];
        let (mut in_file, mut in_text) = (0, 0);
        for entry in table[8..].chunks_exact(entry as usize).take(count as usize) {
            let sizes = (u64::from(number(entry)), u64::from(number(&entry[4..])));
            if sizes.0 > 2 * LARGEST || sizes.1 > LARGEST {
                return Ok(None);
            }
            (in_file, in_text) = (in_file + sizes.0, in_text + sizes.1);
            starts.push((in_file, in_text));
        }
        Ok((in_file == start).then_some(Frames { starts }))
    }

    /// Returns the size of the decompressed text in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.starts.last().map_or(0, |(_, text)| *text)
    }

    /// Returns ranges of the text that begin and end at frame boundaries and, except for the last
    /// one, have at least `least` bytes.
    pub(super) fn pieces(&self, least: u64) -> Vec<Range<u64>> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (_, end) in &self.starts {
            if *end - start >= least || *end == self.size() && *end > start {
                pieces.push(start..*end);
                start = *end;
            }
        }
        pieces
    }

    /// Returns the frame that contains this offset of the text.
    fn at(&self, offset: u64) -> Option<usize> {
        // Frames may be empty: the last frame that begins at or before the offset contains it.
        let after = self.starts.partition_point(|(_, text)| *text <= offset);
        (after < self.starts.len()).then(|| after - 1)
    }
}

/// Reads the text at any offset. Caches the most recently decoded frame.
pub(crate) struct FrameReader<'a> {
    file: &'a File,
    frames: &'a Frames,
    decoder: Decompressor<'static>,
    frame: Option<usize>,
    compressed: Vec<u8>,
    text: Vec<u8>,
}

impl<'a> FrameReader<'a> {
    pub(crate) fn new(file: &'a File, frames: &'a Frames) -> io::Result<FrameReader<'a>> {
        let (compressed, text) = (Vec::new(), Vec::new());
        Ok(FrameReader {
            file,
            frames,
            decoder: Decompressor::new()?,
            frame: None,
            compressed,
            text,
        })
    }

    /// Reads at most up to the end of a frame. Returns 0 at the end of the text.
    pub(crate) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(frame) = self.frames.at(offset) else { return Ok(0) };
        if self.frame != Some(frame) {
            self.decode(frame)?;
        }
        let start = (offset - self.frames.starts[frame].1) as usize;
        let length = buffer.len().min(self.text.len() - start);
        buffer[..length].copy_from_slice(&self.text[start..start + length]);
        Ok(length)
    }

    fn decode(&mut self, frame: usize) -> io::Result<()> {
        let ((start, text_start), (end, text_end)) =
            (self.frames.starts[frame], self.frames.starts[frame + 1]);
        let size = (text_end - text_start) as usize;
        self.frame = None;
        self.compressed.resize((end - start) as usize, 0);
        self.file.read_exact_at(&mut self.compressed, start)?;
        self.text.clear();
        self.text.reserve(size);
        let length = self.decoder.decompress_to_buffer(&self.compressed, &mut self.text)?;
        if length != size {
            let message =
                format!("the zstd frame at byte {start} is not as its seek table lists it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.frame = Some(frame);
        Ok(())
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
