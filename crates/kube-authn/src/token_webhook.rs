//! The token webhook, which receives TokenReviews instead of the API server
//! (`--authentication-token-webhook-*`).

use std::path::PathBuf;
use std::str::FromStr;

use api_client::{ApiClient, ClientConfig, ConfigError};

/// A token webhook and its protocol version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWebhook {
    /// `--authentication-token-webhook-config-file`: a kubeconfig whose cluster is the webhook.
    pub file: PathBuf,
    /// `--authentication-token-webhook-version`
    pub version: WebhookVersion,
}

/// The version of `authentication.k8s.io` that the webhook uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookVersion {
    /// `v1beta1`
    V1Beta1,
    /// `v1`
    V1,
}

impl FromStr for WebhookVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<WebhookVersion, String> {
        match text {
            "v1beta1" => Ok(WebhookVersion::V1Beta1),
            "v1" => Ok(WebhookVersion::V1),
            _ => Err(format!("{text:?} is neither v1beta1 nor v1")),
        }
    }
}

impl WebhookVersion {
    /// The names of the versions.
    pub const NAMES: [&str; 2] = ["v1beta1", "v1"];

    /// Returns the `apiVersion` of a TokenReview.
    pub fn api_version(self) -> &'static str {
        match self {
            WebhookVersion::V1Beta1 => "authentication.k8s.io/v1beta1",
            WebhookVersion::V1 => "authentication.k8s.io/v1",
        }
    }
}

impl TokenWebhook {
    /// Creates a client for the webhook. The path of the URL is that of every request. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if the kubeconfig cannot be used.
    pub fn connect(&self) -> Result<ApiClient, ConfigError> {
        ApiClient::new(ClientConfig::of_webhook(&self.file)?, "the token webhook")
    }
}
