//! Settings of a backend, which are written as flags or as keys of a `sinks` entry.

use std::fmt::{self, Display};

/// A setting of a backend: the flag `--audit-log-path`, or the key `path` of a `sinks` entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    prefix: &'static str,
    key: &'static str,
}

impl Setting {
    /// A setting that every type of backend has.
    pub(crate) const fn common(key: &'static str) -> Setting {
        Setting { prefix: "audit-", key }
    }

    /// A setting of the log backend.
    pub(crate) const fn log(key: &'static str) -> Setting {
        Setting { prefix: "audit-log-", key }
    }

    /// A setting of the webhook backend.
    pub(crate) const fn webhook(key: &'static str) -> Setting {
        Setting { prefix: "audit-webhook-", key }
    }

    /// A setting that is a key of `sinks` entries only.
    pub(crate) const fn key_only(key: &'static str) -> Setting {
        Setting { prefix: "", key }
    }

    pub(super) fn key(self) -> &'static str {
        self.key
    }

    /// Returns the flag without dashes.
    pub(super) fn flag(self) -> String {
        format!("{}{}", self.prefix, self.key)
    }

    /// An error of this setting. `message` begins with the setting's name in the syntax of the
    /// user.
    pub(super) fn error(self, message: impl Display) -> SettingError {
        SettingError { setting: self, message: message.to_string() }
    }
}

/// How the user has written the settings of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// As flags, such as `--audit-log-mode=batch`.
    Flags,
    /// As keys of a `sinks` entry, such as `mode: batch`.
    Keys,
}

impl Syntax {
    /// Returns `--audit-log-mode` or `mode`.
    pub(super) fn name(self, setting: Setting) -> String {
        match self {
            Syntax::Flags => format!("--{}", setting.flag()),
            Syntax::Keys => setting.key.to_owned(),
        }
    }

    /// Returns `--audit-log-mode=batch` or `mode: batch`.
    pub(super) fn assign(self, setting: Setting, value: &str) -> String {
        match self {
            Syntax::Flags => format!("--{}={value}", setting.flag()),
            Syntax::Keys => format!("{}: {value}", setting.key),
        }
    }
}

/// A setting has an invalid value, or is missing.
#[derive(Debug)]
pub(super) struct SettingError {
    pub(super) setting: Setting,
    pub(super) message: String,
}

impl Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
