//! Whether a server accepts the proxy's own credentials.
//!
//! A 401 to a request that carries the proxy's credentials, and a 401 or 403 to a review of its
//! own, are failures of the proxy and not of its clients. They are logged once a minute, and make
//! the proxy not ready until a probe finds that access is granted again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::client::{ApiClient, ApiRequest, WeakApiClient};
use crate::log_limit::LogLimit;

/// Interval of probes while access is denied.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the result of a probe that found the credentials accepted is used.
const ACCEPTED_TTL: Duration = Duration::from_secs(2);
/// Minimum time between two warnings about the same kind of access.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The proxy's own user where its certificate is a front proxy's, which names no user.
const OWN_NAME: HeaderValue = HeaderValue::from_static("kube-audit-proxy");

/// A use of the proxy's own credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Forwards requests.
    Forward,
    /// Creates SubjectAccessReviews.
    SubjectAccessReview,
    /// Creates TokenReviews.
    TokenReview,
}

impl Access {
    /// All, with their names in metrics.
    pub const ALL: [(Access, &'static str); 3] = [
        (Access::Forward, "forward"),
        (Access::SubjectAccessReview, "subjectaccessreview"),
        (Access::TokenReview, "tokenreview"),
    ];
}

/// Why access is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// 401: the credentials are not valid.
    Unauthorized,
    /// 403: they are valid, but lack a permission.
    Forbidden,
}

impl Denial {
    /// Returns the denial that this status code means.
    pub fn of(code: StatusCode) -> Option<Denial> {
        match code {
            StatusCode::UNAUTHORIZED => Some(Denial::Unauthorized),
            StatusCode::FORBIDDEN => Some(Denial::Forbidden),
            _ => None,
        }
    }

    /// Describes the denial to clients and in events. Names no credential.
    pub fn message(self, access: Access) -> &'static str {
        match (self, access) {
            (Denial::Unauthorized, Access::Forward) => {
                "the API server rejected the proxy's own credentials (401), not yours; the administrator of kube-audit-proxy must replace its token or client certificate"
            }
            (Denial::Unauthorized, Access::SubjectAccessReview) => {
                "impersonation cannot be authorized: the API server rejected the proxy's own credentials (401); the administrator of kube-audit-proxy must replace its token or client certificate"
            }
            (Denial::Unauthorized, Access::TokenReview) => {
                "tokens cannot be authenticated: the TokenReview endpoint rejected the proxy's own credentials (401); the administrator of kube-audit-proxy must replace its token or client certificate"
            }
            (Denial::Forbidden, Access::Forward) => {
                "the API server does not permit the proxy to forward requests (403)"
            }
            (Denial::Forbidden, Access::SubjectAccessReview) => {
                "impersonation cannot be authorized: the proxy is not permitted to create SubjectAccessReviews (403); the administrator of kube-audit-proxy must grant its user the verb create on subjectaccessreviews.authorization.k8s.io"
            }
            (Denial::Forbidden, Access::TokenReview) => {
                "tokens cannot be authenticated: the proxy is not permitted to create TokenReviews (403); the administrator of kube-audit-proxy must grant its user the verb create on tokenreviews.authentication.k8s.io"
            }
        }
    }

    fn advice(self, access: Access) -> &'static str {
        match (self, access) {
            (Denial::Unauthorized, _) => {
                "replace the expired or unknown credentials: --kubeconfig, --upstream-token-file or --upstream-client-cert-file; for --upstream-identity=request-header the certificate's CA and common name must be those of kube-apiserver's --requestheader-client-ca-file and --requestheader-allowed-names; for a token webhook see its kubeconfig"
            }
            (Denial::Forbidden, Access::TokenReview) => {
                "bind the ClusterRole system:auth-delegator to the proxy's user, or grant it the verb create on tokenreviews.authentication.k8s.io"
            }
            (Denial::Forbidden, _) => {
                "grant the proxy's user the verb create on subjectaccessreviews.authorization.k8s.io"
            }
        }
    }
}

/// A request that shows whether access is granted.
#[derive(Debug, Clone)]
pub struct Probe {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Probe {
    /// Posts `body` to `path`. A response other than 401 and 403 means that access is granted, so
    /// the review may be empty.
    pub fn post(path: &str, headers: HeaderMap, body: &'static [u8]) -> Probe {
        let body = Bytes::from_static(body);
        Probe { method: Method::POST, path: path.to_owned(), headers, body }
    }

    fn version(as_front_proxy: bool) -> Probe {
        let name = HeaderName::from_static("x-remote-user");
        let headers = HeaderMap::from_iter(as_front_proxy.then_some((name, OWN_NAME)));
        Probe { method: Method::GET, path: "/version".to_owned(), headers, body: Bytes::new() }
    }

    fn request(&self) -> ApiRequest<'_> {
        let mut request = match self.method {
            Method::POST => ApiRequest::post(&self.path, self.body.clone()),
            _ => ApiRequest::get(&self.path),
        };
        request.headers.extend(self.headers.clone());
        request.timeout = PROBE_TIMEOUT;
        request
    }
}

/// The access that a server is known to deny.
#[derive(Default)]
struct KnownDenial {
    /// Whether there is any; looked at before the lock is taken.
    is_denied: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    denied: [Option<(Denial, Probe)>; Access::ALL.len()],
    is_probing: bool,
    accepted: Option<Instant>,
}

static WARNINGS: [LogLimit; Access::ALL.len()] =
    [const { LogLimit::new(WARNING_INTERVAL) }; Access::ALL.len()];

impl KnownDenial {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn denial(&self, access: Access) -> Option<Denial> {
        if !self.is_denied.load(Ordering::Relaxed) {
            return None;
        }
        self.lock().denied[access as usize].as_ref().map(|(denial, _)| *denial)
    }

    fn grant(&self, access: Access) {
        let mut state = self.lock();
        if state.denied[access as usize].take().is_some() {
            tracing::info!(
                access = access_name(access),
                "the proxy's own access to the API server is granted again"
            );
        }
        self.is_denied.store(state.denied.iter().any(Option::is_some), Ordering::Relaxed);
    }

    /// Notes that access is denied; returns whether a task has to be started that probes it.
    fn deny(&self, access: Access, denial: Denial, probe: Probe) -> bool {
        let mut state = self.lock();
        state.denied[access as usize] = Some((denial, probe));
        self.is_denied.store(true, Ordering::Relaxed);
        !std::mem::replace(&mut state.is_probing, true)
    }

    fn probes(&self) -> Vec<(Access, Probe)> {
        let mut state = self.lock();
        let all = Access::ALL.iter().zip(&state.denied);
        let probes: Vec<_> = all
            .filter_map(|((access, _), denied)| Some((*access, denied.as_ref()?.1.clone())))
            .collect();
        state.is_probing = !probes.is_empty();
        probes
    }
}

fn access_name(access: Access) -> &'static str {
    Access::ALL[access as usize].1
}

fn warn(upstream: &str, access: Access, denial: Denial) {
    if let Some(suppressed) = WARNINGS[access as usize].pass() {
        tracing::warn!(
            upstream,
            access = access_name(access),
            suppressed,
            remedy = denial.advice(access),
            "{}",
            denial.message(access)
        );
    }
}

/// The state of the access to one server. Cheap to clone.
#[derive(Clone)]
pub struct OwnAccess {
    client: ApiClient,
    known: Arc<KnownDenial>,
}

impl OwnAccess {
    /// Tracks the access of `client`.
    pub fn new(client: ApiClient) -> OwnAccess {
        OwnAccess { client, known: Arc::default() }
    }

    /// The server denied the proxy's own access: logs it, makes the proxy not ready, and probes
    /// until access is granted. Must be called within a tokio runtime.
    pub fn denied(&self, access: Access, denial: Denial, probe: Probe) {
        warn(&self.client.authority(), access, denial);
        if self.known.deny(access, denial, probe) {
            let (client, known) = (self.client.downgrade(), Arc::downgrade(&self.known));
            tokio::spawn(probe_until_granted(client, known));
        }
    }

    /// The server granted the proxy's own access.
    pub fn granted(&self, access: Access) {
        if self.known.is_denied.load(Ordering::Relaxed) {
            self.known.grant(access);
        }
    }

    /// Returns why this access is denied, if it is.
    pub fn denial(&self, access: Access) -> Option<Denial> {
        self.known.denial(access)
    }

    /// Reports what keeps the proxy from using the server: a credential plugin without a valid
    /// credential, or denied access.
    ///
    /// # Errors
    /// Returns the reason, for `/readyz`.
    pub fn check(&self) -> Result<(), String> {
        if let Some(plugin) = self.client.target().plugin() {
            plugin.check().map_err(|error| error.to_string())?;
        }
        let denied = |(access, _)| Some(self.denial(access)?.message(access).to_owned());
        match Access::ALL.into_iter().find_map(denied) {
            Some(message) => Err(message),
            None => Ok(()),
        }
    }

    /// The API server responded 401 to a forwarded request. Returns whether that is about the
    /// proxy's own credentials. If it `may_be_relayed`, a server behind the API server may have
    /// responded (an aggregated API, a kubelet, a proxied service); the proxy then sends the API
    /// server a request of its own to determine that.
    pub async fn are_credentials_rejected(
        &self,
        may_be_relayed: bool,
        as_front_proxy: bool,
    ) -> bool {
        let probe = Probe::version(as_front_proxy);
        let is_rejected = !may_be_relayed
            || self.denial(Access::Forward).is_some()
            || self.is_probe_rejected(&probe).await;
        if is_rejected {
            self.denied(Access::Forward, Denial::Unauthorized, probe);
        }
        is_rejected
    }

    /// Returns whether the server responds 401 to a request with the current credential, which is
    /// not renewed.
    pub async fn is_current_credential_rejected(&self, as_front_proxy: bool) -> bool {
        let probe = Probe::version(as_front_proxy);
        let response = self.client.request_without_renewal(&probe.request()).await;
        response.is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED)
    }

    async fn is_probe_rejected(&self, probe: &Probe) -> bool {
        let accepted = self.known.lock().accepted;
        if accepted.is_some_and(|at| at.elapsed() < ACCEPTED_TTL) {
            return false;
        }
        match self.client.request(&probe.request()).await {
            Ok(response) if response.status() == StatusCode::UNAUTHORIZED => true,
            Ok(_) => {
                // A credential that is renewed may expire within that time.
                if self.client.target().plugin().is_none() {
                    self.known.lock().accepted = Some(Instant::now());
                }
                false
            }
            // Without knowing better, the client gets what the API server sent.
            Err(_) => false,
        }
    }
}

/// Probes what is denied until nothing is, or the client is gone.
async fn probe_until_granted(client: WeakApiClient, known: Weak<KnownDenial>) {
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let (Some(client), Some(known)) = (client.upgrade(), known.upgrade()) else { return };
        let probes = known.probes();
        if probes.is_empty() {
            return;
        }
        for (access, probe) in probes {
            // While the server cannot be reached, nothing is known.
            let Ok(response) = client.request(&probe.request()).await else { continue };
            let denial = match (access, Denial::of(response.status())) {
                (Access::Forward, Some(Denial::Forbidden)) | (_, None) => None,
                (_, denial) => denial,
            };
            match denial {
                Some(denial) => {
                    warn(&client.authority(), access, denial);
                    known.deny(access, denial, probe);
                }
                None => known.grant(access),
            }
        }
    }
}
