//! The result of verifying a token.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_audit::UserInfo;

/// The user of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The user.
    pub user: UserInfo,
    /// When the token expires; `None` if it never does.
    pub expires: Option<SystemTime>,
    /// The annotations that kube-apiserver adds to the event, sorted by key.
    pub annotations: Vec<(&'static str, String)>,
}

/// Converts a `NumericDate` (RFC 7519, seconds since 1970), truncated to seconds. Returns `None`
/// for times beyond the range of [`SystemTime`].
pub(super) fn numeric_date(seconds: f64) -> Option<SystemTime> {
    if seconds < 0.0 {
        return Some(UNIX_EPOCH);
    }
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds.trunc()).ok()?)
}
