//! Starts the session recorder, and watches the file with its rules.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use session_recording::Recorder;
use session_recording::rules::Rules;

use super::process::Follow;
use crate::config::SessionRecording;
use crate::file_watch::{FileWatcher, Reloaded};

/// Starts the session recorder if sessions are to be recorded.
///
/// # Errors
/// If the directory cannot be written, or the rules are invalid.
pub(super) fn recorder(
    config: Option<SessionRecording>,
    follow: &Follow,
) -> anyhow::Result<Option<Arc<Recorder>>> {
    let Some(SessionRecording { settings, rules_file }) = config else { return Ok(None) };
    // Created before the file is read, so that no change is missed.
    let watcher = FileWatcher::new(rules_file.iter().cloned().collect());
    let rules = match &rules_file {
        Some(path) => load(path).map_err(anyhow::Error::msg)?,
        None => Rules::default(),
    };
    let dir = settings.dir.clone();
    let recorder = Recorder::start(settings, rules, follow.metrics.sessions.clone());
    let recorder = recorder.with_context(|| {
        format!(
            "--session-recording-dir: {} cannot be written; give a directory that this user owns",
            dir.display()
        )
    })?;
    let recorder = Arc::new(recorder);
    tracing::info!(dir = %dir.display(), mode = ?recorder.mode(), "recording sessions");
    if let Some(path) = rules_file {
        let followed = recorder.clone();
        follow.spawn(Reloaded::SessionRecordingRules, watcher, move || {
            load(&path).map(|rules| followed.set_rules(rules))
        });
    }
    Ok(Some(recorder))
}

fn load(path: &Path) -> Result<Rules, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("--session-recording-rules: {}: {error}", path.display())
    };
    let bytes =
        watched_files::config_file::read(path, "file of rules").map_err(|error| wrong(&error))?;
    Rules::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| wrong(&error))
}
