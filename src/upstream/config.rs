//! Where the API server is, how to know it, and as whom to speak to it.
//!
//! [`UpstreamConfig::resolve`] is what `serve` uses: flags win over the kubeconfig, and without
//! either the in-cluster configuration is taken.

use std::path::{Path, PathBuf};

use rustls_pki_types::ServerName;

use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::error::ConfigError;
use super::tunnel::ProxyUrl;

/// All that is needed to speak to the API server.
#[derive(Debug)]
pub struct UpstreamConfig {
    /// Its address.
    pub server: Endpoint,
    /// How its certificate is judged; not looked at for `http`.
    pub trust: Trust,
    /// What its certificate has to be for, where that is not the host of the address.
    pub tls_server_name: Option<ServerName<'static>>,
    /// The certificate that the proxy presents.
    pub client_certificate: Option<ClientCertificate>,
    /// The proxy's own `Authorization`.
    pub credentials: Option<Credentials>,
    /// A proxy through which it is reached; only for webhooks.
    pub proxy: Option<ProxyUrl>,
}

/// How the API server's certificate is judged.
#[derive(Debug)]
pub enum Trust {
    /// It must lead to one of these CAs.
    Ca(Pem),
    /// It must lead to one of the CAs that this system trusts.
    System,
    /// Anything goes: `insecure-skip-tls-verify`.
    Insecure,
    /// Nothing was said, which is only right for `http`.
    Unset,
}

/// Whose kubeconfig it is: what errors advise depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Of `--kubeconfig`.
    ApiServer,
    /// Of `--audit-webhook-config-file`.
    Receiver,
}

/// A client certificate and its key.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The chain, its own certificate first.
    pub certificate: Pem,
    /// The private key.
    pub key: Pem,
}

/// PEM text in a file, read again when it changes, or in the configuration itself.
pub enum Pem {
    /// In a file.
    File {
        /// The flag or field that names it.
        field: String,
        /// The file.
        path: PathBuf,
    },
    /// Inline.
    Data {
        /// The field that holds it.
        field: String,
        /// The text.
        bytes: Vec<u8>,
    },
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pem({})", self.name())
    }
}

impl Pem {
    /// `path`, as named by `field`.
    pub fn file(field: impl Into<String>, path: impl Into<PathBuf>) -> Pem {
        Pem::File { field: field.into(), path: path.into() }
    }

    /// What errors call it.
    pub fn name(&self) -> String {
        match self {
            Pem::File { field, path } => format!("{field}: {}", path.display()),
            Pem::Data { field, .. } => field.clone(),
        }
    }

    /// The text now.
    pub(super) fn read(&self) -> Result<Vec<u8>, ConfigError> {
        match self {
            Pem::Data { bytes, .. } => Ok(bytes.clone()),
            Pem::File { field, path } => crate::regular_file::read(path).map_err(|source| {
                ConfigError::Read { field: field.clone(), path: path.clone(), source }
            }),
        }
    }
}

/// The values of the `--upstream-*` flags.
#[derive(Debug, Clone, Default)]
pub struct UpstreamFlags {
    /// `--upstream-server`
    pub server: Option<String>,
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

impl UpstreamConfig {
    /// The upstream that flags and kubeconfig name, or else the cluster that the proxy runs in.
    /// `context` is the kubeconfig's current one where it is `None`.
    ///
    /// # Errors
    /// What is missing or wrong, with the field and the remedy.
    pub fn resolve(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
        flags: &UpstreamFlags,
    ) -> Result<UpstreamConfig, ConfigError> {
        let config = match (kubeconfig, &flags.server) {
            (Some(path), _) => UpstreamConfig::read_kubeconfig(path, context, Peer::ApiServer)?,
            (None, Some(server)) => UpstreamConfig::bare(server)?,
            (None, None) => UpstreamConfig::in_cluster()?,
        };
        config.with_flags(flags)?.checked()
    }

    /// The upstream of one context of a kubeconfig, the current one where `context` is `None`.
    ///
    /// # Errors
    /// What is missing or wrong, with file, field and remedy.
    pub fn from_kubeconfig(
        path: &Path,
        context: Option<&str>,
    ) -> Result<UpstreamConfig, ConfigError> {
        UpstreamConfig::read_kubeconfig(path, context, Peer::ApiServer)?.checked()
    }

    /// The receiver of a webhook, in the current context of a kubeconfig of its own. If that names no
    /// CA, those of the system are taken, as by client-go.
    ///
    /// # Errors
    /// What is missing or wrong, with file, field and remedy.
    pub fn of_receiver(path: &Path) -> Result<UpstreamConfig, ConfigError> {
        let mut config = UpstreamConfig::read_kubeconfig(path, None, Peer::Receiver)?;
        if matches!(config.trust, Trust::Unset) {
            config.trust = Trust::System;
        }
        config.checked()
    }

    /// The upstream that the `--upstream-*` flags alone describe.
    ///
    /// # Errors
    /// What is missing or wrong, with the flag and the remedy.
    pub fn from_flags(flags: &UpstreamFlags) -> Result<UpstreamConfig, ConfigError> {
        let server = flags.server.as_deref().ok_or_else(|| {
            ConfigError::field("--upstream-server", "give the API server's URL, or --kubeconfig")
        })?;
        UpstreamConfig::bare(server)?.with_flags(flags)?.checked()
    }

    fn bare(server: &str) -> Result<UpstreamConfig, ConfigError> {
        Ok(UpstreamConfig {
            server: Endpoint::parse(server, "--upstream-server")?,
            trust: Trust::Unset,
            tls_server_name: None,
            client_certificate: None,
            credentials: None,
            proxy: None,
        })
    }

    /// Replaces what `flags` say.
    fn with_flags(mut self, flags: &UpstreamFlags) -> Result<UpstreamConfig, ConfigError> {
        if let Some(server) = &flags.server {
            self.server = Endpoint::parse(server, "--upstream-server")?;
        }
        if let Some(path) = &flags.ca_file {
            self.trust = Trust::Ca(Pem::file("--upstream-ca-file", path));
        }
        match (&flags.client_cert_file, &flags.client_key_file) {
            (Some(certificate), Some(key)) => {
                self.client_certificate = Some(ClientCertificate {
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
            self.credentials = Some(Credentials::token_file(path, "--upstream-token-file")?);
        }
        if let Some(name) = &flags.tls_server_name {
            self.tls_server_name = Some(parse_server_name(name, "--upstream-tls-server-name")?);
        }
        Ok(self)
    }

    /// Refuses what would later only fail, or fail to protect.
    fn checked(self) -> Result<UpstreamConfig, ConfigError> {
        if !self.server.is_https() {
            return Ok(self);
        }
        if matches!(self.trust, Trust::Unset) {
            return Err(ConfigError::field(
                "--upstream-ca-file",
                format!(
                    "no CA is known for https://{}; name its file with --upstream-ca-file, or in \
                     the kubeconfig with certificate-authority or certificate-authority-data",
                    self.server.authority
                ),
            ));
        }
        if self.tls_server_name.is_none() {
            parse_server_name(&self.server.host, "the server's URL")?;
        }
        Ok(self)
    }
}

pub(super) fn parse_server_name(
    name: &str,
    field: &str,
) -> Result<ServerName<'static>, ConfigError> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| ConfigError::field(field, format!("{name:?} is no DNS name or IP address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(server: &str) -> UpstreamFlags {
        UpstreamFlags { server: Some(server.to_owned()), ..UpstreamFlags::default() }
    }

    #[test]
    fn https_needs_a_ca_and_http_does_not() {
        let error = UpstreamConfig::from_flags(&flags("https://10.0.0.1:6443")).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("--upstream-ca-file: no CA is known for https://10.0.0.1:6443"));
        assert!(error.contains("certificate-authority"), "{error}");
        let config = UpstreamConfig::from_flags(&flags("http://127.0.0.1:8080")).unwrap();
        assert!(config.credentials.is_none());
    }

    #[test]
    fn certificate_and_key_come_together() {
        let mut one = flags("http://127.0.0.1:1");
        one.client_cert_file = Some("c.crt".into());
        let error = UpstreamConfig::from_flags(&one).unwrap_err().to_string();
        assert_eq!(
            error,
            "--upstream-client-cert-file: needs --upstream-client-key-file with the certificate's key"
        );
    }

    #[test]
    fn nothing_given_says_what_to_give() {
        let error = UpstreamConfig::from_flags(&UpstreamFlags::default()).unwrap_err();
        assert!(error.to_string().contains("--kubeconfig"), "{error}");
    }

    #[test]
    fn a_server_name_must_be_one() {
        let mut one = flags("https://127.0.0.1:1");
        one.ca_file = Some("ca.crt".into());
        one.tls_server_name = Some("not a name".into());
        let error = UpstreamConfig::from_flags(&one).unwrap_err().to_string();
        assert_eq!(
            error,
            "--upstream-tls-server-name: \"not a name\" is no DNS name or IP address"
        );
    }
}
