//! What `log query --proof` and `log report summary` ask of seals.

use std::io;
use std::path::{Path, PathBuf};

use audit_query::proof;

use audit_log::seal::PublicKey;
use audit_log::seal::verify::{self, Prover, Verdict};

/// The seals that the proxy writes.
pub(super) struct LogSeals;

impl proof::Seals for LogSeals {
    fn prover(&self, keys: &[PathBuf]) -> Result<Box<dyn proof::Prover>, String> {
        let mut trusted = Vec::new();
        for path in keys {
            trusted.extend(PublicKey::load(path).map_err(|error| error.to_string())?);
        }
        Ok(Box::new(LogProver(Prover::new(trusted))))
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

struct LogProver(Prover);

impl proof::Prover for LogProver {
    fn prove(
        &mut self,
        log: &Path,
        file: &Path,
        offset: u64,
        line: &[u8],
    ) -> io::Result<proof::Proof> {
        let found = self.0.prove(log, file, offset, line)?;
        let verdict = match found.verdict {
            Verdict::Verified => proof::Verdict::Verified,
            Verdict::Late(reason) => proof::Verdict::Late(reason),
            Verdict::Unsealed(reason) => proof::Verdict::Unsealed(reason),
            Verdict::Failed(reason) => proof::Verdict::Failed(reason),
        };
        let block = found.block.map(|block| proof::Block {
            number: block.number,
            chain: block.chain,
            lines: block.lines,
            bytes: block.bytes,
            sha256: block.sha256,
            record: block.record,
            time: block.time,
            seal: block.seal,
            key: block.key,
            signature: block.signature,
        });
        Ok(proof::Proof {
            verdict,
            line: found.line,
            sha256: found.sha256,
            block,
            head: found.head,
        })
    }

    fn problems(&self) -> Vec<String> {
        self.0.problems()
    }
}
