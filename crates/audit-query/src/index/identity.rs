//! Identifies the state of the log file to which an index file belongs.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::IndexError;

/// Size of the parts at the start and the end of a log file that are compared.
const BLOCK: u64 = 4 << 10;

/// The state of a log file on disk, compressed or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Size on disk in bytes.
    pub(crate) size: u64,
    /// Modification time, in nanoseconds since 1970.
    modified: i64,
    /// SHA-256 of the first and the last block.
    first: String,
    last: String,
}

impl Identity {
    /// Determines the state of a file.
    pub(crate) fn of(file: &File) -> io::Result<Identity> {
        let metadata = file.metadata()?;
        let size = metadata.len();
        let block = |start: u64| {
            let mut bytes = vec![0; size.saturating_sub(start).min(BLOCK) as usize];
            file.read_exact_at(&mut bytes, start)?;
            Ok::<_, io::Error>(hex(digest(&SHA256, &bytes).as_ref()))
        };
        Ok(Identity {
            size,
            modified: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            first: block(0)?,
            last: block(size.saturating_sub(BLOCK))?,
        })
    }

    /// Checks that the file is still in this state.
    pub(crate) fn check(&self, file: &File) -> Result<(), IndexError> {
        let metadata = file.metadata()?;
        if metadata.len() != self.size {
            return Err(IndexError::Stale("its size differs"));
        }
        if metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec() != self.modified {
            return Err(IndexError::Stale("it was modified at another time"));
        }
        if Identity::of(file)? != *self {
            return Err(IndexError::Stale("its first or last bytes differ"));
        }
        Ok(())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
