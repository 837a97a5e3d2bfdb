//! Authenticates clients like kube-apiserver: front proxies, client certificates, bearer tokens,
//! and anonymous requests.

mod anonymous;
mod bearer;
mod cel;
mod fair_queue;
pub mod issuer_url;
mod jose_json;
mod jwk;
mod jwt;
mod key_file;
mod metrics;
mod oidc;
mod remote_keys;
mod request_header;
mod service_account;
mod structured;
mod token_cache;
mod token_file;
mod token_review;
mod token_webhook;
mod tokens;
mod upstream_keys;
mod verified;
pub mod websocket;
mod x509;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, header};

pub use k8s_audit::user::{
    ANONYMOUS, AUTHENTICATED, IdentityHeaders, UNAUTHENTICATED, User, UserInfo,
};

pub use anonymous::Anonymous;
pub use cel::{CompileError, Expression, compile_regexp};
pub use jwt::Algorithm;
pub use key_file::KeyFileError;
pub use metrics::AuthenticationMetrics;
pub use oidc::{
    CaSource, ClaimRule, IssuerError, IssuerSettings, JwtAuthenticators, JwtSettings, NameMapping,
};
pub use request_header::{RequestHeader, RequestHeaderNames};
pub use service_account::{ServiceAccounts, issuers_or_usual};
pub use structured::{AuthenticationConfigFile, ConfigFileError, LoadError};
pub use token_cache::{TokenCache, TokenUser};
pub use token_file::{TokenFile, TokenFileError};
pub use token_review::{TokenReview, TokenReviewSettings};
pub use token_webhook::{TokenWebhook, WebhookVersion};
pub use tokens::UnionTokenAuthenticator;
pub use upstream_keys::{UpstreamKeys, upstream_keys};
pub use x509::{CertificateError, ClientCa, ClientCaError, ClientCertificates};

use api_client::access::Denial;
use k8s_audit::request::query;

/// The configured authentication methods, tried in kube-apiserver's order.
///
/// Each method returns a user, no opinion, or an error for invalid credentials. The first user
/// counts, even if an earlier method has found invalid credentials. If there is none, invalid
/// credentials result in a 401, and a request without credentials is anonymous, if that is allowed.
pub struct Authenticator {
    /// `--requestheader-*`
    pub request_header: Option<RequestHeader>,
    /// `--client-ca-file`
    pub client_ca: Option<Arc<ClientCa>>,
    /// Bearer tokens.
    pub tokens: UnionTokenAuthenticator,
    /// Which requests may be anonymous: `--anonymous-auth`, or the active file of
    /// `--authentication-config`.
    pub anonymous: Arc<ArcSwap<Anonymous>>,
    /// The user of anonymous requests.
    pub anonymous_user: Arc<User>,
}

/// The user who sent a request, and the method of authentication.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// The user.
    pub user: Arc<User>,
    /// The method.
    pub method: Method,
    /// Annotations for the events of the request, sorted by key; usually none.
    pub annotations: Option<Arc<[(&'static str, String)]>>,
}

impl Authenticated {
    fn new(user: Arc<User>, method: Method) -> Authenticated {
        Authenticated { user, method, annotations: None }
    }

    fn by_token(known: TokenUser) -> Authenticated {
        let TokenUser { user, annotations } = known;
        Authenticated { user, method: Method::Token, annotations }
    }
}

/// A method of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Headers from a front proxy.
    FrontProxy,
    /// A client certificate.
    Certificate,
    /// A bearer token.
    Token,
    /// No credentials.
    Anonymous,
}

/// Why a request has no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationError {
    /// 401: the credentials are invalid, or there are none and anonymous requests are not allowed.
    Unauthorized,
    /// The credentials cannot be verified at the moment: 503.
    Unavailable,
}

impl Authenticator {
    /// Returns why TokenReviews are denied to the proxy, if they are.
    pub fn token_review_denial(&self) -> Option<Denial> {
        self.tokens.review.as_ref()?.denial()
    }

    /// Authenticates a request to the decoded `path` over a connection from `peer`.
    ///
    /// # Errors
    /// See [`AuthenticationError`]; the reason is in the debug log.
    pub async fn authenticate(
        &self,
        peer: IpAddr,
        certificates: Option<&ClientCertificates>,
        headers: &HeaderMap,
        path: &[u8],
    ) -> Result<Authenticated, AuthenticationError> {
        let mut bad_credentials = false;
        let mut unavailable = false;
        if let (Some(certificates), Some(proxies)) = (certificates, &self.request_header) {
            match proxies.user(certificates, headers) {
                Ok(Some(user)) => return Ok(Authenticated::new(user, Method::FrontProxy)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "no front proxy");
                    bad_credentials = true;
                }
            }
        }
        if let (Some(certificates), Some(ca)) = (certificates, &self.client_ca) {
            match certificates.user(ca) {
                Ok(Some(user)) => return Ok(Authenticated::new(user, Method::Certificate)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "bad client certificate");
                    bad_credentials = true;
                }
            }
        }
        if let Some(token) = bearer::token(headers) {
            match self.tokens.user(token, peer.into()).await {
                Ok(known) => return Ok(Authenticated::by_token(known)),
                Err(AuthenticationError::Unauthorized) => bad_credentials = true,
                Err(AuthenticationError::Unavailable) => unavailable = true,
            }
        }
        match websocket::token(headers) {
            Ok(None) => {}
            Ok(Some(token)) => match self.tokens.user(&token, peer.into()).await {
                Ok(known) => return Ok(Authenticated::by_token(known)),
                Err(AuthenticationError::Unauthorized) => bad_credentials = true,
                Err(AuthenticationError::Unavailable) => unavailable = true,
            },
            Err(error) => {
                tracing::debug!(%error, "bad WebSocket handshake");
                bad_credentials = true;
            }
        }
        if unavailable {
            return Err(AuthenticationError::Unavailable);
        }
        if bad_credentials || !self.anonymous.load().allows(path) {
            return Err(AuthenticationError::Unauthorized);
        }
        Ok(Authenticated::new(self.anonymous_user.clone(), Method::Anonymous))
    }
}

impl Authenticator {
    /// Removes the headers in which front proxies name the user.
    pub fn remove_front_proxy_headers(&self, headers: &mut HeaderMap) {
        if let Some(proxies) = &self.request_header {
            proxies.remove_headers(headers);
        }
    }
}

/// Returns the failed authentication methods in the words of kube-apiserver's audit events. They
/// are recorded only if the 401 cannot be encoded in a format that the client accepts.
pub fn attempted(headers: &HeaderMap, query: Option<&str>, certificate: bool) -> String {
    let authorization = headers.get(header::AUTHORIZATION).map_or(&[][..], |v| v.as_bytes());
    let mut parts = authorization.split(|b| *b == b' ');
    let (scheme, rest) = (parts.next().unwrap_or_default(), parts.next());
    let mut methods = Vec::new();
    let is_basic = scheme.eq_ignore_ascii_case(b"basic")
        && rest.and_then(|text| BASE64.decode(text).ok()).is_some_and(|text| text.contains(&b':'));
    if is_basic {
        methods.push("basic");
    }
    if scheme.eq_ignore_ascii_case(b"bearer") && rest.is_some() {
        methods.push("bearer");
    }
    let token = query.and_then(|query| query::first(query, "access_token"));
    if token.is_some_and(|token| !token.trim_ascii().is_empty()) {
        methods.push("access_token");
    }
    if certificate {
        methods.push("x509");
    }
    if methods.is_empty() {
        return "Authentication failed, no credentials provided".into();
    }
    format!("Authentication failed, attempted: {}", methods.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn attempts_are_counted() {
        let none = "Authentication failed, no credentials provided";
        assert_eq!(attempted(&HeaderMap::new(), Some("a=b&access_token="), false), none);
        assert_eq!(attempted(&authorization("Basic !!"), None, false), none);
        assert_eq!(
            attempted(&authorization("basic YTpi"), Some("access_token=x"), true),
            "Authentication failed, attempted: basic, access_token, x509"
        );
        assert_eq!(
            attempted(&authorization("Bearer x"), None, false),
            "Authentication failed, attempted: bearer"
        );
    }

    #[tokio::test]
    async fn bad_credentials_are_never_anonymous() {
        let chain = Authenticator {
            request_header: None,
            client_ca: None,
            tokens: UnionTokenAuthenticator {
                file: None,
                service_accounts: None,
                oidc: None,
                review: None,
                cache: Arc::new(TokenCache::with_random_key(Arc::default())),
            },
            anonymous: Arc::new(ArcSwap::from_pointee(Anonymous::Everywhere)),
            anonymous_user: Arc::new(UserInfo::anonymous().into()),
        };
        let peer = IpAddr::from([127, 0, 0, 1]);
        let none = HeaderMap::new();
        let user = chain.authenticate(peer, None, &none, b"/api").await.unwrap();
        assert_eq!((user.user.username.as_str(), user.method), (ANONYMOUS, Method::Anonymous));
        let bad = chain.authenticate(peer, None, &authorization("Bearer x"), b"/livez").await;
        assert!(bad.is_err());
        let basic = authorization("Basic YTpi");
        let basic = chain.authenticate(peer, None, &basic, b"/").await.unwrap();
        assert_eq!(basic.user.username, ANONYMOUS);
        chain.anonymous.store(Arc::new(Anonymous::Paths(vec!["/livez".into()])));
        assert!(chain.authenticate(peer, None, &none, b"/livez").await.is_ok());
        assert!(chain.authenticate(peer, None, &none, b"/livez/ping").await.is_err());
        chain.anonymous.store(Arc::new(Anonymous::Nowhere));
        assert!(chain.authenticate(peer, None, &none, b"/api").await.is_err());
    }
}
