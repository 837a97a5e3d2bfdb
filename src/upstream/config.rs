//! Which API server to use: flags, kubeconfigs, or the cluster that the proxy runs in.

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use api_client::config::{ClientCertificate, Peer, Pem, Trust};
use api_client::kubeconfig::{KubeconfigSource, Selection};
use api_client::{Credentials, Endpoint, parse_server_name};

use super::{ConfigError, UpstreamConfig};

/// The values of the `--upstream-*` flags.
#[derive(Debug, Clone, Default)]
pub struct UpstreamFlags {
    /// `--upstream-server`
    pub servers: Vec<String>,
    /// `--upstream-ca-file`
    pub ca_file: Option<PathBuf>,
    /// `--upstream-client-cert-file`
    pub client_cert_file: Option<PathBuf>,
    /// `--upstream-client-key-file`
    pub client_key_file: Option<PathBuf>,
    /// `--upstream-token-file`
    pub token_file: Option<PathBuf>,
    /// `--upstream-tls-server-name`
    pub tls_server_name: Option<String>,
}

/// Where the settings of the API server come from, in order of precedence.
#[derive(Debug, Clone)]
pub enum UpstreamSource {
    /// `--kubeconfig`, `$KUBECONFIG` or `~/.kube/config`.
    Kubeconfig(KubeconfigSource),
    /// `--upstream-server`, without `--kubeconfig`.
    Flags,
    /// The ServiceAccount of the pod that the proxy runs in.
    InCluster,
}

impl UpstreamSource {
    /// Finds the source in kubectl's order: `--kubeconfig`, `$KUBECONFIG`, `~/.kube/config`, the
    /// cluster that the proxy runs in. With `--upstream-server` and without `--kubeconfig`, no
    /// kubeconfig is loaded.
    ///
    /// # Errors
    /// If a kubeconfig cannot be loaded, or `context` is given and there is no kubeconfig.
    pub fn find(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        flags: &UpstreamFlags,
    ) -> Result<UpstreamSource, ConfigError> {
        if kubeconfig.is_none() && !flags.servers.is_empty() {
            return Ok(UpstreamSource::Flags);
        }
        let source = KubeconfigSource::find(kubeconfig.map(|path| ("--kubeconfig", path)));
        if kubeconfig.is_some() || !source.load()?.is_empty() {
            return Ok(UpstreamSource::Kubeconfig(source));
        }
        if context.is_some() {
            let reason = "there is no kubeconfig: give --kubeconfig, or set KUBECONFIG";
            return Err(ConfigError::field("--context", reason));
        }
        Ok(UpstreamSource::InCluster)
    }

    /// Returns the kubeconfigs that are watched for changes.
    pub fn kubeconfigs(&self) -> &[PathBuf] {
        match self {
            UpstreamSource::Kubeconfig(source) => source.paths(),
            UpstreamSource::Flags | UpstreamSource::InCluster => &[],
        }
    }

    /// Returns the settings; `flags` override those of a kubeconfig. A credential plugin may run
    /// for `plugin_timeout`.
    ///
    /// # Errors
    /// Returns what is missing or invalid, with the field and the remedy.
    pub fn resolve(
        &self,
        context: Option<&str>,
        flags: &UpstreamFlags,
        plugin_timeout: Duration,
    ) -> Result<UpstreamConfig, ConfigError> {
        let config = match self {
            UpstreamSource::Kubeconfig(source) => {
                let peer = Peer::ApiServer;
                source.load()?.client_config(Selection { context, peer, plugin_timeout })?
            }
            UpstreamSource::Flags => bare(flags)?,
            UpstreamSource::InCluster => UpstreamConfig::in_cluster()?,
        };
        with_flags(config, flags)?.checked()
    }
}

fn bare(flags: &UpstreamFlags) -> Result<UpstreamConfig, ConfigError> {
    let server = flags.servers.first().ok_or_else(|| {
        ConfigError::field("--upstream-server", "give the API server's URL, or --kubeconfig")
    })?;
    Ok(UpstreamConfig::new(Endpoint::parse(server, "--upstream-server")?))
}

/// Replaces the settings for which there are `flags`.
fn with_flags(
    mut config: UpstreamConfig,
    flags: &UpstreamFlags,
) -> Result<UpstreamConfig, ConfigError> {
    if let Some((server, more)) = flags.servers.split_first() {
        let parse = |url: &String| Endpoint::parse(url, "--upstream-server");
        config.server = parse(server)?;
        config.more_servers = more.iter().map(parse).collect::<Result<_, _>>()?;
    }
    if let Some(path) = &flags.ca_file {
        config.trust = Trust::Ca(Pem::file("--upstream-ca-file", path));
    }
    match (&flags.client_cert_file, &flags.client_key_file) {
        (Some(certificate), Some(key)) => {
            config.client_certificate = Some(ClientCertificate::Pem {
                certificate: Pem::file("--upstream-client-cert-file", certificate),
                key: Pem::file("--upstream-client-key-file", key),
            });
        }
        (None, None) => {}
        (Some(_), None) => {
            let reason = "needs --upstream-client-key-file with the certificate's key";
            return Err(ConfigError::field("--upstream-client-cert-file", reason));
        }
        (None, Some(_)) => {
            let reason = "needs --upstream-client-cert-file with the key's certificate";
            return Err(ConfigError::field("--upstream-client-key-file", reason));
        }
    }
    if let Some(path) = &flags.token_file {
        config.credentials = Some(Credentials::token_file(path, "--upstream-token-file")?);
    }
    if let Some(name) = &flags.tls_server_name {
        config.tls_server_name = Some(parse_server_name(name, "--upstream-tls-server-name")?);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(server: &str) -> UpstreamFlags {
        UpstreamFlags { servers: vec![server.to_owned()], ..UpstreamFlags::default() }
    }

    fn resolve(flags: &UpstreamFlags) -> Result<UpstreamConfig, String> {
        let resolved = UpstreamSource::Flags.resolve(None, flags, Duration::from_secs(1));
        resolved.map_err(|error| error.to_string())
    }

    #[test]
    fn https_needs_a_ca_and_http_does_not() {
        let error = resolve(&flags("https://10.0.0.1:6443")).unwrap_err();
        assert!(error.starts_with("--upstream-ca-file: no CA is known for https://10.0.0.1:6443"));
        assert!(error.contains("certificate-authority"), "{error}");
        let config = resolve(&flags("http://127.0.0.1:8080")).unwrap();
        assert!(config.credentials.is_none());
    }

    #[test]
    fn certificate_and_key_come_together() {
        let mut one = flags("http://127.0.0.1:1");
        one.client_cert_file = Some("c.crt".into());
        assert_eq!(
            resolve(&one).unwrap_err(),
            "--upstream-client-cert-file: needs --upstream-client-key-file with the certificate's key"
        );
    }

    #[test]
    fn missing_settings_are_reported_with_a_remedy() {
        let error = resolve(&UpstreamFlags::default()).unwrap_err();
        assert!(error.contains("--kubeconfig"), "{error}");
    }

    #[test]
    fn a_server_name_must_be_one() {
        let mut one = flags("https://127.0.0.1:1");
        one.ca_file = Some("ca.crt".into());
        one.tls_server_name = Some("not a name".into());
        assert_eq!(
            resolve(&one).unwrap_err(),
            "--upstream-tls-server-name: \"not a name\" is not a DNS name or IP address"
        );
    }
}
