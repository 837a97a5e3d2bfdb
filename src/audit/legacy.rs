//! The time in log lines of `--audit-log-format=legacy`.

use k8s_audit::timestamp::Timestamp;

/// Returns a time like Go's `time.RFC3339Nano` prints it in the system's time zone: trailing zeros
/// of the fraction are dropped, UTC is `Z`.
pub(super) fn local_time(at: Timestamp) -> String {
    let Ok(at) = jiff::Timestamp::from_nanosecond(i128::from(at.nanos())) else {
        return "0001-01-01T00:00:00Z".into();
    };
    let offset = jiff::tz::TimeZone::system().to_offset(at);
    if offset.is_zero() {
        return at.to_string();
    }
    at.display_with_offset(offset).to_string()
}
