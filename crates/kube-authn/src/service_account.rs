//! Verifies ServiceAccount tokens with the cluster's own keys: tokens with an audience and an
//! expiry, and legacy tokens from secrets.
//!
//! Only the API server knows whether the account, pod or secret still exists.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::Deserialize;

use super::UserInfo;
use super::jwt::{Jwt, one_or_many};
use super::key_file::{self, KeyFileError, NamedKey};
use super::upstream_keys::{Published, UpstreamKeys};
use super::verified::{Verified, numeric_date};

/// The default issuers of clusters.
const USUAL_ISSUERS: [&str; 2] =
    ["https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"];

/// Returns the issuers of ServiceAccount tokens, which other authenticators must not use: the
/// configured ones, or else the default ones.
pub fn issuers_or_usual(configured: &[String]) -> Vec<String> {
    match configured {
        [] => USUAL_ISSUERS.map(str::to_owned).to_vec(),
        issuers => issuers.to_vec(),
    }
}

/// The issuer of legacy tokens.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Annotation of tokens without an audience.
const LEGACY_TOKEN: &str = "authentication.k8s.io/legacy-token";
/// Annotation of tokens that should have been renewed.
const STALE_TOKEN: &str = "authentication.k8s.io/stale-token";
/// Maximum difference between the clocks of this machine and of the issuer (go-jose's default).
const LEEWAY: Duration = Duration::from_secs(60);

/// Verifies the ServiceAccount tokens of this cluster.
pub struct ServiceAccounts {
    files: Vec<PathBuf>,
    keys: ArcSwap<Vec<NamedKey>>,
    upstream: Option<Arc<UpstreamKeys>>,
    /// Empty if the issuer is the one that the API server publishes.
    issuers: Vec<String>,
    /// Empty if the audience is the issuer that the API server publishes, or any if it publishes
    /// none.
    audiences: Vec<String>,
}

/// Why a token of the cluster's issuer is rejected, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceAccountError {
    /// The API server's keys could not be fetched yet.
    #[error("the API server's keys of service account tokens are not known yet")]
    NotReady,
    /// The token names an unknown key.
    #[error("invalid signature, no keys found")]
    UnknownKey,
    /// No known key signed the token.
    #[error("invalid signature")]
    Signature,
    /// The claims cannot be parsed.
    #[error("service account token claims cannot be read: {0}")]
    Claims(String),
    /// A required claim is missing or wrong.
    #[error("{0}")]
    Claim(&'static str),
    /// The token has other audiences.
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    /// The time in `exp` has passed.
    #[error("service account token has expired")]
    Expired,
    /// The time in `nbf` is in the future.
    #[error("service account token is not valid yet")]
    NotValidYet,
    /// The time in `iat` is in the future.
    #[error("service account token is issued in the future")]
    IssuedInTheFuture,
}

/// Claims of both kinds of tokens.
#[derive(Deserialize)]
struct Public {
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    aud: Vec<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
}

#[derive(Deserialize)]
struct Bound {
    #[serde(rename = "kubernetes.io", default)]
    kubernetes: Kubernetes,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Kubernetes {
    namespace: String,
    serviceaccount: Reference,
    pod: Option<Reference>,
    node: Option<Reference>,
    /// When the kubelet should have renewed the token. The token is valid longer, for clients that
    /// do not reload it.
    warnafter: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reference {
    name: String,
    uid: String,
}

#[derive(Deserialize)]
struct Legacy {
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", default)]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", default)]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", default)]
    name: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", default)]
    uid: String,
}

impl ServiceAccounts {
    /// Loads the keys of `files`; the keys of `upstream` are accepted, too. If `issuers` is empty,
    /// the issuer is the one that the API server publishes. `audiences` are those of the API
    /// server. If there are none, its issuer is the audience; if that is unknown, too, any audience
    /// is accepted.
    ///
    /// # Errors
    /// Returns an error for the first file that cannot be used.
    pub fn load(
        files: Vec<PathBuf>,
        upstream: Option<Arc<UpstreamKeys>>,
        issuers: Vec<String>,
        audiences: Vec<String>,
    ) -> Result<ServiceAccounts, KeyFileError> {
        let keys = ArcSwap::from_pointee(read(&files)?);
        Ok(ServiceAccounts { files, keys, upstream, issuers, audiences })
    }

    /// Reloads the keys.
    ///
    /// # Errors
    /// Returns an error for the first file that cannot be used; the current keys stay active.
    pub fn reload(&self) -> Result<(), KeyFileError> {
        self.keys.store(read(&self.files)?.into());
        Ok(())
    }

    /// Verifies `token` at the time `now` and returns its user; `None` if it has another issuer.
    /// Waits only for the API server's keys, and only if the token names an unknown key.
    ///
    /// # Errors
    /// See [`ServiceAccountError`].
    pub async fn verify(
        &self,
        token: &Jwt<'_>,
        now: SystemTime,
    ) -> Result<Option<Verified>, ServiceAccountError> {
        let issuer = token.issuer();
        let is_legacy = issuer == LEGACY_ISSUER;
        let published = self.upstream.as_ref().and_then(|upstream| upstream.keys());
        if !is_legacy && !self.is_ours(&issuer, published.as_deref())? {
            return Ok(None);
        }
        let published = self.check_signature(token, published).await?;
        let public: Public = claims(token)?;
        self.check_audience(&public.aud, published.as_deref())?;
        let subject = public.sub.clone().unwrap_or_default();
        let mut annotations = Vec::new();
        if public.aud.is_empty() {
            annotations.push((LEGACY_TOKEN, subject.clone()));
        }
        if is_legacy {
            let user = legacy_user(&public, claims(token)?)?;
            return Ok(Some(Verified { user, expires: None, annotations }));
        }
        let expires = check_time(&public, now)?;
        let Bound { kubernetes } = claims(token)?;
        if let Some(seconds) = seconds_stale(&kubernetes, now) {
            let text = format!("subject: {subject}, seconds after warning threshold: {seconds}");
            annotations.push((STALE_TOKEN, text));
        }
        Ok(Some(Verified { user: bound_user(public, kubernetes)?, expires, annotations }))
    }

    /// Returns whether `issuer` is the cluster's.
    fn is_ours(
        &self,
        issuer: &str,
        published: Option<&Published>,
    ) -> Result<bool, ServiceAccountError> {
        match (self.issuers.as_slice(), published) {
            ([], Some(published)) => Ok(published.issuer == issuer),
            ([], None) => Err(ServiceAccountError::NotReady),
            (issuers, _) => Ok(issuers.iter().any(|ours| ours == issuer)),
        }
    }

    /// Verifies the signature. If the token names an unknown key, the API server's keys are fetched
    /// first. Returns the published keys that were used.
    async fn check_signature(
        &self,
        token: &Jwt<'_>,
        published: Option<Arc<Published>>,
    ) -> Result<Option<Arc<Published>>, ServiceAccountError> {
        let verdict = self.validate(token, published.as_deref());
        let (Err(ServiceAccountError::UnknownKey), Some(upstream)) = (&verdict, &self.upstream)
        else {
            return verdict.map(|()| published);
        };
        upstream.fetch_for_token(published.as_ref()).await;
        match upstream.keys() {
            Some(published) => self.validate(token, Some(&published)).map(|()| Some(published)),
            None => Err(ServiceAccountError::NotReady),
        }
    }

    fn validate(
        &self,
        token: &Jwt<'_>,
        published: Option<&Published>,
    ) -> Result<(), ServiceAccountError> {
        let own = self.keys.load();
        let mut candidates = own
            .iter()
            .chain(published.map_or(&[][..], |published| &published.keys))
            .filter(|key| token.key_id.is_empty() || token.key_id == key.id)
            .peekable();
        if candidates.peek().is_none() {
            return Err(ServiceAccountError::UnknownKey);
        }
        match candidates.any(|key| token.is_signed_by(&key.key)) {
            true => Ok(()),
            false => Err(ServiceAccountError::Signature),
        }
    }

    fn check_audience(
        &self,
        audiences: &[String],
        published: Option<&Published>,
    ) -> Result<(), ServiceAccountError> {
        let ours = match (self.audiences.as_slice(), published) {
            ([], Some(published)) => std::slice::from_ref(&published.issuer),
            (ours, _) => ours,
        };
        let accepted = audiences.is_empty()
            || ours.is_empty()
            || audiences.iter().any(|audience| ours.contains(audience));
        match accepted {
            true => Ok(()),
            false => Err(ServiceAccountError::Audience(audiences.to_vec(), ours.to_vec())),
        }
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<NamedKey>, KeyFileError> {
    let mut keys = Vec::new();
    for file in files {
        keys.extend(key_file::load(file)?);
    }
    Ok(keys)
}

fn claims<'t, T: Deserialize<'t>>(token: &'t Jwt<'_>) -> Result<T, ServiceAccountError> {
    serde_json::from_slice(&token.claims)
        .map_err(|error| ServiceAccountError::Claims(error.to_string()))
}

/// Validates the times like kube-apiserver. Returns when the token expires.
fn check_time(public: &Public, now: SystemTime) -> Result<Option<SystemTime>, ServiceAccountError> {
    let latest = now + LEEWAY;
    if public.nbf.and_then(numeric_date).is_some_and(|nbf| latest < nbf) {
        return Err(ServiceAccountError::NotValidYet);
    }
    let expires = public.exp.and_then(numeric_date).and_then(|exp| exp.checked_add(LEEWAY));
    if expires.is_some_and(|expires| now > expires) {
        return Err(ServiceAccountError::Expired);
    }
    if public.iat.and_then(numeric_date).is_some_and(|iat| latest < iat) {
        return Err(ServiceAccountError::IssuedInTheFuture);
    }
    Ok(expires)
}

/// Returns the number of seconds since the token should have been renewed; `None` if it need not be
/// yet.
fn seconds_stale(claims: &Kubernetes, now: SystemTime) -> Option<u64> {
    let warn_after = claims.warnafter.filter(|seconds| *seconds != 0.0).and_then(numeric_date)?;
    if now <= warn_after {
        return None;
    }
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|d| d.as_secs()).ok();
    Some(seconds(now)?.saturating_sub(seconds(warn_after)?))
}

fn bound_user(public: Public, claims: Kubernetes) -> Result<UserInfo, ServiceAccountError> {
    let Kubernetes { namespace, serviceaccount, pod, node, .. } = claims;
    if namespace.is_empty() || serviceaccount.name.is_empty() {
        return Err(ServiceAccountError::Claim("kubernetes.io claim is missing"));
    }
    let mut user = service_account(&namespace, &serviceaccount.name, serviceaccount.uid);
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    if let Some(jti) = public.jti.filter(|jti| !jti.is_empty()) {
        add("credential-id", format!("JTI={jti}"));
    }
    if let Some(Reference { name, uid }) = pod
        && !name.is_empty()
        && !uid.is_empty()
    {
        add("pod-name", name);
        add("pod-uid", uid);
    }
    if let Some(Reference { name, uid }) = node
        && !name.is_empty()
    {
        add("node-name", name);
        if !uid.is_empty() {
            add("node-uid", uid);
        }
    }
    user.extra = extra;
    Ok(user)
}

fn legacy_user(public: &Public, legacy: Legacy) -> Result<UserInfo, ServiceAccountError> {
    let Legacy { namespace, secret, name, uid } = legacy;
    let sub = public.sub.as_deref().unwrap_or("");
    for (value, missing) in [
        (sub, "sub claim is missing"),
        (&namespace, "namespace claim is missing"),
        (&secret, "secretName claim is missing"),
        (&name, "serviceAccountName claim is missing"),
        (&uid, "serviceAccountUID claim is missing"),
    ] {
        if value.is_empty() {
            return Err(ServiceAccountError::Claim(missing));
        }
    }
    let user = service_account(&namespace, &name, uid);
    if user.username != sub {
        return Err(ServiceAccountError::Claim("sub claim is invalid"));
    }
    Ok(user)
}

fn service_account(namespace: &str, name: &str, uid: String) -> UserInfo {
    let user = UserInfo {
        username: format!("system:serviceaccount:{namespace}:{name}"),
        uid,
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ],
        extra: BTreeMap::new(),
    };
    user.into_authenticated()
}

#[cfg(test)]
mod tests;
