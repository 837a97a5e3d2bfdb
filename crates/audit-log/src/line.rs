//! One encoded event, which several backends may share.

use std::ops::Deref;
use std::sync::Arc;

/// The bytes of one event. An event for several backends is in memory once; one for a single
/// backend has no reference count.
#[derive(Debug, Clone)]
pub enum Line {
    /// Owned by one backend.
    Own(Vec<u8>),
    /// Shared by several backends.
    Shared(Arc<Vec<u8>>),
}

impl Deref for Line {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Line::Own(bytes) => bytes,
            Line::Shared(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Line {
    fn from(bytes: Vec<u8>) -> Line {
        Line::Own(bytes)
    }
}
