//! Where events go: the log and the webhook, which have many settings in common.

use std::path::PathBuf;
use std::time::Duration;

use super::flags::{AuditLogMode, AuditLogSync, ServeFlags};
use super::{ConfigError, fail};
use audit_log::seal::SealConfig;
use audit_log::webhook::{SpoolConfig, WebhookConfig};
use audit_log::{LogConfig, LogPath, Mode, Rotation, SyncMode, Throttle};

/// The log, if there is one.
pub(super) fn log(flags: &ServeFlags) -> Result<Option<LogConfig>, ConfigError> {
    let path = match &flags.audit_log_path {
        None => return Ok(None),
        Some(path) if path.as_os_str().is_empty() => {
            return fail("--audit-log-path is empty; give a file, or - for standard output");
        }
        Some(path) if path.as_os_str() == "-" => LogPath::Stdout,
        Some(path) => LogPath::File(path.clone()),
    };
    let rotation = Rotation {
        max_size_mib: not_negative(
            "--audit-log-maxsize",
            flags.audit_log_maxsize,
            "to never rotate",
        )?,
        max_age_days: not_negative("--audit-log-maxage", flags.audit_log_maxage, "for no limit")?,
        max_backups: not_negative(
            "--audit-log-maxbackup",
            flags.audit_log_maxbackup,
            "for no limit",
        )?,
        compress: flags.audit_log_compress,
        index: flags.audit_log_index,
    };
    let sync = match flags.audit_log_sync {
        AuditLogSync::Off => SyncMode::Off,
        AuditLogSync::Always => SyncMode::Always,
        AuditLogSync::Interval if flags.audit_log_sync_interval.is_zero() => {
            return fail(
                "--audit-log-sync-interval must be above 0; to sync before each event counts as \
                 written, give --audit-log-sync=always",
            );
        }
        AuditLogSync::Interval => SyncMode::Interval(flags.audit_log_sync_interval),
    };
    let seal = seal(flags)?;
    Ok(Some(LogConfig { path, mode: mode(&log_batch(flags))?, rotation, sync, seal }))
}

fn seal(flags: &ServeFlags) -> Result<Option<SealConfig>, ConfigError> {
    match (flags.audit_log_seal, flags.audit_log_seal_key_file.clone()) {
        (false, None) if flags.audit_log_seal_checkpoint_file.is_some() => {
            fail("--audit-log-seal-checkpoint-file has no effect without --audit-log-seal")
        }
        (false, None) => Ok(None),
        (false, Some(_)) => {
            fail("--audit-log-seal-key-file has no effect without --audit-log-seal")
        }
        (true, None) => fail(
            "--audit-log-seal needs --audit-log-seal-key-file; `kube-audit-proxy log keygen FILE` \
             makes one",
        ),
        (true, Some(_))
            if flags.audit_log_path.as_ref().is_some_and(|path| path.as_os_str() == "-") =>
        {
            fail("--audit-log-seal needs a file; standard output cannot be sealed")
        }
        (true, Some(key_file)) => {
            let head_interval = flags.audit_log_seal_head_interval;
            let checkpoint_file = flags.audit_log_seal_checkpoint_file.clone();
            Ok(Some(SealConfig { key_file, checkpoint_file, head_interval }))
        }
    }
}

// kube-apiserver looks at these only where there is a webhook.
pub(super) fn webhook(flags: &ServeFlags) -> Result<Option<(PathBuf, WebhookConfig)>, ConfigError> {
    let Some(file) = flags.audit_webhook_config_file.clone() else { return Ok(None) };
    let max_event = flags.audit_webhook_truncate_max_event_size;
    let max_event_size =
        usize::try_from(max_event).ok().filter(|size| *size > 0).ok_or_else(|| {
            ConfigError(format!(
                "--audit-webhook-truncate-max-event-size: invalid audit truncate webhook max event \
             size {max_event}, must be a positive number"
            ))
        })?;
    let max_batch = flags.audit_webhook_truncate_max_batch_size;
    if max_batch < max_event {
        return Err(ConfigError(format!(
            "--audit-webhook-truncate-max-batch-size: invalid audit truncate webhook max batch \
             size {max_batch}, must be greater than max event size ({max_event})"
        )));
    }
    let mode = mode(&webhook_batch(flags))?;
    let is_batch = matches!(mode, Mode::Batch { .. });
    let spool = match flags.audit_webhook_spool_dir.clone() {
        None => None,
        Some(_) if !is_batch => {
            return fail(
                "--audit-webhook-spool-dir needs --audit-webhook-mode=batch: in the others a \
                 request waits for the endpoint itself",
            );
        }
        Some(dir) => {
            let mib = flags.audit_webhook_spool_max_size;
            let max_size = u64::try_from(mib).ok().filter(|mib| *mib > 0).ok_or_else(|| {
                ConfigError(format!(
                    "--audit-webhook-spool-max-size: {mib} is not a size in MiB; give a positive \
                     number"
                ))
            })?;
            Some(SpoolConfig { dir, max_size: max_size.saturating_mul(1 << 20) })
        }
    };
    let config = WebhookConfig {
        mode,
        initial_backoff: flags.audit_webhook_initial_backoff,
        max_event_size: flags.audit_webhook_truncate_enabled.then_some(max_event_size),
        compress: flags.audit_webhook_compress,
        spool,
    };
    Ok(Some((file, config)))
}

/// The flags that log and webhook both have.
struct BatchFlags {
    /// `log` or `webhook`
    backend: &'static str,
    mode: AuditLogMode,
    buffer_size: i64,
    max_size: i64,
    max_wait: Duration,
    throttle_enable: bool,
    throttle_qps: f32,
    throttle_burst: i64,
}

fn log_batch(flags: &ServeFlags) -> BatchFlags {
    BatchFlags {
        backend: "log",
        mode: flags.audit_log_mode,
        buffer_size: flags.audit_log_batch_buffer_size,
        max_size: flags.audit_log_batch_max_size,
        max_wait: flags.audit_log_batch_max_wait,
        throttle_enable: flags.audit_log_batch_throttle_enable,
        throttle_qps: flags.audit_log_batch_throttle_qps,
        throttle_burst: flags.audit_log_batch_throttle_burst,
    }
}

fn webhook_batch(flags: &ServeFlags) -> BatchFlags {
    BatchFlags {
        backend: "webhook",
        mode: flags.audit_webhook_mode,
        buffer_size: flags.audit_webhook_batch_buffer_size,
        max_size: flags.audit_webhook_batch_max_size,
        max_wait: flags.audit_webhook_batch_max_wait,
        throttle_enable: flags.audit_webhook_batch_throttle_enable,
        throttle_qps: flags.audit_webhook_batch_throttle_qps,
        throttle_burst: flags.audit_webhook_batch_throttle_burst,
    }
}

// As kube-apiserver, the batch settings are only looked at in batch mode.
fn mode(flags: &BatchFlags) -> Result<Mode, ConfigError> {
    let positive = |flag, what, value| positive::<usize>(flags.backend, flag, what, value);
    Ok(match flags.mode {
        AuditLogMode::Blocking => Mode::Blocking,
        AuditLogMode::BlockingStrict => Mode::BlockingStrict,
        AuditLogMode::Batch => Mode::Batch {
            buffer_size: positive("buffer-size", "buffer size", flags.buffer_size)?,
            max_size: positive("max-size", "max batch size", flags.max_size)?,
            max_wait: flags.max_wait,
            throttle: flags.throttle_enable.then(|| throttle(flags)).transpose()?,
        },
    })
}

fn throttle(flags: &BatchFlags) -> Result<Throttle, ConfigError> {
    let (backend, qps) = (flags.backend, flags.throttle_qps);
    if !(qps > 0.0 && qps.is_finite()) {
        return Err(ConfigError(format!(
            "--audit-{backend}-batch-throttle-qps: invalid audit batch {backend} throttle QPS \
             {qps}, must be a positive number"
        )));
    }
    let burst = positive(backend, "throttle-burst", "throttle burst", flags.throttle_burst)?;
    Ok(Throttle { qps, burst })
}

/// kube-apiserver's words for what must be above 0, after the flag.
fn positive<T: TryFrom<i64>>(
    backend: &str,
    flag: &str,
    what: &str,
    value: i64,
) -> Result<T, ConfigError> {
    T::try_from(value).ok().filter(|_| value > 0).ok_or_else(|| {
        ConfigError(format!(
            "--audit-{backend}-batch-{flag}: invalid audit batch {backend} {what} {value}, must \
             be a positive number"
        ))
    })
}

/// kube-apiserver's words for what must not be below 0, and what 0 is for.
fn not_negative<T: TryFrom<i64>>(flag: &str, value: i64, zero: &str) -> Result<T, ConfigError> {
    T::try_from(value).map_err(|_| {
        ConfigError(format!("{flag} {value} can't be a negative number; give 0 {zero}"))
    })
}
