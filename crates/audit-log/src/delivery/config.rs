//! The settings of a spool.

use std::path::PathBuf;

/// Where events wait while the destination does not accept them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The directory, which is created with mode 0700 if it is missing.
    pub dir: PathBuf,
    /// The maximum size of the spool in bytes. When it is reached, new events are lost.
    pub max_size: u64,
}
