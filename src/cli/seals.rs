//! Seals for `log query --proof` and `log report summary`.

use std::io;
use std::path::{Path, PathBuf};

use audit_query::proof;

use audit_log::seal::PublicKey;
use audit_log::seal::verify::{self, Prover};

/// The seals that the proxy writes.
pub(super) struct LogSeals;

impl proof::Seals for LogSeals {
    fn prover(&self, keys: &[PathBuf]) -> Result<Box<dyn proof::Prover>, String> {
        let mut trusted = Vec::new();
        for path in keys {
            trusted.extend(PublicKey::load(path).map_err(|error| error.to_string())?);
        }
        Ok(Box::new(Prover::new(trusted)))
    }

    fn outline(&self, log: &Path) -> io::Result<Option<proof::Outline>> {
        Ok(verify::outline(log)?.map(|outline| {
            let (missing, notes): (Vec<_>, Vec<_>) =
                outline.gaps.into_iter().partition(|gap| gap.is_missing);
            let texts = |gaps: Vec<verify::Gap>| gaps.into_iter().map(|gap| gap.what).collect();
            proof::Outline {
                blocks: outline.blocks,
                lines: outline.lines,
                head: outline.head,
                missing: texts(missing),
                notes: texts(notes),
            }
        }))
    }
}
