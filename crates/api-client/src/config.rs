//! The settings of a connection to one server: address, trust, credentials and proxy.

use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::ServerName;

use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::ConfigError;
use crate::exec::ExecCredentials;
use crate::tunnel::ProxyUrl;

/// The settings of a connection to one server.
#[derive(Debug)]
pub struct ClientConfig {
    /// The address.
    pub server: Endpoint,
    /// Further addresses that serve the same, with the same CAs and credentials.
    pub more_servers: Vec<Endpoint>,
    /// How the server's certificate is verified; ignored for `http`.
    pub trust: Trust,
    /// The name in the server's certificate if it is not the host of the address.
    pub tls_server_name: Option<ServerName<'static>>,
    /// The client certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// The `Authorization` header.
    pub credentials: Option<Credentials>,
    /// The proxy through which the server is reached.
    pub proxy: Option<ProxyUrl>,
    /// Whether the client certificate is a front proxy's, which names no user: health checks then
    /// name one.
    pub is_front_proxy: bool,
}

/// How a server's certificate is verified.
#[derive(Debug)]
pub enum Trust {
    /// Its chain must end at one of these CAs.
    Ca(Pem),
    /// Its chain must end at a CA that this system trusts.
    System,
    /// It is not verified (`insecure-skip-tls-verify`).
    Insecure,
    /// No CA is configured, which is only valid for `http`.
    Unset,
}

/// The server that a configuration is for. Error messages depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The API server (`--kubeconfig`, `$KUBECONFIG`).
    ApiServer,
    /// A webhook endpoint (`--audit-webhook-config-file`).
    Webhook,
}

/// A client certificate and its private key.
#[derive(Debug)]
pub enum ClientCertificate {
    /// From files or the configuration itself.
    Pem {
        /// The chain, its own certificate first.
        certificate: Pem,
        /// The private key.
        key: Pem,
    },
    /// The one that a credential plugin returns, if it returns one.
    Plugin(Arc<ExecCredentials>),
}

impl ClientCertificate {
    /// Returns the names of certificate and key for error messages.
    pub(crate) fn names(&self) -> (String, String) {
        match self {
            ClientCertificate::Pem { certificate, key } => (certificate.name(), key.name()),
            ClientCertificate::Plugin(plugin) => {
                let name = |member| format!("{}: status.{member}", plugin.field());
                (name("clientCertificateData"), name("clientKeyData"))
            }
        }
    }
}

/// PEM text in a file, which is reloaded when it changes, or in the configuration itself.
pub enum Pem {
    /// In a file.
    File {
        /// The flag or field that names the file.
        field: String,
        /// The file.
        path: PathBuf,
    },
    /// Inline.
    Data {
        /// The field that holds the text.
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
    /// The file `path`, as named by `field`.
    pub fn file(field: impl Into<String>, path: impl Into<PathBuf>) -> Pem {
        Pem::File { field: field.into(), path: path.into() }
    }

    /// Returns the name for error messages.
    pub fn name(&self) -> String {
        match self {
            Pem::File { field, path } => format!("{field}: {}", path.display()),
            Pem::Data { field, .. } => field.clone(),
        }
    }

    /// Returns the current text.
    ///
    /// # Errors
    /// [`ConfigError::Read`] if the file cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, ConfigError> {
        match self {
            Pem::Data { bytes, .. } => Ok(bytes.clone()),
            Pem::File { field, path } => {
                watched_files::regular_file::read(path).map_err(|source| ConfigError::Read {
                    field: field.clone(),
                    path: path.clone(),
                    source,
                })
            }
        }
    }
}

impl ClientConfig {
    /// A server without credentials; the trust is yet to be set for `https`.
    pub fn new(server: Endpoint) -> ClientConfig {
        ClientConfig {
            server,
            more_servers: Vec::new(),
            trust: Trust::Unset,
            tls_server_name: None,
            client_certificate: None,
            credentials: None,
            proxy: None,
            is_front_proxy: false,
        }
    }

    /// Rejects settings that would fail later, or fail to protect: `https` without a CA, or with a
    /// host that no certificate can be for.
    ///
    /// # Errors
    /// The flag or field, and the remedy.
    pub fn checked(self) -> Result<ClientConfig, ConfigError> {
        let Some(server) = self.servers().find(|server| server.is_https()) else {
            return Ok(self);
        };
        if matches!(self.trust, Trust::Unset) {
            return Err(ConfigError::field(
                "--upstream-ca-file",
                format!(
                    "no CA is known for https://{}; name its file with --upstream-ca-file, or in \
                     the kubeconfig with certificate-authority or certificate-authority-data",
                    server.authority
                ),
            ));
        }
        if self.tls_server_name.is_none() {
            for server in self.servers().filter(|server| server.is_https()) {
                parse_server_name(&server.host, "the server's URL")?;
            }
        }
        Ok(self)
    }

    /// All addresses.
    pub fn servers(&self) -> impl Iterator<Item = &Endpoint> {
        [&self.server].into_iter().chain(&self.more_servers)
    }

    /// The credential plugin, if there is one.
    pub fn plugin(&self) -> Option<&Arc<ExecCredentials>> {
        match &self.credentials {
            Some(Credentials::Exec(plugin)) => Some(plugin),
            _ => None,
        }
    }

    /// Takes over the credentials that `previous` has obtained if both run the same plugin in the
    /// same way, so that a reload does not run it again.
    pub fn adopt_plugin(&mut self, previous: &Arc<ExecCredentials>) {
        if self.plugin().is_some_and(|new| new.is_same_plugin(previous)) {
            self.credentials = Some(Credentials::Exec(Arc::clone(previous)));
            self.client_certificate = Some(ClientCertificate::Plugin(Arc::clone(previous)));
        }
    }
}

/// Parses a name or address that a server's certificate can be for.
///
/// # Errors
/// Names `field`.
pub fn parse_server_name(name: &str, field: &str) -> Result<ServerName<'static>, ConfigError> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| ConfigError::field(field, format!("{name:?} is not a DNS name or IP address")))
}
