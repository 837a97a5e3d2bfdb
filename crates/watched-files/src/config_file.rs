//! Configuration files with a Kubernetes object in them, YAML or JSON.
//!
//! This module reads the bytes; `k8s_audit::document` parses them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::regular_file;

/// Largest file accepted, in bytes. Configuration files are smaller; a log file named by mistake
/// may be larger.
const MAX_SIZE: u64 = 8 << 20;

/// Reads the file that holds a `what`, such as "policy".
///
/// # Errors
/// Returns the system's error, or one that the file is longer than 8 MiB or not a regular file.
pub fn read(path: &Path, what: &str) -> io::Result<Vec<u8>> {
    read_open(regular_file::open(path)?, what)
}

/// Like [`read`], but also reads pipes, and waits for their writers: for commands that check a file
/// once, as in `policy check <(kustomize build)`.
///
/// # Errors
/// Returns the errors of [`read`].
pub fn read_any(path: &Path, what: &str) -> io::Result<Vec<u8>> {
    read_open(File::open(path)?, what)
}

fn read_open(file: File, what: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if size as u64 > MAX_SIZE {
        let message =
            format!("it is longer than 8 MiB, the limit for this file ({what}); check the path");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}
