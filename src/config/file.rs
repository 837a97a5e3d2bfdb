//! The file of `--config`: flags in YAML.
//!
//! A key is a flag without its dashes; a value is what would stand behind it, or a list of such.
//! The file has no parser of its own: each entry becomes an argument of the one that the command
//! line has, so that both take the same values and refuse them in the same words.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Args, Command, FromArgMatches};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

use super::flags::ServeFlags;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
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
pub fn parse(arguments: &[OsString]) -> Result<Result<ServeFlags, FileError>, clap::Error> {
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
    let from_file = match arguments_of(path) {
        Ok(entries) => entries,
        Err(error) => return Ok(Err(error)),
    };
    let mut all: Vec<OsString> = from_file
        .into_iter()
        .filter(|(key, _)| !is_given(key))
        .map(|(_, argument)| argument)
        .collect();
    all.extend(arguments.iter().cloned());
    let matches = command().try_get_matches_from(all)?;
    ServeFlags::from_arg_matches(&matches).map(Ok)
}

/// The flags as a command of their own, to which the first argument is an argument.
fn command() -> Command {
    ServeFlags::augment_args(Command::new("kube-audit-proxy serve")).no_binary_name(true)
}

/// The entries of the file as keys and arguments, each one that `serve` takes.
fn arguments_of(path: &Path) -> Result<Vec<(String, OsString)>, FileError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let entries = match serde_yaml::from_str::<Option<Entries>>(&text) {
        Ok(entries) => entries.unwrap_or_default(),
        Err(error) => {
            return Err(FileError::Yaml { path: path.to_owned(), message: error.to_string() });
        }
    };
    let mut arguments = Vec::new();
    for (key, value) in entries.0 {
        for (value, at) in value.value.texts(value.referenced) {
            let argument = OsString::from(format!("--{}={value}", key.value));
            check(&key, at, &argument).map_err(|(at, message)| FileError::Entry {
                path: path.to_owned(),
                line: at.line(),
                column: at.column(),
                message,
            })?;
            arguments.push((key.value.clone(), argument));
        }
    }
    Ok(arguments)
}

/// Whether `argument`, made of `key` and a value at `at`, is one that `serve` takes.
fn check(key: &Spanned<String>, at: Location, argument: &OsStr) -> Result<(), (Location, String)> {
    let name = &key.value;
    if name == "config" {
        return Err((key.referenced, "a configuration file cannot name another".to_owned()));
    }
    let known = command().get_arguments().any(|flag| flag.get_long() == Some(name));
    let Err(error) = command().try_get_matches_from([argument]) else {
        return Ok(());
    };
    if !known || error.kind() == ErrorKind::UnknownArgument {
        let nearest = match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(flag)) => {
                format!("did you mean {:?}?", flag.trim_start_matches('-'))
            }
            _ => "keys are the flags of serve without their dashes".to_owned(),
        };
        return Err((key.referenced, format!("there is no {name:?}; {nearest}")));
    }
    let message = error.to_string();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let message = message.split("\n\nFor more information").next().unwrap_or(message);
    Err((at, message.split_whitespace().collect::<Vec<_>>().join(" ")))
}

#[derive(Default)]
struct Entries(Vec<(Spanned<String>, Spanned<Value>)>);

enum Value {
    One(String),
    Many(Vec<Spanned<Value>>),
}

impl Value {
    /// The single values, each with its place.
    fn texts(self, at: Location) -> Vec<(String, Location)> {
        match self {
            Value::One(text) => vec![(text, at)],
            Value::Many(values) => {
                values.into_iter().flat_map(|value| value.value.texts(value.referenced)).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from flags to values, such as `secure-port: 6443`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::One(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::One(value.to_string()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(Value::Many(values))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
