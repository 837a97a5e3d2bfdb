//! Batches that grow event by event.
//!
//! A segment is written to `<number>.open`, each event as one line, so that written events survive
//! the end of the process. Closing the segment renames the file to that of a batch, with the
//! checksum of its content. Segments that a killed process has left open are closed at the next
//! start, without a partial last line. An empty segment preserves the next number across restarts.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};

use super::directory::Directory;
use super::name::{BatchName, Kind};
use super::{Access, Batch, Spool, SpoolError};
use crate::seal::{self, Sha256};

/// An open segment.
pub(crate) struct Segment {
    number: u64,
    file: File,
    /// Length of the complete lines in bytes.
    bytes: u64,
    events: u64,
    hash: Context,
    directory: Arc<Directory>,
    /// Whether a write has failed and may have left a partial line.
    is_torn: bool,
}

/// The segments that a killed process has left open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Number of segments that were closed.
    pub(crate) segments: u64,
    /// Number of partial lines that were removed.
    pub(crate) torn: u64,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Segment { number, bytes, events, .. } = self;
        write!(f, "Segment {{ number: {number}, bytes: {bytes}, events: {events} }}")
    }
}

impl Segment {
    /// Returns the length of its events in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Spool {
    /// Closes the segments that a killed process has left open.
    pub(crate) fn recover(&self) -> io::Result<Recovered> {
        let directory = self.directory()?;
        let mut recovered = Recovered::default();
        for number in directory.open_segments()? {
            let name = open_name(number);
            let file = directory.open_to_write(&name)?;
            let Scan { bytes, events, torn, hash } = scan(&file)?;
            recovered.torn += torn;
            if events == 0 {
                // Only the number of an empty segment matters.
                file.set_len(0)?;
                let mut state = self.lock();
                state.next = state.next.max(number);
                continue;
            }
            self.reserve(number);
            let directory = directory.clone();
            let is_torn = torn > 0;
            let segment = Segment { number, file, bytes, events, hash, directory, is_torn };
            self.lock().bytes += bytes;
            self.finish(segment).map_err(|(_, error)| error)?;
            recovered.segments += 1;
        }
        let mut state = self.lock();
        if state.next == 0 {
            // If the directory was deleted, the numbers of the new one must be higher.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            state.next = now.as_millis() as u64;
        }
        drop(state);
        Ok(recovered)
    }

    fn reserve(&self, number: u64) {
        let mut state = self.lock();
        state.next = state.next.max(number.saturating_add(1));
    }

    /// Creates a segment.
    pub(crate) fn begin(&self) -> Result<Segment, SpoolError> {
        let directory = self.directory().map_err(|error| self.io(error))?;
        let number = {
            let mut state = self.lock();
            state.next += 1;
            state.next - 1
        };
        let file = directory.create(&open_name(number)).map_err(|error| self.io(error))?;
        let hash = Context::new(&SHA256);
        Ok(Segment { number, file, bytes: 0, events: 0, hash, directory, is_torn: false })
    }

    /// Returns how many of these lines fit into the spool, from the first on.
    pub(crate) fn fitting<'a>(&self, lines: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut state = self.lock();
        let used = state.bytes + state.rejected_bytes;
        let free = self.config.max_size.saturating_sub(used);
        let mut bytes = 0;
        let mut is_full = false;
        let fits = |line: &&[u8]| {
            bytes += line.len() as u64;
            is_full = bytes > free;
            !is_full
        };
        let count = lines.take_while(fits).count();
        state.is_full = is_full;
        count
    }

    /// Returns whether the last lines did not fit.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().is_full
    }

    /// Returns the error for lines that do not fit.
    pub(crate) fn full(&self) -> SpoolError {
        SpoolError::Full(self.about)
    }

    /// Appends `events` events, one per line. After an error the segment is unchanged.
    pub(crate) fn append(
        &self,
        segment: &mut Segment,
        lines: &[u8],
        events: u64,
    ) -> Result<(), SpoolError> {
        if let Err(error) = write(segment, lines) {
            // Frees disk space, which may be scarce.
            let _ = mend(segment);
            self.failed(Access::Write, &error);
            return Err(self.io(error));
        }
        self.succeeded(Access::Write);
        segment.bytes += lines.len() as u64;
        segment.events += events;
        segment.hash.update(lines);
        let mut state = self.lock();
        state.bytes += lines.len() as u64;
        self.publish(&state);
        Ok(())
    }

    /// Syncs the appended events, so that they survive a crash of the machine.
    pub(crate) fn sync(&self, segment: &Segment) -> io::Result<()> {
        segment.file.sync_data()
    }

    /// Turns the segment into a batch, which is then sent. Returns the segment if that fails.
    pub(crate) fn finish(&self, segment: Segment) -> Result<(), (Segment, io::Error)> {
        let mut segment = segment;
        let finished = self.finish_file(&mut segment);
        let directory = match finished {
            Ok(directory) => directory,
            Err(error) => {
                self.failed(Access::Write, &error);
                return Err((segment, error));
            }
        };
        self.succeeded(Access::Write);
        let bytes = segment.bytes;
        let batch = Batch { name: segment.name(self.about.format.extension), bytes, directory };
        let mut state = self.lock();
        // Recovered segments may be older than existing batches.
        let after = |known: &Batch| known.name.number < batch.name.number;
        let at = state.batches.iter().rposition(after).map_or(0, |at| at + 1);
        state.batches.insert(at, batch);
        self.publish(&state);
        let next = open_name(state.next);
        drop(state);
        self.changed.notify_one();
        // Preserves the next number across a restart when no batches are left.
        if let Ok(directory) = self.directory() {
            let _ = directory.create(&next);
        }
        Ok(())
    }

    fn finish_file(&self, segment: &mut Segment) -> io::Result<Arc<Directory>> {
        mend(segment)?;
        segment.file.sync_data()?;
        let name = segment.name(self.about.format.extension).file_name(Kind::Pending);
        match segment.directory.rename(&open_name(segment.number), &name) {
            Ok(()) => Ok(segment.directory.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The directory was deleted, but the file is still open, so its content can be
                // written again.
                let directory = self.directory()?;
                let mut content = vec![0; segment.bytes as usize];
                segment.file.read_exact_at(&mut content, 0)?;
                directory.write(Kind::Pending, &name, &content)?;
                Ok(directory)
            }
            Err(error) => Err(error),
        }
    }
}

impl Segment {
    fn name(&self, extension: &'static str) -> BatchName {
        let hash = seal::finish(self.hash.clone());
        BatchName::hashed(extension, self.number, self.events, &hash)
    }
}

fn write(segment: &mut Segment, lines: &[u8]) -> io::Result<()> {
    mend(segment)?;
    segment.is_torn = true;
    segment.file.write_all(lines)?;
    segment.is_torn = false;
    Ok(())
}

/// Removes a partial line.
fn mend(segment: &mut Segment) -> io::Result<()> {
    if segment.is_torn {
        segment.file.set_len(segment.bytes)?;
        segment.is_torn = false;
    }
    Ok(())
}

/// Returns the file name of an open segment.
fn open_name(number: u64) -> String {
    format!("{number:020}.open")
}

/// Parses the name of an open segment.
pub(super) fn parse_open(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".open")?.parse().ok()?;
    (open_name(number) == name).then_some(number)
}

/// The content of a segment's file.
pub(super) struct Scan {
    /// Length of the complete lines in bytes.
    pub(super) bytes: u64,
    /// Number of complete lines.
    pub(super) events: u64,
    /// 1 if a partial line follows them.
    pub(super) torn: u64,
    hash: Context,
}

impl Scan {
    /// The SHA-256 of the complete lines.
    pub(super) fn hash(self) -> Sha256 {
        seal::finish(self.hash)
    }
}

/// Reads a segment's file from its start.
pub(super) fn scan(file: &File) -> io::Result<Scan> {
    let mut scan = Scan { bytes: 0, events: 0, torn: 0, hash: Context::new(&SHA256) };
    let mut buffer = vec![0; 64 << 10];
    // What follows the last newline so far.
    let mut rest: Vec<u8> = Vec::new();
    let mut at = 0;
    loop {
        let count = file.read_at(&mut buffer, at)?;
        if count == 0 {
            break;
        }
        at += count as u64;
        let read = &buffer[..count];
        match memchr::memrchr(b'\n', read) {
            Some(last) => {
                let (lines, after) = read.split_at(last + 1);
                scan.hash.update(&rest);
                scan.hash.update(lines);
                scan.bytes += (rest.len() + lines.len()) as u64;
                scan.events += memchr::memchr_iter(b'\n', lines).count() as u64;
                rest.clear();
                rest.extend_from_slice(after);
            }
            None => rest.extend_from_slice(read),
        }
    }
    scan.torn = u64::from(!rest.is_empty());
    Ok(scan)
}
