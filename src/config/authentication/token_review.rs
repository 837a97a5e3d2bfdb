//! TokenReviews and the token webhook: flags and their validation.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::super::boolean_flag::BooleanFlag;
use super::super::parse::parse_duration;
use super::super::{ConfigError, fail};
use crate::upstream::identity::Identity;
use kube_authn::{TokenReviewSettings, TokenWebhook, WebhookVersion};

/// Flags of TokenReviews and the token webhook.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = super::HEADING)]
pub(crate) struct TokenReviewFlags {
    /// Authenticate unrecognized bearer tokens with a TokenReview against the API server
    #[arg(long, default_value = "false", boolean())]
    pub authentication_token_review: bool,
    /// How long to cache the user of a valid token, at most until the token expires; 0s disables
    /// the cache
    #[arg(long, value_name = "TIME", default_value = "2m")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub authentication_token_review_cache_authenticated_ttl: Duration,
    /// How long to cache that a token is invalid; 0s disables the cache
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub authentication_token_review_cache_unauthenticated_ttl: Duration,
    /// Kubeconfig of a server that receives the TokenReviews instead of the API server
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long to cache responses of the token webhook
    #[arg(long, value_name = "TIME", default_value = "2m")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Version of authentication.k8s.io for the token webhook
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "v1beta1",
        value_parser = PossibleValuesParser::new(WebhookVersion::NAMES)
            .try_map(|text| text.parse::<WebhookVersion>())
    )]
    pub authentication_token_webhook_version: WebhookVersion,
}

impl TokenReviewFlags {
    /// Validates the flags. Returns `None` if TokenReviews are disabled.
    pub(super) fn validate(
        &self,
        audiences: &[String],
        identity: Identity,
    ) -> Result<Option<TokenReviewSettings>, ConfigError> {
        let settings = TokenReviewSettings {
            audiences: audiences.to_vec(),
            authenticated_ttl: self.authentication_token_review_cache_authenticated_ttl,
            unauthenticated_ttl: self.authentication_token_review_cache_unauthenticated_ttl,
            as_front_proxy: identity == Identity::RequestHeader,
            webhook: None,
        };
        match (self.authentication_token_review, &self.authentication_token_webhook_config_file) {
            (false, None) => Ok(None),
            (true, None) => Ok(Some(settings)),
            // Valid and invalid tokens are cached for the same time, like in kube-apiserver.
            (false, Some(file)) => Ok(Some(TokenReviewSettings {
                authenticated_ttl: self.authentication_token_webhook_cache_ttl,
                unauthenticated_ttl: self.authentication_token_webhook_cache_ttl,
                webhook: Some(TokenWebhook {
                    file: file.clone(),
                    version: self.authentication_token_webhook_version,
                }),
                ..settings
            })),
            (true, Some(_)) => fail(
                "--authentication-token-review and --authentication-token-webhook-config-file are mutually exclusive: TokenReviews are sent either to the API server or to the webhook",
            ),
        }
    }
}
