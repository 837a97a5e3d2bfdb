//! Common parts of the backends that send events to another system: attempts and their outcomes,
//! the health of the destination, metrics, and the spool ([`spool`]), which keeps batches on disk
//! until the destination has accepted them.

mod attempt;
mod config;
mod health;
mod metrics;
mod split;
pub(crate) mod spool;

pub(crate) use self::attempt::{Attempt, Courier, Failure, Format, Verdict};
pub use self::config::SpoolConfig;
pub(crate) use self::health::{AWAITED, Health, UNAWAITED};
pub use self::metrics::{DeliveryFamilies, DeliveryMetrics};
pub(crate) use self::split::{Delivered, Sent, deliver};
