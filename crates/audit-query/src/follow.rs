//! Follows one log while it is written: through rotation, truncation, and re-creation.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memchr::memrchr;

use crate::input::names::LogName;
use crate::input::{self, Input, InputError};
use crate::scan::ScanError;

const BLOCK: usize = 64 << 10;

/// One log that is followed.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    open: Option<Open>,
    /// Rotated files to read first, oldest first.
    before: Vec<PathBuf>,
    buffer: Vec<u8>,
    /// Whether the next file is read from its start.
    from_start: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    id: (u64, u64),
    position: u64,
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Follower {
    /// Follows the log at `path`, which need not exist yet. `past`: starts with its oldest rotated
    /// file.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn new(path: PathBuf, past: bool) -> Result<Follower, InputError> {
        let mut before = Vec::new();
        if past {
            match input::resolve(std::slice::from_ref(&path)) {
                Ok(inputs) => {
                    before = inputs.into_iter().map(|input: Input| input.path).collect();
                    before.retain(|file| *file != path);
                }
                Err(InputError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // A log that is created later is read from its start.
        let from_start = past || !path.exists();
        Ok(Follower { path, open: None, before, buffer: Vec::new(), from_start })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `each` with new lines. Returns whether there were any.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn poll(&mut self, mut each: impl FnMut(&[u8])) -> Result<bool, ScanError> {
        let mut any = false;
        for path in std::mem::take(&mut self.before) {
            any |= whole(&path, &mut each)?;
        }
        let error = |error| ScanError::io(&self.path, error);
        let current = match fs::metadata(&self.path) {
            Ok(metadata) => Some(metadata),
            // The state between a rotation and the next line.
            Err(found) if found.kind() == io::ErrorKind::NotFound => None,
            Err(found) => return Err(error(found)),
        };
        if let Some(open) = &mut self.open {
            any |= read(open, &mut self.buffer, &mut each).map_err(error)?;
            let same = current.as_ref().is_none_or(|current| id(current) == open.id);
            if same {
                return Ok(any);
            }
            // The log was replaced. First the rest of the old file is read, then files that were
            // rotated in between, then the new file.
            any |= read(open, &mut self.buffer, &mut each).map_err(error)?;
            if !self.buffer.is_empty() {
                each(&std::mem::take(&mut self.buffer));
            }
            let old = open.id;
            self.open = None;
            self.from_start = true;
            for path in rotated_since(&self.path, old) {
                any |= whole(&path, &mut each)?;
            }
        }
        if current.is_none() {
            return Ok(any);
        }
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(found) if found.kind() == io::ErrorKind::NotFound => return Ok(any),
            Err(found) => return Err(error(found)),
        };
        let metadata = file.metadata().map_err(error)?;
        let position = match self.from_start {
            true => 0,
            false => line_start(&mut file, metadata.len()).map_err(error)?,
        };
        self.from_start = true;
        let mut open = Open { file, id: id(&metadata), position };
        any |= read(&mut open, &mut self.buffer, &mut each).map_err(error)?;
        self.open = Some(open);
        Ok(any)
    }
}

/// Returns the files that were rotated after the one with this identity.
fn rotated_since(path: &Path, old: (u64, u64)) -> Vec<PathBuf> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = LogName::parse(path.file_name().unwrap_or_default());
    let rotated = input::rotated(folder, &name.base).unwrap_or_default();
    let is_old = |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| id(&metadata) == old);
    match rotated.iter().position(|(_, path)| is_old(path)) {
        Some(index) => rotated.into_iter().skip(index + 1).map(|(_, path)| path).collect(),
        // The file was removed or compressed, so it is not known which files are newer.
        None => Vec::new(),
    }
}

/// Reads all lines of a file, decompressed.
fn whole(path: &Path, each: &mut impl FnMut(&[u8])) -> Result<bool, ScanError> {
    let mut any = false;
    crate::scan::each_line(path, |line| {
        any = true;
        each(line);
    })?;
    Ok(any)
}

/// Returns the start of the incomplete line at the end of the file.
fn line_start(file: &mut File, mut end: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let length = (end - start) as usize;
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block[..length])?;
        if let Some(newline) = memrchr(b'\n', &block[..length]) {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Reads new data, and calls `each` with each complete line; the rest stays in `buffer`.
fn read(open: &mut Open, buffer: &mut Vec<u8>, each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    if open.file.metadata()?.len() < open.position {
        // The file was truncated and rewritten.
        open.position = 0;
        buffer.clear();
    }
    let mut any = false;
    open.file.seek(SeekFrom::Start(open.position))?;
    loop {
        let before = buffer.len();
        let count = Read::by_ref(&mut open.file).take(BLOCK as u64).read_to_end(buffer)?;
        if count == 0 {
            return Ok(any);
        }
        open.position += count as u64;
        if let Some(newline) = memrchr(b'\n', &buffer[before..]) {
            let rest = buffer.split_off(before + newline + 1);
            buffer.split_inclusive(|byte| *byte == b'\n').for_each(&mut *each);
            *buffer = rest;
            any = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::test_folder::TestFolder;

    fn append(path: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn poll(follower: &mut Follower) -> String {
        let mut text = String::new();
        follower.poll(|line| text += std::str::from_utf8(line).unwrap()).unwrap();
        text
    }

    #[test]
    fn lines_come_once_through_rotation_truncation_and_re_creation() {
        let folder = TestFolder::new();
        let path = folder.write("audit.log", "old\nhal");
        let mut follower = Follower::new(path.clone(), false).unwrap();
        // An incomplete line is reported when it is complete.
        assert_eq!(poll(&mut follower), "");
        append(&path, "f\nb\nc");
        assert_eq!(poll(&mut follower), "half\nb\n");
        append(&path, "\n");
        assert_eq!(poll(&mut follower), "c\n");
        // Rotated twice between two polls, once with a last line.
        append(&path, "d\n");
        fs::rename(&path, folder.path("audit-2026-11-23T00-00-00.000.log")).unwrap();
        append(&path, "e\n");
        fs::rename(&path, folder.path("audit-2026-11-24T00-00-00.000.log")).unwrap();
        append(&path, "f\n");
        assert_eq!(poll(&mut follower), "d\ne\nf\n");
        // Truncated.
        File::create(&path).unwrap();
        assert_eq!(poll(&mut follower), "");
        append(&path, "g\n");
        assert_eq!(poll(&mut follower), "g\n");
        // Removed and created again.
        fs::remove_file(&path).unwrap();
        assert_eq!(poll(&mut follower), "");
        append(&path, "h\n");
        assert_eq!(poll(&mut follower), "h\n");
    }

    #[test]
    fn past_events_come_first_if_requested() {
        let folder = TestFolder::new();
        folder.write("audit-2026-11-23T00-00-00.000.log", "a\n");
        let path = folder.write("audit.log", "b\n");
        assert_eq!(poll(&mut Follower::new(path.clone(), true).unwrap()), "a\nb\n");
        assert_eq!(poll(&mut Follower::new(path, false).unwrap()), "");
        let mut later = Follower::new(folder.path("later.log"), false).unwrap();
        assert_eq!(poll(&mut later), "");
        append(&folder.path("later.log"), "c\n");
        assert_eq!(poll(&mut later), "c\n");
    }
}
