//! Verifies that the chain contains the record of its checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use super::walk::Walk;
use super::{Kind, files};
use crate::seal::checkpoint::{Checkpoint, Found, checkpoint_path};

/// Reads the checkpoints at the paths `given` and those of `logs`.
///
/// # Errors
/// Returns an error if one cannot be read, or one of `given` does not exist.
pub(super) fn read(logs: &[PathBuf], given: &[PathBuf]) -> io::Result<Vec<(PathBuf, Found)>> {
    let mut all = Vec::new();
    for path in given {
        match Checkpoint::read(path).map_err(|error| files::of(path, &error))? {
            Found::Nothing => {
                let missing = format!("{}: there is no such checkpoint", path.display());
                return Err(io::Error::new(io::ErrorKind::NotFound, missing));
            }
            found => all.push((path.clone(), found)),
        }
    }
    for path in logs.iter().map(|log| checkpoint_path(log)) {
        match Checkpoint::read(&path).map_err(|error| files::of(&path, &error))? {
            Found::Nothing => {}
            _ if all.iter().any(|(known, _)| *known == path) => {}
            found => all.push((path, found)),
        }
    }
    Ok(all)
}

impl Walk<'_> {
    /// Verifies a checkpoint. Must be called after the whole chain was read.
    pub(super) fn checkpoint(&mut self, path: &Path, found: Found) {
        let (checkpoint, signer) = match found {
            Found::Nothing => return,
            Found::Empty => {
                let what = "is empty, which a crash of the machine can cause: not checked";
                return self.warn(path, None, what);
            }
            Found::Invalid => {
                let what = "the signature of the checkpoint is invalid: it was changed";
                return self.find(Kind::Checkpoint, path, None, what);
            }
            Found::Checkpoint(checkpoint, signer) => (checkpoint, signer),
        };
        if !self.is_trusted(&signer) {
            let what = format!("the checkpoint is signed by {signer}, which is not a --public-key");
            return self.find(Kind::Checkpoint, path, None, what);
        }
        let block = checkpoint.block;
        match self.chain_end() {
            None => {
                let what =
                    format!("block {block} was sealed, and there is no seal: it was removed");
                self.find(Kind::NoSeal, path, None, what);
            }
            Some((chain, _)) if *chain != *checkpoint.chain => {
                let what = "the checkpoint is of another chain: the seal was removed or replaced";
                self.find(Kind::NoSeal, path, None, what);
            }
            Some((_, last)) if last.block < block => {
                let what = format!(
                    "block {block} was sealed, and the chain ends with block {}: its end was removed",
                    last.block
                );
                self.find(Kind::NoSeal, path, None, what);
            }
            Some((_, last)) if last.block == block && checkpoint.head() != Some(last) => {
                let what = format!("block {block} is not the one that was sealed");
                self.find(Kind::Checkpoint, path, None, what);
            }
            Some(_) => {}
        }
    }
}
