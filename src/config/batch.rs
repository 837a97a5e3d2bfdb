//! Settings that several backends have: mode, batches and the maximum size of events.

use std::time::Duration;

use audit_log::{Mode, Throttle};
use clap::ValueEnum;
use serde::Deserialize;

use super::setting::{Setting, SettingError, Syntax};

/// `--audit-log-mode`, `--audit-webhook-mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum WriteMode {
    /// Requests do not wait; when the buffer is full, events are lost and counted
    Batch,
    /// Requests wait; if a write fails, they proceed, and the loss is counted
    Blocking,
    /// Requests wait; if a write fails, they are refused
    BlockingStrict,
}

/// `--audit-log-version`, `--audit-webhook-version`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
pub(crate) enum EventVersion {
    #[value(name = "audit.k8s.io/v1")]
    #[serde(rename = "audit.k8s.io/v1")]
    // A doc comment would be in --help.
    V1,
}

/// The mode of a backend and the settings of batch mode.
pub(super) struct Batch {
    /// The name of the backend in kube-apiserver's messages.
    pub(super) backend: &'static str,
    /// Returns the setting with a key.
    pub(super) setting: fn(&'static str) -> Setting,
    pub(super) mode: WriteMode,
    pub(super) buffer_size: i64,
    pub(super) max_size: i64,
    pub(super) max_wait: Duration,
    pub(super) throttle_enable: bool,
    pub(super) throttle_qps: f32,
    pub(super) throttle_burst: i64,
}

impl Batch {
    /// Validates the settings. Like kube-apiserver, ignores those of batch mode in other modes.
    pub(super) fn validate(&self, syntax: Syntax) -> Result<Mode, SettingError> {
        Ok(match self.mode {
            WriteMode::Blocking => Mode::Blocking,
            WriteMode::BlockingStrict => Mode::BlockingStrict,
            WriteMode::Batch => Mode::Batch {
                buffer_size: self.positive(
                    syntax,
                    "batch-buffer-size",
                    "buffer size",
                    self.buffer_size,
                )?,
                max_size: self.positive(
                    syntax,
                    "batch-max-size",
                    "max batch size",
                    self.max_size,
                )?,
                max_wait: self.max_wait,
                throttle: self.throttle_enable.then(|| self.throttle(syntax)).transpose()?,
            },
        })
    }

    fn throttle(&self, syntax: Syntax) -> Result<Throttle, SettingError> {
        let qps = self.throttle_qps;
        if !(qps > 0.0 && qps.is_finite()) {
            return Err(self.invalid(syntax, "batch-throttle-qps", "throttle QPS", qps));
        }
        let burst =
            self.positive(syntax, "batch-throttle-burst", "throttle burst", self.throttle_burst)?;
        Ok(Throttle { qps, burst })
    }

    fn positive<T: TryFrom<i64>>(
        &self,
        syntax: Syntax,
        key: &'static str,
        what: &str,
        value: i64,
    ) -> Result<T, SettingError> {
        let positive = T::try_from(value).ok().filter(|_| value > 0);
        positive.ok_or_else(|| self.invalid(syntax, key, what, value))
    }

    /// kube-apiserver's message for a number that is not positive, after the name of the setting.
    fn invalid(
        &self,
        syntax: Syntax,
        key: &'static str,
        what: &str,
        value: impl std::fmt::Display,
    ) -> SettingError {
        let (setting, backend) = ((self.setting)(key), self.backend);
        let name = syntax.name(setting);
        setting.error(format!(
            "{name}: invalid audit batch {backend} {what} {value}, must be a positive number"
        ))
    }
}

/// The settings that truncate events.
pub(super) struct MaxEventSize {
    /// The name of the backend in kube-apiserver's messages.
    pub(super) backend: &'static str,
    /// Returns the setting with a key.
    pub(super) setting: fn(&'static str) -> Setting,
    pub(super) enabled: bool,
    pub(super) max_event_size: i64,
    pub(super) max_batch_size: i64,
}

impl MaxEventSize {
    /// Returns the maximum size of an event, if truncation is enabled. Like kube-apiserver,
    /// validates the sizes even if it is not.
    pub(super) fn validate(&self, syntax: Syntax) -> Result<Option<usize>, SettingError> {
        let (max_event, max_batch, backend) =
            (self.max_event_size, self.max_batch_size, self.backend);
        let size = usize::try_from(max_event).ok().filter(|size| *size > 0).ok_or_else(|| {
            let setting = (self.setting)("truncate-max-event-size");
            setting.error(format!(
                "{}: invalid audit truncate {backend} max event size {max_event}, must be a \
                 positive number",
                syntax.name(setting)
            ))
        })?;
        if max_batch < max_event {
            let setting = (self.setting)("truncate-max-batch-size");
            return Err(setting.error(format!(
                "{}: invalid audit truncate {backend} max batch size {max_batch}, must be greater \
                 than max event size ({max_event})",
                syntax.name(setting)
            )));
        }
        Ok(self.enabled.then_some(size))
    }
}
