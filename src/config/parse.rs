//! Parses the texts of values, for flags and for keys of `sinks` entries.

use std::time::Duration;

use clap::{Args, Command};
use serde::{Deserialize, Deserializer};

use k8s_audit::request::duration;

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = duration::parse(text)
        .map_err(|error| format!("{error}; write it as 30s, 1m30s or 500ms"))?;
    u64::try_from(nanoseconds)
        .map(Duration::from_nanos)
        .map_err(|_| "a time to wait cannot be negative".to_owned())
}

/// Deserializes a duration in Go's notation, such as `1m30s`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    from_text(deserializer, parse_duration)
}

/// Deserializes a value with the function that parses the value of its flag.
pub(super) fn from_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(|error| serde::de::Error::custom(format!("{text:?} is invalid: {error}")))
}

/// Lists accepted values: `a, b or c`.
pub(super) fn alternatives(values: &[impl AsRef<str>]) -> String {
    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
    match values.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Returns the values that flags have if none is given.
pub(super) fn default_flags<T: Args>() -> T {
    let command = T::augment_args(Command::new("defaults").no_binary_name(true));
    let matches = command.try_get_matches_from([""; 0]);
    matches.and_then(|matches| T::from_arg_matches(&matches)).expect("no flag is required")
}
