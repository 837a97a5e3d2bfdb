//! Destinations of audit events outside of the machine: object storage, Kafka, and OpenTelemetry
//! collectors.
//!
//! Each implements [`audit_log::Destination`]. The spool of `audit-log` keeps the events on disk
//! until the destination has accepted them.

#[cfg(any(feature = "kafka", feature = "otlp"))]
mod error;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(any(feature = "kafka", feature = "otlp"))]
mod lines;
#[cfg(feature = "otlp")]
pub mod otlp;
#[cfg(feature = "s3")]
pub mod s3;

#[cfg(any(feature = "kafka", feature = "otlp"))]
pub use self::error::SettingsError;
