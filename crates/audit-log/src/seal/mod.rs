//! Tamper evidence for the audit log: each log file has a seal file, which is a chain of signed
//! records.
//!
//! # Threat model
//!
//! An attacker who can write to the log directory **later**, without the private key, cannot change
//! the log without `kube-audit-proxy log verify` reporting the line and the file:
//!
//! | manipulation | detected by |
//! |---|---|
//! | change, remove, insert, reorder, copy lines | each block has a digest of each of its lines, in order |
//! | create another line with the same short digest | the block's SHA-256 covers the full digests of all lines |
//! | truncate the log | the seal has digests of lines that are missing |
//! | delete a rotated file | its seal still has the digests of its lines |
//! | delete a rotated file and its seal | the block numbers and `prev` of the next file do not follow |
//! | swap two rotated files, with or without their seals | content against digests; file numbers against names |
//! | replace a compressed file | digests cover the uncompressed content |
//! | edit the seal file | the signature; `prev` of the next record |
//! | restore an older seal file | the next file's `prev`; for the last file the checkpoint, see below |
//! | delete the seal of the last file, or all seals | the checkpoint |
//! | sign records with a key of their own | `--public-key` |
//! | change an index file | its SHA-256 in the chain, unless the log results in the changed index |
//!
//! # What only the head of the chain detects
//!
//! The end of a chain can be removed: deleting the last lines **together with** their records (or
//! deleting all files, or restoring yesterday's copy of the whole directory) leaves a shorter chain
//! that is intact. Therefore the head of the chain, a block number and the SHA-256 of its record,
//! is written to the process's own log, once a minute by default. This log should be shipped to
//! another machine. `log verify --head` then requires that the chain contains that block.
//!
//! An attacker **with the key** (root on the machine while the proxy runs, who can read the key
//! from memory) can rewrite the past and sign it. Only a head that has been shipped to another
//! machine before detects that, because the new chain does not contain its record. Changes after
//! the last such head cannot be detected.
//!
//! # Lines that are not sealed yet
//!
//! A block is closed once a second, or when it is full. If the process is killed, the lines written
//! after the last block are not sealed: the next start seals them as it finds them, in blocks that
//! are marked `crash`, and `log verify` reports their number. An attacker who can crash the process
//! can change the lines of the last second before the crash. After a graceful shutdown all lines
//! are sealed and the last record is marked `stopped`, so later lines are detected as inserted.
//!
//! A record is written only when its lines are on disk, so that after a crash of the machine a seal
//! never covers lines that the log does not have. That costs one `fdatasync` per second,
//! concurrently with the writes.
//!
//! # Missing seals
//!
//! A chain does not contain its own end, and a log without a seal does not show that it had one.
//! Therefore a checkpoint is stored next to the log, or at `--audit-log-seal-checkpoint-file`:
//! chain, number and SHA-256 of the last record, signed. A chain that ends before the checkpoint,
//! or is missing, was tampered with, and `log verify` reports it. The proxy reports it at startup,
//! too: it sets the metric `kube_audit_proxy_log_seal_broken`, continues the chain after the
//! checkpoint, so that the gap stays visible, and marks the lines that it finds as `lost`. If the
//! checkpoint is deleted as well, only a head on another machine detects it.
//!
//! # Files
//!
//! | file | content |
//! |---|---|
//! | `audit.log` | the active log |
//! | `audit.log.seal` | its seal, from its first record on |
//! | `audit-TIME.log`, `.gz`, `.zst` | a rotated log; names sort in the order of the events, even if the clock jumps |
//! | `audit-TIME.log.seal` | its seal |
//! | `audit-TIME.log.parquet` | its index, whose SHA-256 is in the next record |
//! | `audit-TIME.log.seal.deleted` | its seal, when retention has begun to delete the log |
//! | `audit.log.checkpoint` | the last record, signed |
//! | `audit.log.lock` | locked with `flock` by the only process that writes the chain |
//!
//! The members of a record are documented in ARCHITECTURE.md.
//!
//! # State machine
//!
//! A file of the chain goes through these states; `+` means that its seal exists.
//!
//! ```text
//!            first block                rotation: rename seal, rename log
//!   Open ────────────────▶ Open+ ──────────────────────────────────────────▶ Rotated+
//!    │                                                                         │  all blocks
//!    │ rotation: rename log                                                    │  are sealed
//!    └──────────────▶ Rotated ── first block ──▶ Rotated+ ◀──┐                 ▼
//!                                                            └─────────────  Sealed
//!                                            compression: .gz.tmp, .gz, no .log │ │
//!                                                                 Compressed ◀──┘ │ retention
//!                                                                      └──────────┴─▶ Retired ─▶ gone
//! ```
//!
//! Recovery relies on these rules:
//!
//! 1. Blocks are sealed in the order of their lines, also across files. So if the active log has a
//!    record, all rotated files are sealed completely.
//! 2. A record is written after its lines are on the disk, and a checkpoint after its record is.
//! 3. A rotation renames the seal first. So a seal without a log, next to a log without a seal, is
//!    an interrupted rotation and not a deleted log, if both begin with the same line.
//! 4. Only completely sealed files are compressed or deleted (`ProtectedBackups`), and not before
//!    recovery has ended.
//! 5. Retention deletes from the oldest to the newest: it renames the seal to `.seal.deleted`,
//!    deletes the log, then the seal. A renamed seal still counts while its log exists.
//! 6. A process begins with a record without lines, and ends with one that is marked `stopped`. No
//!    line is accepted before the first of them is on the disk. So unsealed lines after a `stopped`
//!    record were not written by a proxy, and any other unsealed lines may be the result of a
//!    crash.
//!
//! At startup the log is in one of these states (`recover`), depending on where the newest record
//! is:
//!
//! | newest record | state | the chain continues |
//! |---|---|---|
//! | none | a new chain | with the existing lines, as `began` |
//! | in the active seal, which begins with the first line of the log | `Active` | after the record's last line |
//! | in a rotated seal without a log, which begins with the first line of the active log | `HalfRotated` | the seal is renamed back; then like `Active` |
//! | in a rotated seal | `Rotated` | with the rest of that file, the files after it, the log |
//! | in the active seal, which begins with the first line of a rotated log without a seal | `LeftBehind` | the seal is renamed; then like `Rotated` |
//! | in the active seal, which begins with the first line of no log | `Moved` | with the log, as `opened`: another program has moved the previous one |
//!
//! All lines that are found are sealed at startup: as `stopped` if the newest record is marked so,
//! as `lost` if the checkpoint is ahead of it, otherwise as `crash`. A partial record left by a
//! crash is truncated first. `tests::state` explores the orders of these steps, with a crash before
//! each.
//!
//! # Cost
//!
//! Eight bytes for each line (11 in base64), and some 460 for each block: 1.2 % of a log with lines
//! of 900 bytes. Eight bytes are enough, because they only show *where* something was changed; the
//! full SHA-256 shows *that* it was. The SHA-256 of a line is computed by the thread that writes
//! it.

mod chain;
mod checkpoint;
mod digest;
pub mod key;
mod lines;
mod log_seal;
mod metrics;
mod record;
mod recover;
mod rotated;
mod seal_file;
pub mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::checkpoint::checkpoint_path;
pub use self::key::{KeyError, PublicKey, SealKey};
pub use self::metrics::{SealFamilies, SealMetrics};
pub use self::record::{Head, Late};

pub(crate) use self::chain::Chain;
pub(crate) use self::digest::{Sha256, finish, hex, sha256};
pub(crate) use self::lines::Lines;
pub(crate) use self::log_seal::{Block, LogSeal};
pub(crate) use self::record::IndexDigest;
pub(crate) use self::recover::recover;

/// The settings of `--audit-log-seal`.
#[derive(Debug, Clone)]
pub struct SealConfig {
    /// `--audit-log-seal-key-file`: an Ed25519 private key, PKCS#8 in PEM.
    pub key_file: PathBuf,
    /// `--audit-log-seal-checkpoint-file`; `None` means next to the log.
    pub checkpoint_file: Option<PathBuf>,
    /// `--audit-log-seal-head-interval`: how often the head is logged while there are new blocks.
    pub head_interval: Duration,
}

/// Returns the path of a log file's seal, whether the log is compressed or not: `audit.log.seal`.
pub fn seal_path(log: &Path) -> PathBuf {
    let mut name = plain_path(log).into_os_string();
    name.push(".seal");
    PathBuf::from(name)
}

/// Returns the path that a log file had before it was compressed.
pub(crate) fn plain_path(log: &Path) -> PathBuf {
    let compressed =
        log.extension().is_some_and(|extension| extension == "gz" || extension == "zst");
    if compressed { log.with_extension("") } else { log.to_owned() }
}

#[cfg(test)]
mod tests;
