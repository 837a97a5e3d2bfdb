//! The connection to the API server: flags and their validation.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse::parse_duration;
use super::{ConfigError, fail};
use crate::impersonation::{ConstrainedImpersonation, Rules};
use crate::upstream::UpstreamFlags;
use crate::upstream::identity::{Identity, OriginalUserExtra};

/// Flags of the connection to the API server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Upstream")]
pub(crate) struct ApiServerFlags {
    /// Kubeconfig with the API server's address and the proxy's own credentials. By default, in
    /// kubectl's order: the files of $KUBECONFIG, ~/.kube/config, the ServiceAccount of the proxy's
    /// pod. With --upstream-server and without --kubeconfig, none of them is used
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; the current context by default
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Maximum run time of a credential plugin (users[].user.exec in the kubeconfig)
    #[arg(long, value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = parse_duration, allow_hyphen_values = true)]
    pub credential_plugin_timeout: Duration,
    /// URL of the API server; repeat the flag for several API servers of the same cluster. A
    /// request goes to the healthy one with the fewest requests in flight, also if one name has
    /// several addresses
    #[arg(long, value_name = "URL")]
    pub upstream_server: Vec<String>,
    /// CAs of the API server's certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub upstream_ca_file: Option<PathBuf>,
    /// Client certificate for the API server, PEM
    #[arg(long, value_name = "FILE")]
    pub upstream_client_cert_file: Option<PathBuf>,
    /// Private key of the client certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub upstream_client_key_file: Option<PathBuf>,
    /// File with a bearer token for the API server
    #[arg(long, value_name = "FILE")]
    pub upstream_token_file: Option<PathBuf>,
    /// Name to verify the API server's certificate for; the host of the URL by default
    #[arg(long, value_name = "NAME")]
    pub upstream_tls_server_name: Option<String>,
    /// How the API server identifies the user
    #[arg(long, value_name = "MODE", default_value = "impersonate")]
    pub upstream_identity: Identity,
    /// Extra key that names the client to the API server, such as example.com/called-by, so that
    /// the API server's own audit log has it; with --upstream-identity=impersonate. The proxy needs
    /// the verb impersonate on userextras/KEY
    #[arg(long, value_name = "KEY")]
    pub upstream_original_user_extra: Option<String>,
    /// Authorize constrained impersonation, like kube-apiserver's feature gate
    /// ConstrainedImpersonation; with --upstream-identity=impersonate, where the proxy authorizes
    /// impersonation
    #[arg(long, value_name = "VALUE", default_value = "auto")]
    pub constrained_impersonation: Constrained,
}

/// `--constrained-impersonation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Constrained {
    /// Depends on the API server's version: enabled from 1.36 on
    Auto,
    /// Enabled; what it does not allow, the verb impersonate can allow
    True,
    /// Disabled: only the verb impersonate is authorized
    False,
}

/// The API server.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--context`
    pub context: Option<String>,
    /// `--credential-plugin-timeout`
    pub plugin_timeout: Duration,
    /// `--upstream-*`
    pub flags: UpstreamFlags,
    /// `--upstream-identity`
    pub identity: Identity,
    /// `--upstream-original-user-extra`
    pub original_user_extra: Option<OriginalUserExtra>,
    /// `--constrained-impersonation`
    pub constrained_impersonation: ConstrainedImpersonation,
}

impl ApiServerFlags {
    /// Validates the self.
    pub(super) fn validate(&self) -> Result<Upstream, ConfigError> {
        let ApiServerFlags { kubeconfig, context, credential_plugin_timeout, .. } = self;
        if context.is_some() && kubeconfig.is_none() && !self.upstream_server.is_empty() {
            return fail(
                "--context needs a kubeconfig, and --upstream-server without --kubeconfig uses none; \
             give --kubeconfig, or leave out one of the two",
            );
        }
        if credential_plugin_timeout.is_zero() {
            return fail("--credential-plugin-timeout must be longer than 0s, for example 30s");
        }
        let identity = self.upstream_identity;
        let original_user_extra = self.upstream_original_user_extra.as_deref().map(str::parse);
        let original_user_extra = original_user_extra
            .transpose()
            .map_err(|error| ConfigError(format!("--upstream-original-user-extra: {error}")))?;
        if original_user_extra.is_some() && identity != Identity::Impersonate {
            return fail(
                "--upstream-original-user-extra needs --upstream-identity=impersonate; otherwise the \
             API server sees who called, and needs not be told",
            );
        }
        let constrained_impersonation = match self.constrained_impersonation {
            Constrained::Auto => ConstrainedImpersonation::Auto,
            Constrained::True => ConstrainedImpersonation::Always(Rules::Constrained),
            Constrained::False => ConstrainedImpersonation::Always(Rules::LegacyOnly),
        };
        if self.constrained_impersonation != Constrained::Auto && identity != Identity::Impersonate
        {
            return fail(
                "--constrained-impersonation needs --upstream-identity=impersonate; otherwise it is \
             the API server that authorizes impersonation, by its own feature gate",
            );
        }
        Ok(Upstream {
            kubeconfig: kubeconfig.clone(),
            context: context.clone(),
            plugin_timeout: *credential_plugin_timeout,
            flags: UpstreamFlags {
                servers: self.upstream_server.clone(),
                ca_file: self.upstream_ca_file.clone(),
                client_cert_file: self.upstream_client_cert_file.clone(),
                client_key_file: self.upstream_client_key_file.clone(),
                token_file: self.upstream_token_file.clone(),
                tls_server_name: self.upstream_tls_server_name.clone(),
            },
            identity,
            original_user_extra,
            constrained_impersonation,
        })
    }
}
