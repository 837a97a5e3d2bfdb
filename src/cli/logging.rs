//! The process's own log, on standard error.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// The crates of this project, which log at `--log-level`.
const OWN_CRATES: [&str; 13] = [
    "api_client",
    "audit_body",
    "audit_log",
    "audit_query",
    "audit_stream",
    "demo_api",
    "k8s_audit",
    "kube_audit_proxy",
    "kube_authn",
    "pki",
    "session_recording",
    "test_support",
    "watched_files",
];

/// The Kafka client logs each attempt to connect as an error and a warning. `audit_log` reports
/// that a destination fails, and why, so these are logged from `--log-level=debug` only.
const REPEATING: &str = "krafka";

/// Sets the process's log up. Later calls change nothing.
pub(super) fn init(level: Level, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives(level)))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would report a closed standard error there, and panic.
        .log_internal_errors(false);
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Limits other libraries to warnings: their lower levels are of no use to an operator.
fn directives(level: Level) -> String {
    let libraries = level.min(Level::WARN);
    let repeating = if level >= Level::DEBUG { libraries.to_string() } else { "off".to_owned() };
    let libraries = format!("{libraries},{REPEATING}={repeating}");
    OWN_CRATES.iter().fold(libraries, |all, name| format!("{all},{name}={level}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_crates_of_the_workspace_log_at_the_level() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates");
        let entries = std::fs::read_dir(folder).unwrap();
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
        let crates: BTreeSet<String> = entries
            .map(|entry| name(entry.unwrap()).replace('-', "_"))
            .chain(["kube_audit_proxy".to_owned()])
            .collect();
        assert_eq!(
            crates,
            OWN_CRATES.map(str::to_owned).into(),
            "left: crates/; right: OWN_CRATES"
        );
        assert!(directives(Level::INFO).starts_with("WARN,"), "other libraries");
        assert!(directives(Level::INFO).contains(",audit_log=INFO,"));
        assert!(directives(Level::ERROR).starts_with("ERROR,"));
        assert!(directives(Level::INFO).contains(",krafka=off,"));
        assert!(directives(Level::DEBUG).contains(",krafka=WARN,"));
    }
}
