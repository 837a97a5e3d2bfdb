//! The file of `--config`: flags in YAML.
//!
//! A key is a flag without its dashes; a value is what would stand behind it, or a list of such.
//! Besides, there is `sinks`, a list of maps: [`entry`].
//! The file has no parser of its own: each entry becomes an argument of the one that the command
//! line has, so that both take the same values and refuse them in the same words.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, Command, FromArgMatches};
use serde_yaml::Location;

use super::flags::ServeFlags;
use super::sinks::SinkEntry;
use super::sinks::entry::{self, is_of_sinks};
use super::tree::Entries;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("--config: {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// It is not YAML, or not a map from flags to values.
    #[error("{path}: {message}", path = path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// An entry is no flag, or has a value that the flag does not take.
    #[error("{path}:{line}:{column}: {message}", path = path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Line of the key or value, from 1.
        line: u64,
        /// Its column, from 1.
        column: u64,
        /// What is wrong, and the remedy.
        message: String,
    },
}

/// The flags that `arguments` (those behind `serve`) and the file that they name by `--config`
/// give; where both give the same one, the file's value is not used.
///
/// # Errors
/// Inside, what is wrong with the file; outside, what clap says of the arguments, which may be
/// that help is asked for.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Result<ServeFlags, FileError>, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let flags = ServeFlags::from_arg_matches(&matches)?;
    let Some(path) = &flags.config else {
        return Ok(Ok(flags));
    };
    let is_given = |key: &str| {
        command().get_arguments().any(|flag| {
            flag.get_long() == Some(key)
                && matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine)
        })
    };
    let Arguments { flags: from_file, sinks } = match arguments_of(path) {
        Ok(arguments) => arguments,
        Err(error) => return Ok(Err(error)),
    };
    let given = command();
    let given = given.get_arguments().filter_map(clap::Arg::get_long).filter(|key| is_given(key));
    if let Some((_, at)) = &sinks
        && let Some(flag) = given.into_iter().find(|flag| is_of_sinks(flag))
    {
        let message = format!(
            "sinks and --{flag} exclude each other; move the flag into an entry of sinks, or \
             remove sinks"
        );
        return Ok(Err(FileError::entry(path, *at, message)));
    }
    let mut all: Vec<OsString> = from_file
        .into_iter()
        .filter(|(key, _)| !is_given(key))
        .map(|(_, argument)| argument)
        .collect();
    all.extend(arguments.iter().cloned());
    let matches = command().try_get_matches_from(all)?;
    let flags = ServeFlags::from_arg_matches(&matches)?;
    Ok(Ok(ServeFlags { sinks: sinks.map(|(sinks, _)| sinks).unwrap_or_default(), ..flags }))
}

/// The flags as a command of their own, to which the first argument is an argument.
pub(super) fn command() -> Command {
    ServeFlags::augment_args(Command::new("kube-audit-proxy serve")).no_binary_name(true)
}

/// What a file says.
struct Arguments {
    /// Keys and arguments, each one that `serve` takes.
    flags: Vec<(String, OsString)>,
    /// `sinks`, and where.
    sinks: Option<(Vec<SinkEntry>, Location)>,
}

fn arguments_of(path: &Path) -> Result<Arguments, FileError> {
    let text = watched_files::regular_file::read_to_string(path)
        .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let entries = match serde_yaml::from_str::<Option<Entries>>(&text) {
        Ok(entries) => entries.unwrap_or_default(),
        Err(error) => {
            return Err(FileError::Yaml { path: path.to_owned(), message: error.to_string() });
        }
    };
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

/// Whether `argument`, made of the flag `name` that is at `key` and a value at `at`, is one that
/// `serve` takes.
fn check(
    name: &str,
    key: Location,
    at: Location,
    argument: &OsStr,
) -> Result<(), (Location, String)> {
    if name == "config" {
        return Err((key, "a configuration file cannot name another".to_owned()));
    }
    let known = command().get_arguments().any(|flag| flag.get_long() == Some(name));
    let Err(error) = command().try_get_matches_from([argument]) else {
        return Ok(());
    };
    if !known || error.kind() == ErrorKind::UnknownArgument {
        let nearest = match nearest_flag(argument) {
            Some(flag) => format!("did you mean {flag:?}?"),
            None => "keys are the flags of serve without their dashes".to_owned(),
        };
        return Err((key, format!("there is no {name:?}; {nearest}")));
    }
    let message = error.to_string();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let message = message.split("\n\nFor more information").next().unwrap_or(message);
    Err((at, message.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// The flag that an unknown one is like.
fn nearest_flag(argument: &OsStr) -> Option<String> {
    let error = command().try_get_matches_from([argument]).err()?;
    match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => Some(flag.trim_start_matches('-').to_owned()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
