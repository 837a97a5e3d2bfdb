//! Starts recordings.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::files::{self, Retention};
use crate::metrics::FailureReason;
use crate::rules::Rules;
use crate::script::Script;
use crate::session::Shared;
use crate::writer::{Create, Message, Writer};
use crate::{Activity, Description, RecordingMetrics, Session};

/// Number of threads that write recordings.
const WRITERS: usize = 2;
/// Maximum time that the start of a session waits for its file.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// What happens to a session that cannot be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The session continues without a recording.
    BestEffort,
    /// The session is rejected or ended.
    Strict,
}

/// Which content is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The content of text streams; of other streams only size and SHA-256.
    Auto,
    /// The content of all streams.
    All,
}

/// Settings of recordings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory.
    pub dir: PathBuf,
    /// Whether input is recorded.
    pub input: bool,
    /// Which content is recorded.
    pub content: Content,
    /// What happens to a session that cannot be recorded.
    pub mode: Mode,
    /// Maximum size of a recording in bytes, before compression.
    pub max_size: Option<u64>,
    /// Limits of age and total size of recordings.
    pub retention: Retention,
    /// Whether recordings are compressed with zstd.
    pub compress: bool,
}

/// Starts recordings. A process has one recorder.
#[derive(Debug)]
pub struct Recorder {
    settings: Arc<Settings>,
    rules: RwLock<Arc<Rules>>,
    metrics: Arc<RecordingMetrics>,
    writers: Vec<Sender<Message>>,
    next: AtomicU64,
}

impl Recorder {
    /// Salvages recordings of an earlier process, and starts the writer threads.
    ///
    /// # Errors
    /// If the directory cannot be created or written.
    pub fn start(
        settings: Settings,
        rules: Rules,
        metrics: Arc<RecordingMetrics>,
    ) -> io::Result<Recorder> {
        files::prepare(&settings.dir)?;
        metrics.salvaged.inc_by(files::salvage_all(&settings.dir)? as u64);
        let settings = Arc::new(settings);
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let (sender, receiver) = channel();
            let mut writer = Writer::new(settings.clone(), metrics.clone());
            let cleans = number == 0;
            std::thread::Builder::new()
                .name(format!("recordings-{number}"))
                .spawn(move || writer.run(&receiver, cleans))?;
            writers.push(sender);
        }
        let rules = RwLock::new(Arc::new(rules));
        Ok(Recorder { settings, rules, metrics, writers, next: AtomicU64::new(0) })
    }

    /// Returns what happens to a session that cannot be recorded.
    pub fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// Returns whether input is recorded.
    pub fn records_input(&self) -> bool {
        self.settings.input
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &RecordingMetrics {
        &self.metrics
    }

    /// Replaces the rules.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// Returns whether the rules select a session.
    pub fn records(&self, description: &Description) -> bool {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).records(description)
    }

    /// Creates the recording of a session, with its header.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn begin(
        &self,
        activity: Activity,
        description: Description,
    ) -> Result<Session, io::Error> {
        let begun = self.try_begin(activity, description).await;
        if begun.is_err() {
            self.metrics.failed(FailureReason::Io);
        }
        begun
    }

    async fn try_begin(&self, activity: Activity, description: Description) -> io::Result<Session> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let sender = self.writers[id as usize % self.writers.len()].clone();
        let script = Script::new(&self.settings, activity, description.tty);
        let shared = Arc::new(Shared::new(script));
        let begin = Instant::now();
        let (reply, created) = oneshot::channel();
        let create = Create { description, shared: shared.clone(), reply };
        let ended = || io::Error::other("the thread that writes recordings has ended");
        sender.send(Message::Begin(id, Box::new(create))).map_err(|_| ended())?;
        let file = match tokio::time::timeout(MAX_WAIT, created).await {
            Ok(created) => created.map_err(|_| ended())??,
            Err(_) => {
                let _ = sender.send(Message::Discard(id));
                return Err(io::ErrorKind::TimedOut.into());
            }
        };
        let mode = self.settings.mode;
        Ok(Session::new((id, file), mode, activity, begin, sender, shared))
    }
}
