//! Files that are reloaded when they change, and the metrics of their reloads.

mod follow;
mod metrics;

pub(crate) use watched_files::file_watch::{FileWatcher, POLL_INTERVAL};

pub(crate) use self::follow::SelfReading;
pub(crate) use self::metrics::{ReloadMetrics, Reloaded};
