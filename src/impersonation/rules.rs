//! Selects between kube-apiserver's two ways of authorizing impersonation.

use std::time::{Duration, Instant};

use api_client::ApiRequest;
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::access_review::Refusal;
use crate::upstream::Upstream;

const VERSION: &str = "/version";
/// How long the API server's version is cached; it changes with upgrades.
const KNOWN: Duration = Duration::from_secs(300);
/// Delay before the version is requested again after a failure.
const UNKNOWN: Duration = Duration::from_secs(30);
/// The first minor version whose feature gate ConstrainedImpersonation is on by default.
const FIRST_CONSTRAINED: u32 = 36;

/// A way of authorizing impersonation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Only the verb `impersonate` is checked, like up to Kubernetes 1.35.
    LegacyOnly,
    /// The constrained modes are checked first, then the verb `impersonate` (feature gate
    /// ConstrainedImpersonation).
    Constrained,
}

/// `--constrained-impersonation`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConstrainedImpersonation {
    /// The default for the API server's version.
    Auto,
    /// These rules, whatever the version.
    Always(Rules),
}

/// Determines the active rules.
pub(super) struct ActiveRules {
    setting: ConstrainedImpersonation,
    upstream: Upstream,
    by_version: Mutex<ByVersion>,
}

#[derive(Default)]
struct ByVersion {
    /// The rules for the API server's version, and until when they are cached.
    known: Option<(Rules, Instant)>,
    /// When determining the version last failed.
    failed: Option<Instant>,
}

#[derive(Deserialize)]
struct Version {
    major: String,
    minor: String,
}

impl ActiveRules {
    pub(super) fn new(setting: ConstrainedImpersonation, upstream: Upstream) -> ActiveRules {
        ActiveRules { setting, upstream, by_version: Mutex::default() }
    }

    /// Returns the active rules.
    ///
    /// If the version cannot be determined, returns the last known rules, otherwise the old ones,
    /// which allow nothing that the new ones deny.
    ///
    /// # Errors
    /// Returns an error if the API server cannot be reached and its version was never known.
    pub(super) async fn current(&self) -> Result<Rules, Refusal> {
        if let ConstrainedImpersonation::Always(rules) = self.setting {
            return Ok(rules);
        }
        let began = Instant::now();
        // Held during the request, so that one task requests the version for all.
        let mut by_version = self.by_version.lock().await;
        let last = by_version.known;
        match last {
            Some((rules, until)) if until > Instant::now() => return Ok(rules),
            // Requests that waited for a failed attempt do not wait for the next one.
            None if by_version.failed.is_some_and(|at| at > began) => return Err(unreachable()),
            _ => {}
        }
        let (rules, time) = match (self.fetch().await, last) {
            (Ok(Some(rules)), _) => (rules, KNOWN),
            (_, Some((rules, _))) => (rules, UNKNOWN),
            (Ok(None), None) => (Rules::LegacyOnly, UNKNOWN),
            (Err(refusal), None) => {
                by_version.failed = Some(Instant::now());
                return Err(refusal);
            }
        };
        by_version.known = Some((rules, Instant::now() + time));
        Ok(rules)
    }

    /// Requests the version. Returns `None` if the response does not contain it.
    async fn fetch(&self) -> Result<Option<Rules>, Refusal> {
        let request = ApiRequest::get(VERSION);
        let response = self.upstream.api().request(&request).await.map_err(|error| {
            tracing::warn!(%error, "cannot get the version of the API server");
            unreachable()
        })?;
        let (code, response) = (response.status(), response.into_body());
        let rules = if code == StatusCode::OK { by_version(&response) } else { None };
        if rules.is_none() {
            tracing::warn!(
                code = code.as_u16(),
                "the API server does not report its version, which determines how impersonation is \
                 authorized; allow the proxy's user to get /version, or set \
                 --constrained-impersonation to true or false"
            );
        }
        Ok(rules)
    }
}

fn unreachable() -> Refusal {
    Refusal::unavailable(
        "the API server's version, which determines how impersonation is authorized, is not \
         available",
    )
}

/// Returns the default rules for the version in the response of `/version`.
fn by_version(response: &[u8]) -> Option<Rules> {
    let version: Version = serde_json::from_slice(response).ok()?;
    // Some distributions write `36+`.
    let digits = version.minor.split(|c: char| !c.is_ascii_digit()).next()?;
    let (major, minor): (u32, u32) = (version.major.parse().ok()?, digits.parse().ok()?);
    let constrained = (major, minor) >= (1, FIRST_CONSTRAINED);
    Some(if constrained { Rules::Constrained } else { Rules::LegacyOnly })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_decides() {
        let of = |major: &str, minor: &str| {
            let response = format!(r#"{{"major":"{major}","minor":"{minor}","gitVersion":"x"}}"#);
            by_version(response.as_bytes())
        };
        assert_eq!(of("1", "35"), Some(Rules::LegacyOnly));
        assert_eq!(of("1", "35+"), Some(Rules::LegacyOnly));
        assert_eq!(of("1", "36"), Some(Rules::Constrained));
        assert_eq!(of("1", "36+"), Some(Rules::Constrained));
        assert_eq!(of("2", "0"), Some(Rules::Constrained));
        for (major, minor) in [("", ""), ("1", ""), ("1", "+"), ("x", "36")] {
            assert_eq!(of(major, minor), None, "{major}.{minor}");
        }
        assert_eq!(by_version(b"ok"), None);
    }
}
