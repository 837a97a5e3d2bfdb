//! The flags of `serve` about recordings of sessions.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use session_recording::files::Retention;
use session_recording::{Content, Mode, Settings};

use super::boolean_flag::BooleanFlag;
use super::{ConfigError, fail};

const SESSIONS: &str = "Session recording";
const MIB: u64 = 1 << 20;
const DAY: u64 = 24 * 3600;

/// Flags of `serve` about recordings of sessions.
#[derive(Debug, Clone, Args)]
pub(crate) struct SessionFlags {
    /// Record exec, attach, and port-forward sessions in this directory, one asciicast file each;
    /// the audit event of a session names its file. See `kube-audit-proxy session`
    #[arg(long, value_name = "DIR", help_heading = SESSIONS)]
    pub session_recording_dir: Option<PathBuf>,
    /// Whether a session goes on that cannot be recorded
    #[arg(long, value_name = "MODE", default_value = "best-effort", help_heading = SESSIONS)]
    pub session_recording_mode: SessionMode,
    /// Record what is typed, too, not only what is shown. Passwords are part of it
    #[arg(long, default_value = "false", boolean(), help_heading = SESSIONS)]
    pub session_recording_input: bool,
    /// Which streams are recorded with their content. `auto` if not given; in strict mode always
    /// `all`, because a client can send binary data in order not to be recorded
    #[arg(long, value_name = "WHICH", help_heading = SESSIONS)]
    pub session_recording_content: Option<SessionContent>,
    /// YAML file of rules that choose the sessions to record, by user, group, namespace, pod, and
    /// command; reloaded when it changes. All sessions are recorded if not given
    #[arg(long, value_name = "FILE", help_heading = SESSIONS)]
    pub session_recording_rules: Option<PathBuf>,
    /// Size of a recording in MiB, before compression, at which its content ends; in strict mode
    /// the session ends with it. 0: unlimited
    #[arg(long, value_name = "MIB", default_value_t = 256, help_heading = SESSIONS)]
    pub session_recording_max_size: u64,
    /// Compress recordings with zstd
    #[arg(long, default_value = "false", boolean(), help_heading = SESSIONS)]
    pub session_recording_compress: bool,
    /// Delete recordings older than this number of days. 0: never
    #[arg(long, value_name = "DAYS", default_value_t = 0, help_heading = SESSIONS)]
    pub session_recording_max_age: u64,
    /// Delete the oldest recordings if all together have more MiB than this. 0: never
    #[arg(long, value_name = "MIB", default_value_t = 0, help_heading = SESSIONS)]
    pub session_recording_max_total_size: u64,
}

/// `--session-recording-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SessionMode {
    /// It goes on; the failure is logged, counted, and in its audit event
    BestEffort,
    /// It is refused with 500, or ended with a message
    Strict,
}

/// `--session-recording-content`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SessionContent {
    /// Terminals, and streams that are text; of others, such as those of kubectl cp, size and
    /// SHA-256
    Auto,
    /// All streams
    All,
}

/// Recordings of sessions.
#[derive(Debug, Clone)]
pub(crate) struct SessionRecording {
    /// Directory, mode, content, sizes.
    pub settings: Settings,
    /// `--session-recording-rules`
    pub rules_file: Option<PathBuf>,
}

impl SessionRecording {
    /// Checks `flags`; `None` if nothing is recorded.
    pub(super) fn new(flags: &SessionFlags) -> Result<Option<SessionRecording>, ConfigError> {
        let Some(dir) = flags.session_recording_dir.clone() else {
            if flags.session_recording_mode == SessionMode::Strict {
                return fail(
                    "--session-recording-mode=strict needs --session-recording-dir, the directory \
                     of the recordings",
                );
            }
            if flags.session_recording_rules.is_some() {
                return fail(
                    "--session-recording-rules needs --session-recording-dir, the directory of the \
                     recordings",
                );
            }
            return Ok(None);
        };
        let content = match (flags.session_recording_content, flags.session_recording_mode) {
            (Some(SessionContent::Auto), SessionMode::Strict) => {
                return fail(
                    "--session-recording-content=auto does not go with \
                     --session-recording-mode=strict, because a client can send binary data in \
                     order not to be recorded; use --session-recording-content=all",
                );
            }
            (Some(SessionContent::All), _) | (None, SessionMode::Strict) => Content::All,
            (Some(SessionContent::Auto) | None, SessionMode::BestEffort) => Content::Auto,
        };
        let bytes = |mib: u64| (mib > 0).then(|| mib.saturating_mul(MIB));
        let days = flags.session_recording_max_age;
        let settings = Settings {
            dir,
            input: flags.session_recording_input,
            content,
            mode: match flags.session_recording_mode {
                SessionMode::BestEffort => Mode::BestEffort,
                SessionMode::Strict => Mode::Strict,
            },
            max_size: bytes(flags.session_recording_max_size),
            retention: Retention {
                max_age: (days > 0).then(|| Duration::from_secs(days.saturating_mul(DAY))),
                max_total_bytes: bytes(flags.session_recording_max_total_size),
            },
            compress: flags.session_recording_compress,
        };
        Ok(Some(SessionRecording { settings, rules_file: flags.session_recording_rules.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: SessionFlags,
    }

    fn content(flags: &str) -> Result<Content, String> {
        let arguments = ["serve", "--session-recording-dir=/sessions"];
        let flags = Cli::parse_from(arguments.into_iter().chain(flags.split_whitespace())).flags;
        let recording = SessionRecording::new(&flags).map_err(|error| error.to_string())?;
        Ok(recording.expect("a directory is given").settings.content)
    }

    #[test]
    fn strict_mode_records_all_content() {
        assert_eq!(content(""), Ok(Content::Auto));
        assert_eq!(content("--session-recording-content=all"), Ok(Content::All));
        assert_eq!(content("--session-recording-mode=strict"), Ok(Content::All));
        let error = content("--session-recording-mode=strict --session-recording-content=auto");
        assert!(error.unwrap_err().contains("use --session-recording-content=all"));
    }
}
