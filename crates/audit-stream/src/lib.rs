//! Destinations of audit events outside of the machine: object storage, Kafka, and OpenTelemetry
//! collectors.
//!
//! Each implements [`audit_log::Destination`]. The spool of `audit-log` keeps the events on disk
//! until the destination has accepted them.

#[cfg(feature = "s3")]
pub mod s3;
