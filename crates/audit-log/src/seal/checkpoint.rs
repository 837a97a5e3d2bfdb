//! The checkpoint file: the last record of the chain, stored apart from the seals.
//!
//! A deleted seal, or an older copy that is put back, leaves a chain that ends before the
//! checkpoint. The file is one signed line. It is replaced as a whole after each round of sealing,
//! when the records are on the disk, so it is never ahead of the seals, even after a crash of the
//! process or the machine.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::{hex, parse_hex};
use super::key::{PublicKey, SealKey};
use super::record::{Head, SignedLine, sign};
use crate::disk;
use crate::files::with_suffix;

/// The version of the format.
const VERSION: u32 = 1;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoint {
    /// [`VERSION`]
    checkpoint: u32,
    /// The identifier of the chain.
    pub chain: String,
    /// The number of the last block.
    pub block: u64,
    /// The number of the log file that the block covers.
    pub file: u64,
    /// SHA-256 of its record, in hex.
    pub sha256: String,
    /// The public key, in base64.
    pub key: String,
}

/// The state of a checkpoint file.
#[derive(Debug)]
pub(crate) enum Found {
    /// The file does not exist.
    Nothing,
    /// The file is empty, which a crash of the machine can cause.
    Empty,
    /// The signature is invalid.
    Invalid,
    /// A valid checkpoint, and the key that has signed it.
    Checkpoint(Checkpoint, PublicKey),
}

impl Checkpoint {
    pub(crate) fn new(chain: &str, head: &Head, file: u64, key: PublicKey) -> Checkpoint {
        Checkpoint {
            checkpoint: VERSION,
            chain: chain.to_owned(),
            block: head.block,
            file,
            sha256: hex(&head.hash),
            key: key.to_string(),
        }
    }

    /// Returns the head after which the chain continues.
    pub(crate) fn head(&self) -> Option<Head> {
        Some(Head { block: self.block, hash: parse_hex(&self.sha256)? })
    }

    /// Replaces the file. With `sync`, returns when it is on the disk.
    pub(crate) fn write(&self, path: &Path, key: &SealKey, sync: bool) -> io::Result<()> {
        let mut line = sign(self, key)?;
        line.push(b'\n');
        let temporary = with_suffix(path, ".tmp");
        disk::step()?;
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&line)?;
        if sync {
            file.sync_all()?;
        }
        disk::rename(&temporary, path)
    }

    /// Reads the checkpoint file at `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(crate) fn read(path: &Path) -> io::Result<Found> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            result => result?,
        };
        if text.iter().all(|byte| *byte == 0) {
            return Ok(Found::Empty);
        }
        let line = text.strip_suffix(b"\n").unwrap_or(&text);
        let parsed = SignedLine::split(line).and_then(|split| {
            let checkpoint: Checkpoint = split.parse()?;
            let key = split.signer(&checkpoint.key)?;
            Some((checkpoint, key))
        });
        Ok(match parsed {
            Some((checkpoint, key)) if checkpoint.checkpoint == VERSION => {
                Found::Checkpoint(checkpoint, key)
            }
            _ => Found::Invalid,
        })
    }
}

/// Returns the default path of a log's checkpoint file: `audit.log.checkpoint`.
pub fn checkpoint_path(log: &Path) -> PathBuf {
    with_suffix(&super::plain_path(log), ".checkpoint")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::TestFolder;

    #[test]
    fn a_checkpoint_is_what_was_signed_or_invalid() {
        let folder = TestFolder::new();
        let path = folder.join("audit.log.checkpoint");
        assert!(matches!(Checkpoint::read(&path).unwrap(), Found::Nothing));
        let key = SealKey::generate().unwrap();
        let head = Head { block: 7, hash: [9; 32] };
        let checkpoint = Checkpoint::new("0123456789abcdef", &head, 3, key.public());
        checkpoint.write(&path, &key, true).unwrap();
        let Found::Checkpoint(read, signer) = Checkpoint::read(&path).unwrap() else {
            panic!("it was written just now")
        };
        assert_eq!((&read, signer), (&checkpoint, key.public()));
        assert_eq!(read.head(), Some(head));
        assert_eq!(folder.names(), ["audit.log.checkpoint"]);
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() - 6 {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert!(matches!(Checkpoint::read(&path).unwrap(), Found::Invalid), "byte {at}");
        }
        fs::write(&path, "").unwrap();
        assert!(matches!(Checkpoint::read(&path).unwrap(), Found::Empty));
    }
}
