//! Reads the file of `--config`: flags in YAML, and the list [`sinks`](super::sinks).
//!
//! A key is the name of a flag without its dashes; its value is that of the flag, or a list of
//! values. Each pair becomes a command-line argument, so that the file and the command line accept
//! the same values.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, Args, Command, FromArgMatches};
use serde_yaml::Location;

use super::flags::ServeFlags;
use super::parse::alternatives;
use super::sinks::SinkEntry;
use super::sinks::entry::{self, is_of_sinks};
use super::tree::Entries;

/// The reason why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The file cannot be read.
    #[error("--config: {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not YAML, or not a map from flags to values.
    #[error("{path}: {message}", path = path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// The error, with line and column.
        message: String,
    },
    /// A key is not a flag, or the flag does not accept the value.
    #[error("{path}:{line}:{column}: {message}", path = path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The line of the key or value, from 1.
        line: u64,
        /// The column of the key or value, from 1.
        column: u64,
        /// The error and how to fix it.
        message: String,
    },
}

/// Returns the flags in `arguments` (without `serve`) and in the file that `--config` names. A flag
/// in `arguments` overrides the value in the file.
///
/// # Errors
/// The outer error is clap's error about the arguments, which may be a request for help. The inner
/// error is about the file.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Result<ServeFlags, FileError>, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let flags = ServeFlags::from_arg_matches(&matches)?;
    let Some(path) = &flags.config else {
        return Ok(Ok(flags));
    };
    let command_line = |flag: &&Arg| {
        matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine)
    };
    let known = command();
    let given = known.get_arguments().filter(command_line).filter_map(Arg::get_long);
    let given: Vec<&str> = given.collect();
    let Arguments { flags: from_file, sinks } = match arguments_of(path) {
        Ok(arguments) => arguments,
        Err(error) => return Ok(Err(error)),
    };
    if let Some((_, at)) = &sinks
        && let Some(flag) = given.iter().find(|flag| is_of_sinks(flag))
    {
        let message = format!(
            "sinks and --{flag} exclude each other; move the flag into an entry of sinks, or \
             remove sinks"
        );
        return Ok(Err(FileError::entry(path, *at, message)));
    }
    let from_file = from_file.into_iter().filter(|(key, _)| !given.contains(&key.as_str()));
    let from_file = from_file.map(|(_, argument)| argument);
    let all: Vec<OsString> = from_file.chain(arguments.iter().cloned()).collect();
    let matches = command().try_get_matches_from(all)?;
    let flags = ServeFlags::from_arg_matches(&matches)?;
    Ok(Ok(ServeFlags { sinks: sinks.map(|(sinks, _)| sinks).unwrap_or_default(), ..flags }))
}

/// Returns a command with the flags of `serve`, which does not expect a program name as its first
/// argument.
pub(super) fn command() -> Command {
    ServeFlags::augment_args(Command::new("kube-audit-proxy serve")).no_binary_name(true)
}

/// The content of a configuration file.
struct Arguments {
    /// The keys, and the argument for each, which `serve` accepts.
    flags: Vec<(String, OsString)>,
    /// The entries of `sinks`, and its location.
    sinks: Option<(Vec<SinkEntry>, Location)>,
}

fn arguments_of(path: &Path) -> Result<Arguments, FileError> {
    let text = watched_files::regular_file::read_to_string(path)
        .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let entries = Entries::parse(&text)
        .map_err(|error| FileError::Yaml { path: path.to_owned(), message: error.to_string() })?;
    let mut arguments = Arguments { flags: Vec::new(), sinks: None };
    let mut of_sinks = None;
    for (key, value) in entries.0 {
        if key.value == "sinks" {
            let sinks = entry::parse(path, value.value, value.referenced)?;
            arguments.sinks = Some((sinks, key.referenced));
            continue;
        }
        let wrong = |(at, message)| FileError::entry(path, at, message);
        let texts = value.value.texts(value.referenced).map_err(|at| {
            wrong((at, format!("{} must be a value or a list of values, not a map", key.value)))
        })?;
        for (text, at) in texts {
            let argument = OsString::from(format!("--{}={text}", key.value));
            check(&key.value, key.referenced, at, &argument).map_err(wrong)?;
            arguments.flags.push((key.value.clone(), argument));
        }
        if is_of_sinks(&key.value) {
            of_sinks.get_or_insert((key.value.clone(), key.referenced));
        }
    }
    match (of_sinks, &arguments.sinks) {
        (Some((key, at)), Some(_)) => {
            let message = format!(
                "{key} and sinks exclude each other; move it into the entries of sinks, or remove \
                 sinks"
            );
            Err(FileError::entry(path, at, message))
        }
        _ => Ok(arguments),
    }
}

impl FileError {
    pub(super) fn entry(path: &Path, at: Location, message: String) -> FileError {
        FileError::Entry { path: path.to_owned(), line: at.line(), column: at.column(), message }
    }
}

/// Checks that `serve` accepts `argument`, which was built from the key `name` at `key` and a value
/// at `at`.
fn check(
    name: &str,
    key: Location,
    at: Location,
    argument: &OsStr,
) -> Result<(), (Location, String)> {
    if name == "config" {
        return Err((key, "a configuration file cannot name another".to_owned()));
    }
    let Err(error) = command().try_get_matches_from([argument]) else {
        return Ok(());
    };
    let is_known = command().get_arguments().any(|flag| flag.get_long() == Some(name));
    if is_known && error.kind() != ErrorKind::UnknownArgument {
        return Err((at, format!("{name}: {}", describe(&error))));
    }
    let nearest = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => {
            format!("did you mean {:?}?", flag.trim_start_matches('-'))
        }
        _ => "keys are the flags of serve without their dashes".to_owned(),
    };
    Err((key, format!("there is no {name:?}; {nearest}")))
}

/// Describes why clap rejected a value.
fn describe(error: &clap::Error) -> String {
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(valid)), _) if !valid.is_empty() => {
            format!("{value:?} is not supported; write {}", alternatives(valid))
        }
        (_, Some(source)) => format!("{value:?} is invalid: {source}"),
        _ => format!("{value:?} is invalid"),
    }
}

#[cfg(test)]
mod tests;
