//! Files that are followed for changes, and the metrics of their reloads.

mod metrics;

pub(crate) use watched_files::file_watch::{FileWatcher, POLL_INTERVAL};

pub(crate) use self::metrics::{ReloadMetrics, Reloaded};
