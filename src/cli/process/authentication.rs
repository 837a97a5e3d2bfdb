//! The authenticators that the configuration asks for.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;

use super::follow::Follow;
use crate::config::{Authentication, Issuers};
use crate::file_watch::{FileWatcher, Reloaded};
use crate::upstream::{KubeconfigFile, Upstream, UpstreamConfig};
use kube_authn::{
    Anonymous, AuthenticationConfigFile, Authenticator, ClientCa, ClientCaError, JwtAuthenticators,
    JwtSettings, RequestHeader, ServiceAccounts, TokenCache, TokenFile, TokenReview,
    UnionTokenAuthenticator, UserInfo, issuers_or_usual, upstream_keys,
};

pub(super) fn authenticator(
    settings: &Authentication,
    upstream: &Upstream,
    as_front_proxy: bool,
    follow: &Follow,
) -> anyhow::Result<Authenticator> {
    let client_ca = match &settings.client_ca_file {
        Some(path) => Some(
            follow_ca(path, Some(settings), Reloaded::ClientCa, follow)
                .context("--client-ca-file")?,
        ),
        None => None,
    };
    let request_header = match &settings.request_header {
        Some(proxies) => {
            let path = &proxies.client_ca_file;
            let ca = follow_ca(path, None, Reloaded::FrontProxyCa, follow)
                .context("--requestheader-client-ca-file")?;
            let (allowed, names) = (proxies.allowed_names.clone(), proxies.names.clone());
            Some(RequestHeader::new(ca, allowed, names))
        }
        None => None,
    };
    let cache = Arc::new(TokenCache::with_random_key(follow.metrics.authentication.clone()));
    let Configured { oidc, anonymous } = configured(settings, &cache, follow)?;
    Ok(Authenticator {
        request_header,
        client_ca,
        tokens: tokens(settings, upstream, as_front_proxy, cache, oidc, follow)?,
        anonymous,
        anonymous_user: Arc::new(UserInfo::anonymous().into()),
    })
}

/// The result of an authentication configuration, from a file or from flags.
struct Configured {
    /// The issuers, if there may be any.
    oidc: Option<Arc<JwtAuthenticators>>,
    /// Where requests may be anonymous.
    anonymous: Arc<ArcSwap<Anonymous>>,
}

fn configured(
    settings: &Authentication,
    cache: &Arc<TokenCache>,
    follow: &Follow,
) -> anyhow::Result<Configured> {
    let by_flag = Anonymous::from(settings.anonymous_auth.unwrap_or(true));
    let anonymous = Arc::new(ArcSwap::from_pointee(by_flag));
    match &settings.issuers {
        Issuers::None => Ok(Configured { oidc: None, anonymous }),
        Issuers::Flags(issuer) => {
            let issuers = vec![JwtSettings::clone(issuer)];
            let issuers = JwtAuthenticators::new(issuers, follow.metrics.authentication.clone())
                .context("--oidc-ca-file")?;
            Ok(Configured { oidc: Some(Arc::new(issuers)), anonymous })
        }
        Issuers::File(path) => {
            let watcher = FileWatcher::new(vec![path.clone()]);
            let accounts = settings.service_accounts.as_ref();
            let file = AuthenticationConfigFile::open(
                path,
                issuers_or_usual(accounts.map_or(&[], |accounts| &accounts.issuers)),
                settings.anonymous_auth,
                cache.clone(),
                follow.metrics.authentication.clone(),
            )
            .context("--authentication-config")?;
            let (oidc, anonymous) = (Some(file.authenticators()), file.anonymous());
            let metrics = follow.metrics.authentication.clone();
            follow.spawn_counting(
                Reloaded::AuthenticationConfig,
                watcher,
                move || file.reload(),
                move |succeeded| metrics.config_reloaded(succeeded),
            );
            Ok(Configured { oidc, anonymous })
        }
    }
}

fn tokens(
    settings: &Authentication,
    upstream: &Upstream,
    as_front_proxy: bool,
    cache: Arc<TokenCache>,
    oidc: Option<Arc<JwtAuthenticators>>,
    follow: &Follow,
) -> anyhow::Result<UnionTokenAuthenticator> {
    let file = settings.token_auth_file.as_deref().map(|path| TokenFile::load(path, &cache));
    let file = file.transpose().context("--token-auth-file")?;
    let service_accounts = match &settings.service_accounts {
        Some(tokens) => {
            let watcher = FileWatcher::new(tokens.key_files.clone());
            let (files, issuers) = (tokens.key_files.clone(), tokens.issuers.clone());
            let fetched = tokens
                .keys_from_upstream
                .then(|| upstream_keys(upstream.api().clone(), as_front_proxy));
            let audiences = settings.audiences.clone();
            let accounts = ServiceAccounts::load(files, fetched, issuers, audiences)
                .context("--service-account-key-file")?;
            let accounts = Arc::new(accounts);
            let (followed, cache) = (accounts.clone(), cache.clone());
            follow.spawn(Reloaded::ServiceAccountKeys, watcher, move || {
                followed.reload().map(|()| cache.clear())
            });
            Some(accounts)
        }
        None => None,
    };
    let review = settings
        .token_review
        .clone()
        .map(|settings| {
            TokenReview::new(upstream.api(), upstream.access(), settings, cache.clone())
                .map(Arc::new)
        })
        .transpose()
        .context("--authentication-token-webhook-config-file")?;
    if let Some((webhook, path)) = review.as_deref().and_then(TokenReview::webhook) {
        let owned = path.to_owned();
        let paths = [owned.clone()];
        let resolve = move || UpstreamConfig::of_webhook(&owned);
        let file = KubeconfigFile::new(Reloaded::TokenWebhookConfig, &paths, Box::new(resolve));
        follow.spawn_kubeconfig(file, webhook);
    }
    Ok(UnionTokenAuthenticator { file, service_accounts, oidc, review, cache })
}

/// Reads a CA file and follows it; `of_users` are the further settings of `--client-ca-file`.
fn follow_ca(
    path: &Path,
    of_users: Option<&Authentication>,
    what: Reloaded,
    follow: &Follow,
) -> Result<Arc<ClientCa>, ClientCaError> {
    let crl = of_users.and_then(|settings| settings.client_crl_file.as_deref());
    let allow_v1 = of_users.is_some_and(|settings| settings.client_ca_allow_x509_v1);
    let watcher =
        FileWatcher::new([Some(path), crl].into_iter().flatten().map(Path::to_owned).collect());
    let ca = Arc::new(ClientCa::load(path, crl)?.allowing_x509_v1(allow_v1));
    let followed = ca.clone();
    follow.spawn(what, watcher, move || followed.reload());
    Ok(ca)
}
