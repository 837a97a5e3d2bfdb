//! One server with everything that connections to it need.

use std::sync::Arc;

use crate::config::{ClientConfig, parse_server_name};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::ConfigError;
use crate::exec::{CredentialError, ExecCredentials, OwnCredential};
use crate::tls::ClientTls;
use crate::tunnel::ProxyUrl;

/// One server: its address, TLS settings that reload, credentials and proxy. Shared by everything
/// that connects to it, so that all use the same certificates and the same credential.
#[derive(Debug)]
pub struct Target {
    /// The address.
    pub endpoint: Endpoint,
    /// `None` for `http`.
    pub tls: Option<ClientTls>,
    /// The source of the `Authorization` header.
    pub credentials: Option<Credentials>,
    /// The proxy through which the server is reached.
    pub proxy: Option<Arc<ProxyUrl>>,
    /// Host and port, for error messages.
    pub name: Arc<str>,
}

impl Target {
    /// Reads the certificates. A credential plugin is not started yet ([`Target::start`]). Further
    /// servers of `config` are ignored ([`Target::all`]).
    ///
    /// # Errors
    /// Returns an error for certificates and keys that cannot be used, with file and field.
    pub fn new(mut config: ClientConfig) -> Result<Target, ConfigError> {
        config.more_servers.clear();
        let mut targets = Target::all(config)?;
        Ok(targets.swap_remove(0))
    }

    /// Reads the certificates, and returns all servers of `config`. They share certificates,
    /// credentials and proxy, so following the files of one ([`Target::follow`]) is enough for all.
    ///
    /// # Errors
    /// Returns an error for certificates and keys that cannot be used, with file and field.
    pub fn all(config: ClientConfig) -> Result<Vec<Target>, ConfigError> {
        let ClientConfig {
            server,
            more_servers,
            trust,
            tls_server_name,
            client_certificate,
            credentials,
            proxy,
            is_front_proxy: _,
        } = config;
        let proxy = proxy.map(Arc::new);
        let (mut trusted, mut shared) = (Some((trust, client_certificate)), None::<ClientTls>);
        let mut targets = Vec::with_capacity(1 + more_servers.len());
        for server in [server].into_iter().chain(more_servers) {
            let tls = match server.is_https() {
                true => {
                    let name = match &tls_server_name {
                        Some(name) => name.clone(),
                        None => parse_server_name(&server.host, "the server's URL")?,
                    };
                    if let Some((trust, certificate)) = trusted.take() {
                        shared = Some(ClientTls::new(trust, certificate, name.clone())?);
                    }
                    shared.as_ref().map(|tls| tls.for_server(name))
                }
                false => None,
            };
            let (credentials, proxy) = (credentials.clone(), proxy.clone());
            let name = server.authority.as_str().into();
            targets.push(Target { endpoint: server, tls, credentials, proxy, name });
        }
        Ok(targets)
    }

    /// Starts the credential plugin, if there is one. Must be called within a tokio runtime.
    pub fn start(&self) {
        if let Some(plugin) = self.plugin() {
            plugin.start();
        }
    }

    /// Returns the credential plugin, if there is one.
    pub fn plugin(&self) -> Option<&Arc<ExecCredentials>> {
        match &self.credentials {
            Some(Credentials::Exec(plugin)) => Some(plugin),
            _ => None,
        }
    }

    /// Returns the credential for a request that starts now; `None` if it has to be waited for
    /// ([`Target::valid_credential`]).
    pub fn credential(&self) -> Option<OwnCredential> {
        match &self.credentials {
            Some(credentials) => credentials.current(),
            None => Some(OwnCredential::default()),
        }
    }

    /// Returns the credential; waits for the plugin if it has yet to return one.
    ///
    /// # Errors
    /// If the plugin fails.
    pub async fn valid_credential(&self) -> Result<OwnCredential, CredentialError> {
        match &self.credentials {
            Some(credentials) => credentials.valid().await,
            None => Ok(OwnCredential::default()),
        }
    }
}
