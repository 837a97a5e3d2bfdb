//! What the process tells of itself, on standard error.

use std::io::IsTerminal;

use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// The crates of this project that log.
const OWN: [&str; 2] = ["kube_audit_proxy", "api_client"];

/// Sets the process's log up. Later calls change nothing.
pub fn init(level: Level, format: LogFormat) {
    // Libraries have little to say that is of use to an operator, and much at the lower levels.
    let libraries = level.min(Level::WARN);
    let mut directives = libraries.to_string();
    for own in OWN {
        directives.push_str(&format!(",{own}={level}"));
    }
    let filter = EnvFilter::new(directives);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would report a closed standard error there, and panic.
        .log_internal_errors(false);
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
