//! How clients prove who they are: the flags of authentication, checked.

use std::collections::BTreeMap;

use http::HeaderName;

use super::flags::ServeFlags;
use super::{
    Authentication, ConfigError, Issuers, RequestHeaderAuthentication,
    ServiceAccountAuthentication, fail,
};
use crate::request::source::TrustedProxies;
use crate::upstream::identity::Identity;
use kube_authn::{
    Algorithm, CaSource, ClaimRule, IssuerSettings, JwtSettings, NameMapping, RequestHeaderNames,
    TokenReviewSettings, TokenWebhook, issuer_url, issuers_or_usual,
};

pub(super) fn authentication(flags: &ServeFlags) -> Result<Authentication, ConfigError> {
    let nobody = flags.client_ca_file.is_none()
        && flags.requestheader_client_ca_file.is_none()
        && flags.token_auth_file.is_none()
        && flags.service_account_key_file.is_empty()
        && !flags.service_account_keys_from_upstream
        && flags.oidc_issuer_url.is_none()
        && flags.authentication_config.is_none()
        && !flags.authentication_token_review
        && flags.authentication_token_webhook_config_file.is_none()
        && flags.anonymous_auth == Some(false)
        && flags.upstream_identity != Identity::PassThrough;
    if nobody {
        return fail(
            "--anonymous-auth=false without another way to authenticate would refuse every request; \
             give --client-ca-file, --token-auth-file or another flag of that kind",
        );
    }
    if flags.client_crl_file.is_some() && flags.client_ca_file.is_none() {
        return fail("--client-crl-file needs --client-ca-file, the CAs that revoke");
    }
    if flags.client_ca_allow_x509_v1 && flags.client_ca_file.is_none() {
        return fail("--client-ca-allow-x509-v1 needs --client-ca-file, the CAs that sign");
    }
    let audiences = match flags.api_audiences.is_empty() {
        true => &flags.service_account_issuer,
        false => &flags.api_audiences,
    };
    Ok(Authentication {
        client_ca_file: flags.client_ca_file.clone(),
        client_crl_file: flags.client_crl_file.clone(),
        client_ca_allow_x509_v1: flags.client_ca_allow_x509_v1,
        request_header: request_header(flags)?,
        token_auth_file: flags.token_auth_file.clone(),
        service_accounts: service_accounts(flags)?,
        issuers: issuers(flags)?,
        token_review: token_review(flags, audiences)?,
        audiences: audiences.clone(),
        anonymous_auth: flags.anonymous_auth,
        trusted_proxies: match flags.trusted_proxies.as_slice() {
            [] => TrustedProxies::Everyone,
            networks => TrustedProxies::Networks(networks.to_vec()),
        },
    })
}

fn service_accounts(
    flags: &ServeFlags,
) -> Result<Option<ServiceAccountAuthentication>, ConfigError> {
    let (key_files, issuers) = (&flags.service_account_key_file, &flags.service_account_issuer);
    if issuers.iter().any(String::is_empty) {
        return fail("--service-account-issuer is empty; give the iss claim of the tokens");
    }
    let keys_from_upstream = flags.service_account_keys_from_upstream;
    if !keys_from_upstream {
        match (key_files.is_empty(), issuers.is_empty()) {
            (true, true) => return Ok(None),
            (false, false) => {}
            (false, true) => {
                return fail(
                    "--service-account-key-file needs --service-account-issuer, the iss claim of \
                     the tokens; mostly https://kubernetes.default.svc.cluster.local",
                );
            }
            (true, false) => {
                return fail(
                    "--service-account-issuer needs --service-account-key-file, the file with the \
                     key that its tokens are verified by, mostly /etc/kubernetes/pki/sa.pub; or \
                     --service-account-keys-from-upstream, to fetch it from the API server",
                );
            }
        }
    }
    Ok(Some(ServiceAccountAuthentication {
        key_files: key_files.clone(),
        keys_from_upstream,
        issuers: issuers.clone(),
    }))
}

fn token_review(
    flags: &ServeFlags,
    audiences: &[String],
) -> Result<Option<TokenReviewSettings>, ConfigError> {
    let settings = TokenReviewSettings {
        audiences: audiences.to_vec(),
        authenticated_ttl: flags.authentication_token_review_cache_authenticated_ttl,
        unauthenticated_ttl: flags.authentication_token_review_cache_unauthenticated_ttl,
        as_front_proxy: flags.upstream_identity == Identity::RequestHeader,
        webhook: None,
    };
    match (flags.authentication_token_review, &flags.authentication_token_webhook_config_file) {
        (false, None) => Ok(None),
        (true, None) => Ok(Some(settings)),
        // One lifetime for all that it says, as with kube-apiserver.
        (false, Some(file)) => Ok(Some(TokenReviewSettings {
            authenticated_ttl: flags.authentication_token_webhook_cache_ttl,
            unauthenticated_ttl: flags.authentication_token_webhook_cache_ttl,
            webhook: Some(TokenWebhook {
                file: file.clone(),
                version: flags.authentication_token_webhook_version,
            }),
            ..settings
        })),
        (true, Some(_)) => fail(
            "--authentication-token-review and --authentication-token-webhook-config-file exclude \
             each other: either the API server is asked whose a token is, or the webhook",
        ),
    }
}

fn request_header(flags: &ServeFlags) -> Result<Option<RequestHeaderAuthentication>, ConfigError> {
    let Some(client_ca_file) = flags.requestheader_client_ca_file.clone() else {
        return Ok(None);
    };
    if flags.client_ca_file.as_ref() == Some(&client_ca_file)
        && flags.requestheader_allowed_names.is_empty()
    {
        return fail(
            "--requestheader-client-ca-file and --client-ca-file are the same file: every client \
             could pose as a front proxy; give the proxies' common names in \
             --requestheader-allowed-names, or their CA a file of its own",
        );
    }
    Ok(Some(RequestHeaderAuthentication {
        client_ca_file,
        allowed_names: flags.requestheader_allowed_names.clone(),
        names: RequestHeaderNames {
            username: header_names(
                "--requestheader-username-headers",
                &flags.requestheader_username_headers,
            )?,
            uid: header_names("--requestheader-uid-headers", &flags.requestheader_uid_headers)?,
            group: header_names(
                "--requestheader-group-headers",
                &flags.requestheader_group_headers,
            )?,
            extra_prefix: header_names(
                "--requestheader-extra-headers-prefix",
                &flags.requestheader_extra_headers_prefix,
            )?,
        },
    }))
}

fn header_names(flag: &str, names: &[String]) -> Result<Vec<HeaderName>, ConfigError> {
    let header = |name: &String| {
        HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| {
            ConfigError(format!(
                "{flag}: {name:?} cannot be the name of a header; letters, digits and - can"
            ))
        })
    };
    names.iter().map(header).collect()
}

fn issuers(flags: &ServeFlags) -> Result<Issuers, ConfigError> {
    let by_flags = flags.oidc_issuer_url.is_some()
        || flags.oidc_client_id.is_some()
        || flags.oidc_username_claim.is_some()
        || flags.oidc_username_prefix.is_some()
        || flags.oidc_groups_claim.is_some()
        || flags.oidc_groups_prefix.is_some()
        || flags.oidc_ca_file.is_some()
        || !flags.oidc_required_claim.is_empty()
        || !flags.oidc_signing_algs.is_empty();
    match &flags.authentication_config {
        Some(_) if by_flags => fail(
            "--authentication-config and --oidc-* are mutually exclusive; write the issuer of the \
             flags into the file, under jwt",
        ),
        Some(file) => Ok(Issuers::File(file.clone())),
        None if by_flags => Ok(Issuers::Flags(Box::new(oidc(flags)?))),
        None => Ok(Issuers::None),
    }
}

/// The flags as kube-apiserver reads them, too: as an `AuthenticationConfiguration` of one issuer.
fn oidc(flags: &ServeFlags) -> Result<JwtSettings, ConfigError> {
    let given = |flag: &Option<String>| flag.clone().filter(|value| !value.is_empty());
    let (issuer_url, client_id) = match (
        given(&flags.oidc_issuer_url),
        given(&flags.oidc_client_id),
    ) {
        (Some(url), Some(id)) => (url, id),
        _ => {
            return fail(
                "--oidc-issuer-url, the URL of who issues tokens, and --oidc-client-id, the client \
                 that tokens are for, must both be given, and not be empty, with any --oidc-* flag",
            );
        }
    };
    if let Some(problem) = issuer_url::problems(&issuer_url).first() {
        return Err(ConfigError(format!(
            "--oidc-issuer-url: {issuer_url:?}: {problem}; give the iss claim of the tokens, such as \
             https://login.example.com"
        )));
    }
    if issuers_or_usual(&flags.service_account_issuer).contains(&issuer_url) {
        return fail(
            "--oidc-issuer-url is the issuer of ServiceAccount tokens (--service-account-issuer); \
             the two must be different issuers",
        );
    }
    let claim = flags.oidc_username_claim.as_deref().unwrap_or("sub");
    if claim.is_empty() {
        return fail(
            "--oidc-username-claim is empty; give the claim with the user name, such as sub",
        );
    }
    let username_prefix = match (flags.oidc_username_prefix.as_deref().unwrap_or(""), claim) {
        ("-", _) | ("", "email") => String::new(),
        ("", _) => format!("{issuer_url}#"),
        (prefix, _) => prefix.to_owned(),
    };
    let groups_claim = flags.oidc_groups_claim.clone().filter(|claim| !claim.is_empty());
    // As with kube-apiserver, an empty list is the default.
    let signing_algs: Vec<&str> = match flags.oidc_signing_algs.as_slice() {
        [] => vec!["RS256"],
        [one] if one.is_empty() => vec!["RS256"],
        names => names.iter().map(String::as_str).collect(),
    };
    Ok(JwtSettings {
        issuer: IssuerSettings {
            url: issuer_url,
            discovery_url: None,
            ca: flags.oidc_ca_file.clone().map_or(CaSource::System, CaSource::File),
        },
        audiences: vec![client_id],
        algorithms: signing_algs.into_iter().map(signing_algorithm).collect::<Result<_, _>>()?,
        claim_rules: required_claims(&flags.oidc_required_claim)?,
        username: NameMapping::Claim { claim: claim.to_owned(), prefix: username_prefix },
        groups: groups_claim.map(|claim| NameMapping::Claim {
            claim,
            prefix: flags.oidc_groups_prefix.clone().unwrap_or_default(),
        }),
        uid: None,
        extra: Vec::new(),
        user_rules: Vec::new(),
    })
}

/// Of several values for one claim the last one counts, as with kube-apiserver.
fn required_claims(pairs: &[String]) -> Result<Vec<ClaimRule>, ConfigError> {
    let pairs = pairs.iter().map(|pair| required_claim(pair));
    let pairs = pairs.collect::<Result<BTreeMap<_, _>, _>>()?;
    Ok(pairs.into_iter().map(|(claim, value)| ClaimRule::Required { claim, value }).collect())
}

fn required_claim(pair: &str) -> Result<(String, String), ConfigError> {
    match pair.split_once('=').map(|(claim, value)| (claim.trim(), value.trim())) {
        Some((claim, value)) if !claim.is_empty() => Ok((claim.to_owned(), value.to_owned())),
        _ => Err(ConfigError(format!(
            "--oidc-required-claim: {pair:?} is not of the form claim=value"
        ))),
    }
}

fn signing_algorithm(name: &str) -> Result<Algorithm, ConfigError> {
    Algorithm::from_name(name).ok_or_else(|| {
        ConfigError(format!(
            "--oidc-signing-algs: {name:?} is not supported; supported are: RS256, RS384, RS512, \
             ES256, ES384, ES512, PS256, PS384, PS512"
        ))
    })
}
