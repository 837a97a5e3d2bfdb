//! Tamper evidence for the audit log: next to each log file a seal file, a chain of signed records.
//!
//! # Threat model
//!
//! An attacker who can write to the log's directory **afterwards**, without the private key, cannot
//! change the log without `kube-audit-proxy log verify` reporting the line and the file:
//!
//! | what they do | what shows it |
//! |---|---|
//! | change, remove, insert, reorder, copy lines | each block has a digest of each of its lines, in order |
//! | create another line with the same short digest | the block's SHA-256 is over whole digests of all lines |
//! | truncate the log | the seal has digests of lines that are missing |
//! | delete a rotated file | its seal still has the digests of its lines |
//! | delete a rotated file and its seal | the block numbers and `prev` of the next file do not follow |
//! | swap two rotated files, with or without their seals | content against digests; file numbers against names |
//! | replace a compressed file | digests are over the uncompressed content |
//! | edit the seal file | the signature; `prev` of the next record |
//! | restore an older seal file | the next file's `prev`; for the last file the checkpoint, see below |
//! | delete the seal of the last file, or all seals | the checkpoint |
//! | sign records with a key of their own | `--public-key` |
//! | change an index file | its SHA-256 in the chain, unless it is what the log gives |
//!
//! # What only the head of the chain shows
//!
//! The end of a chain can be removed: deleting the last lines **together with** their records (or
//! all files, or restoring yesterday's copy of the whole directory) leaves a shorter chain that is
//! intact. Therefore the head of the chain, a block number and the SHA-256 of its record, is
//! written to the process's own log, once a minute by default, which should be sent to another
//! machine. `log verify --head` then requires that the chain contains that block.
//!
//! An attacker **with the key** (root on the machine while it runs, who can read it from memory)
//! can rewrite the past and sign it. Only a head that has left the machine before shows that: it is
//! of a record that the new chain does not contain. Changes after the last such head cannot be
//! detected.
//!
//! # Lines that are not sealed yet
//!
//! A block is closed once a second, or when it is full. Lines written after that are not sealed if
//! the process is killed: the next start seals them as it finds them, in blocks that are marked
//! `crash`, and `log verify` reports their number. An attacker who can crash the process can change
//! the lines of the last second before the crash. After a graceful shutdown no line is unsealed,
//! the last record is marked `stopped`, and later lines were inserted.
//!
//! A record is written only when its lines are on disk, so that a crash of the machine never leaves
//! a seal that covers more than the log has. That costs one `fdatasync` per second, in parallel
//! with the writes.
//!
//! # Missing seals
//!
//! A chain does not contain its own end, and a log without a seal does not show that it had one.
//! Therefore a checkpoint is stored next to the log, or at `--audit-log-seal-checkpoint-file`:
//! chain, number and SHA-256 of the last record, signed. A chain that ends before it, or is
//! missing, was tampered with: `log verify` reports it, and the proxy reports it at startup, sets
//! the metric `kube_audit_proxy_log_seal_broken`, continues after the checkpoint, so that the gap
//! stays visible, and marks the lines that it finds as `lost`. Deleting the checkpoint as well is
//! only detected by a head that has left the machine.
//!
//! # Files
//!
//! | file | content |
//! |---|---|
//! | `audit.log` | the active log |
//! | `audit.log.seal` | its seal, from its first record on |
//! | `audit-TIME.log`, `.gz`, `.zst` | a rotated log; names are later than all before, whatever the clock does |
//! | `audit-TIME.log.seal` | its seal |
//! | `audit-TIME.log.parquet` | its index, whose SHA-256 is in the next record |
//! | `audit-TIME.log.seal.deleted` | its seal, when retention has begun to delete it |
//! | `audit.log.checkpoint` | the last record, signed |
//! | `audit.log.lock` | `flock`: who writes the chain, which has one writer |
//!
//! The members of a record are in ARCHITECTURE.md.
//!
//! # State machine
//!
//! A file of the chain goes through these states; `+` means that the seal exists.
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
//! The steps keep these rules, which recovery relies on:
//!
//! 1. Blocks are sealed in the order of their lines, also across files. So if the active log has a
//!    record, all rotated files are sealed to their ends.
//! 2. A record is written when its lines are on the disk, a checkpoint when its record is.
//! 3. A rotation renames the seal first. So a seal without a log, beside a log without a seal, is a
//!    rotation that was cut short, and not a deleted log, if the log's first line is that of the
//!    seal.
//! 4. Only what is sealed to its end is compressed or deleted (`Kept`), and not before recovery has
//!    ended.
//! 5. Retention deletes from the oldest to the newest: it renames the seal to `.seal.deleted`,
//!    deletes the log, then the seal. A renamed seal still counts as long as its log is there.
//! 6. A process ends with a record that is marked `stopped`, and begins with one without lines. No
//!    line is accepted before that is on the disk. So lines without a record that follow a
//!    `stopped` record were not written by a proxy, and all others may be what a crash has left.
//!
//! At the start there is one of these states (`recover`), by where the newest record is:
//!
//! | newest record | state | the chain continues |
//! |---|---|---|
//! | none | a new chain | with the lines that are there, as `began` |
//! | in the active seal, whose first line is the log's | `Active` | behind the record's last line |
//! | in a rotated seal without a log, whose first line is the log's | `HalfRotated` | the seal is renamed back; then like `Active` |
//! | in a rotated seal | `Rotated` | with the rest of that file, the files after it, the log |
//! | in the active seal, with the first line of a rotated log without a seal | `LeftBehind` | the seal is renamed; then like `Rotated` |
//! | in the active seal, with the first line of no log | `Moved` | with the log, as `opened`: another program has moved the one before |
//!
//! All lines that are found are sealed there and then: as `stopped`, if the newest record says so,
//! as `lost`, if the checkpoint is ahead of it, else as `crash`. A record that a crash has cut
//! short is cut off before. `tests::state` explores the orders of these steps, with a crash before
//! each.
//!
//! # What it costs
//!
//! Eight bytes for each line, 11 in base64, and some 460 for each block: 1.2 % of a log with lines
//! of 900 bytes. Eight bytes are enough, as they only show *where* something was changed; the whole
//! SHA-256 shows *that* it was. The SHA-256 of a line is computed where it is written.

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

/// `--audit-log-seal` and what belongs to it.
#[derive(Debug, Clone)]
pub struct SealConfig {
    /// `--audit-log-seal-key-file`: an Ed25519 private key, PKCS#8 in PEM.
    pub key_file: PathBuf,
    /// `--audit-log-seal-checkpoint-file`; None: beside the log.
    pub checkpoint_file: Option<PathBuf>,
    /// `--audit-log-seal-head-interval`: how often the head is logged while there are new blocks.
    pub head_interval: Duration,
}

/// Returns the seal file of a log file, whether that is compressed or not: `audit.log.seal`.
pub fn seal_path(log: &Path) -> PathBuf {
    let mut name = plain_path(log).into_os_string();
    name.push(".seal");
    PathBuf::from(name)
}

/// Returns the name that a log file had before it was compressed.
pub(crate) fn plain_path(log: &Path) -> PathBuf {
    let compressed =
        log.extension().is_some_and(|extension| extension == "gz" || extension == "zst");
    if compressed { log.with_extension("") } else { log.to_owned() }
}

#[cfg(test)]
mod tests;
