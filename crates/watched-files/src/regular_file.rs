//! Reads configuration files without blocking on anything that is not a regular file.
//!
//! `open(2)` on a named pipe blocks until the other end is opened, possibly forever. Every file
//! that the proxy reads at start or reloads later is therefore opened with `O_NONBLOCK`, and
//! refused if it is a pipe, a socket or a directory.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// No configuration file is larger, in bytes. `/dev/zero` is.
const MAX_SIZE: u64 = 64 << 20;

/// Opens a file for reading.
///
/// # Errors
/// Returns the system's error, or [`io::ErrorKind::InvalidInput`] if `path` names a pipe, a socket
/// or a directory.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    match unusable(file.metadata()?.file_type()) {
        None => Ok(file),
        Some(kind) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it is {kind}, where a regular file is expected"),
        )),
    }
}

/// Reads a whole file of at most 64 MiB.
///
/// # Errors
/// Returns the errors of [`open`] and of reading.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 64 MiB"));
    }
    Ok(bytes)
}

/// Reads a whole file of UTF-8 text, like [`read`].
///
/// # Errors
/// Returns the errors of [`read`], or [`io::ErrorKind::InvalidData`] if the file is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8")
    })
}

/// Returns what errors call a file that cannot be read like a regular one.
pub fn unusable(kind: FileType) -> Option<&'static str> {
    match () {
        () if kind.is_fifo() => Some("a named pipe"),
        () if kind.is_socket() => Some("a socket"),
        () if kind.is_dir() => Some("a directory"),
        () if kind.is_block_device() => Some("a block device"),
        // `/dev/null` is an empty file.
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use test_support::TempDir;

    #[test]
    fn a_pipe_without_a_writer_is_refused_at_once() {
        let dir = TempDir::new();
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let error = read(&pipe).unwrap_err();
        assert_eq!(error.to_string(), "it is a named pipe, where a regular file is expected");
        let error = read(dir.path()).unwrap_err();
        assert_eq!(error.to_string(), "it is a directory, where a regular file is expected");
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("64 MiB"));
    }
}
