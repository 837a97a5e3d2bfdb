//! Reloads files when they change: the one loop that all files go through which are reread while
//! the process runs.
//!
//! - **Polling.** The files are polled every [`POLL_INTERVAL`] ([`FileWatcher`]), on a thread that
//!   may block: a file system that hangs blocks its own files only. A forced reload (SIGHUP) is
//!   immediate, and also reloads unchanged files.
//! - **Half-written files.** After a change, the loop waits until two polls in a row, a tenth of
//!   the interval apart, find the same state, for at most half an interval. Files that change
//!   continuously are then read up to five times, until they are valid and did not change while
//!   they were read; the fifth result counts.
//! - **Unreadable and invalid files** are rejected: what is active stays active, and the rejection
//!   is reported once for each content and reason, and again if a reload is forced. Every poll
//!   tries again, since a later write may have the same time stamp, and since a file that the
//!   rejected one refers to may have changed instead.

use std::fmt::Display;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, sleep};

use crate::file_watch::FileWatcher;
#[cfg(doc)]
use crate::file_watch::POLL_INTERVAL;

/// Maximum number of steps, of a tenth of the interval each, to wait for a file that is being
/// written. A file that changes constantly is thus read at least every one and a half intervals.
const SETTLE_STEPS: u32 = 5;
/// Maximum number of attempts to load a valid file that is being written, and the wait between two
/// attempts.
const MOTION_ATTEMPTS: u32 = 5;
const MOTION_PAUSE: Duration = Duration::from_millis(7);

/// An object that is created from files, and recreated when they change.
pub trait Reload: Send + 'static {
    /// What identifies a version of the files: their bytes, or their
    /// [`Stamps`](crate::file_watch::Stamps) if [`Reload::apply`] reads them.
    type Content: PartialEq + Send;
    /// Why files are rejected.
    type Error: Display + Send;

    /// Reads the files.
    ///
    /// # Errors
    /// Returns an error if they cannot be read.
    fn read(&mut self, files: &FileWatcher) -> Result<Self::Content, Self::Error>;

    /// Makes `content` active. `is_changed` is false if it is active already and the reload was
    /// forced.
    ///
    /// # Errors
    /// Returns an error if the content is invalid; then nothing has changed.
    fn apply(&mut self, content: &Self::Content, is_changed: bool) -> Result<(), Self::Error>;

    /// Logs and counts an outcome.
    fn report(&mut self, outcome: Outcome<'_, Self::Error>);
}

/// An outcome of a poll that is reported.
#[derive(Debug)]
pub enum Outcome<'a, E> {
    /// The content was applied.
    Reloaded {
        /// Whether it is another one than before; otherwise the reload was forced.
        is_changed: bool,
    },
    /// The files cannot be read or are invalid; what was active stays active.
    Rejected(&'a E),
    /// After a rejection, the files have the active content again.
    Restored,
    /// The files change continuously. Reported once, until they no longer do.
    InMotion,
}

/// Files that are reloaded when they change.
#[derive(Debug)]
pub struct Reloader<R: Reload> {
    files: FileWatcher,
    reload: R,
    active: R::Content,
    /// The last rejection, so that it is reported once.
    rejected: Option<Rejected<R::Content>>,
    /// Whether to read the files at the next poll even if they seem unchanged: they may have been
    /// half written, and a second change can have the same time stamp as the first one.
    again: bool,
    is_in_motion: bool,
}

/// Files that were rejected, and why.
#[derive(Debug, PartialEq)]
struct Rejected<C> {
    /// `None` if they could not be read.
    content: Option<C>,
    reason: String,
}

/// What a poll looks for.
#[derive(Debug, Clone, Copy)]
struct Look {
    changed: bool,
    forced: bool,
    /// Whether files that are invalid, or that changed while they were read, are left to a later
    /// attempt.
    lenient: bool,
}

impl<R: Reload> Reloader<R> {
    /// Reloads `files`, of which `active` is the active content. Create the watcher before reading
    /// the files for the first time, so that no change is missed.
    pub fn new(files: FileWatcher, active: R::Content, reload: R) -> Reloader<R> {
        Reloader { files, reload, active, rejected: None, again: true, is_in_motion: false }
    }

    /// Polls the files every `interval`, usually [`POLL_INTERVAL`], and immediately when `forced`
    /// receives a value, until its sender is dropped.
    pub async fn follow(self, mut forced: watch::Receiver<()>, interval: Duration) {
        let mut polls = tokio::time::interval(interval);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut following = Following(Some(self));
        loop {
            let is_forced = tokio::select! {
                _ = polls.tick() => false,
                result = forced.changed() => match result {
                    Ok(()) => true,
                    Err(_) => return,
                },
            };
            if following.poll(is_forced, interval).await.is_none() {
                return;
            }
        }
    }

    /// Polls the files once, without giving them time to settle. Blocks while they are read.
    pub fn poll(&mut self, forced: bool) {
        let changed = self.files.changed();
        self.look(Look { changed, forced, lenient: false });
    }

    fn note_motion(&mut self, is_in_motion: bool) {
        if is_in_motion && !self.is_in_motion {
            self.reload.report(Outcome::InMotion);
        }
        self.is_in_motion = is_in_motion;
    }

    /// Reads the files if necessary, and applies their content if it is valid. Returns `false` if
    /// it is left to a later attempt.
    fn look(&mut self, look: Look) -> bool {
        let Look { changed, forced, lenient } = look;
        if !(changed || forced || self.again) {
            return true;
        }
        self.again = changed;
        let read = self.reload.read(&self.files);
        if lenient && (read.is_err() || self.files.changed()) {
            self.again = true;
            return false;
        }
        let content = match read {
            Ok(content) => content,
            Err(error) => {
                self.reject(None, &error, forced);
                return true;
            }
        };
        let is_changed = content != self.active;
        if !is_changed {
            if self.rejected.take().is_some() {
                self.reload.report(Outcome::Restored);
            }
            if !forced {
                return true;
            }
        }
        match self.reload.apply(&content, is_changed) {
            Ok(()) => {
                (self.active, self.rejected) = (content, None);
                self.reload.report(Outcome::Reloaded { is_changed });
            }
            Err(_) if lenient => {
                self.again = true;
                return false;
            }
            Err(error) => self.reject(Some(content), &error, forced),
        }
        true
    }

    fn reject(&mut self, content: Option<R::Content>, error: &R::Error, forced: bool) {
        self.again = true;
        let rejected = Rejected { content, reason: error.to_string() };
        if self.rejected.as_ref() == Some(&rejected) && !forced {
            return;
        }
        self.reload.report(Outcome::Rejected(error));
        self.rejected = Some(rejected);
    }
}

/// Files that are followed; `None` while another thread looks at them.
struct Following<R: Reload>(Option<Reloader<R>>);

impl<R: Reload> Following<R> {
    /// Polls the files, after they have settled. Returns `None` if the thread panicked.
    async fn poll(&mut self, forced: bool, interval: Duration) -> Option<()> {
        let changed = self.run_blocking(|it| it.files.changed()).await?;
        let mut settling = changed;
        for _ in 0..SETTLE_STEPS {
            if !settling {
                break;
            }
            // Give a process that writes in place time to finish.
            sleep(interval / 10).await;
            settling = self.run_blocking(|it| it.files.changed()).await?;
        }
        let attempts = if settling { MOTION_ATTEMPTS } else { 1 };
        for left in (0..attempts).rev() {
            let look = Look { changed, forced, lenient: left > 0 };
            let looked = self.run_blocking(move |it| {
                it.note_motion(settling);
                it.look(look)
            });
            if looked.await? {
                break;
            }
            sleep(MOTION_PAUSE).await;
        }
        Some(())
    }

    /// Runs `look` on a thread that may block. Returns `None` if it panicked, which has been
    /// logged.
    async fn run_blocking<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&mut Reloader<R>) -> T + Send + 'static,
    ) -> Option<T> {
        let mut reloader = self.0.take()?;
        let looked = tokio::task::spawn_blocking(move || {
            let result = look(&mut reloader);
            (reloader, result)
        });
        let (reloader, result) = looked.await.ok()?;
        self.0 = Some(reloader);
        Some(result)
    }
}

#[cfg(test)]
mod tests;
