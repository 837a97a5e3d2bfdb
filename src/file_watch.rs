//! Files that are followed for changes, and the metrics of their reloads.

mod metrics;

pub use watched_files::file_watch::{FileWatcher, POLL_INTERVAL};

pub use self::metrics::{ReloadMetrics, Reloaded};
