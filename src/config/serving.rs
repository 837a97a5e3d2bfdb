//! The listening sockets, TLS and HTTP/2: flags and their validation.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use rustls::SupportedCipherSuite;

use super::boolean_flag::BooleanFlag;
use super::{ConfigError, fail};
use crate::request::source::Cidr;
use crate::server::tls::{self, MinVersion, TlsOptions};

/// Flags of the listening sockets, TLS and HTTP/2.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServingFlags {
    /// Address to listen on for clients
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port to listen on for clients; 0 selects a free port
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,
    /// Serving certificate followed by its intermediates, PEM; reloaded when it changes
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of the serving certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Directory for the self-signed certificate that is created if --tls-cert-file is not set
    #[arg(long, value_name = "DIR", default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    /// Minimum TLS version
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12")]
    pub tls_min_version: MinVersion,
    /// Cipher suites for TLS 1.2, comma-separated; all secure ones by default. Those of TLS 1.3
    /// cannot be disabled
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// Maximum number of open client connections; further ones are reset. A connection needs about
    /// 30 KiB; 5,000 nodes keep about 30,000 open. Lower if the limit of open files requires it
    #[arg(long, value_name = "COUNT", default_value_t = 50_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub max_connections: u64,
    /// Networks of load balancers that send a PROXY protocol header (version 1 or 2),
    /// comma-separated. Connections from them must begin with a header, and the address in it is
    /// used as the client's; connections from other addresses must not
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub proxy_protocol: Vec<Cidr>,
    /// Set SO_REUSEADDR on the listening sockets, so that binding does not wait for connections in
    /// the TIME_WAIT state. On Linux this is always set, as it is by kube-apiserver; the flag is
    /// accepted for compatibility
    #[arg(long, default_value = "false", boolean())]
    pub permit_address_sharing: bool,
    /// Set SO_REUSEPORT on the listening sockets (--secure-port and --admin-bind-address), which
    /// allows more than one process to listen on the same address and port, for example during a
    /// restart
    #[arg(long, default_value = "false", boolean())]
    pub permit_port_sharing: bool,
    /// Concurrent streams allowed on each HTTP/2 connection of a client; 0 uses kube-apiserver's
    /// default, 100
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=i64::from(i32::MAX)))]
    pub http2_max_streams_per_connection: u32,
}

/// Where and how clients are listened to.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// `--bind-address` and `--secure-port`
    pub addr: SocketAddr,
    /// The certificate shown to clients.
    pub certificate: CertificateSource,
    /// Versions, cipher suites, client certificates.
    pub tls: TlsOptions,
    /// `--max-connections`
    pub max_connections: u64,
    /// `--proxy-protocol`
    pub proxy_protocol: Vec<Cidr>,
    /// `--permit-port-sharing`
    pub share_port: bool,
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CertificateSource {
    /// `--tls-cert-file` and `--tls-private-key-file`
    Files {
        /// The chain.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Made in `--cert-dir`.
    SelfSigned(PathBuf),
}

impl ServingFlags {
    /// Validates the self. `request_client_certificates`: clients can authenticate with one.
    pub(super) fn validate(
        &self,
        request_client_certificates: bool,
    ) -> Result<Serving, ConfigError> {
        let certificate = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(certificate), Some(key)) => {
                CertificateSource::Files { certificate: certificate.clone(), key: key.clone() }
            }
            (None, None) => CertificateSource::SelfSigned(self.cert_dir.clone()),
            (Some(_), None) => {
                return fail("--tls-cert-file needs --tls-private-key-file, the file with its key");
            }
            (None, Some(_)) => {
                return fail(
                    "--tls-private-key-file needs --tls-cert-file, the file with its certificate",
                );
            }
        };
        let cipher_suites = match self.tls_cipher_suites.as_slice() {
            [] => None,
            names => Some(names.iter().map(|name| cipher_suite(name)).collect::<Result<_, _>>()?),
        };
        Ok(Serving {
            addr: SocketAddr::new(self.bind_address, self.secure_port),
            certificate,
            max_connections: self.max_connections,
            proxy_protocol: self.proxy_protocol.clone(),
            share_port: self.permit_port_sharing,
            tls: TlsOptions {
                min_version: self.tls_min_version,
                cipher_suites,
                request_client_certificates,
            },
        })
    }
}

fn cipher_suite(name: &str) -> Result<SupportedCipherSuite, ConfigError> {
    // Go has two suites under a second, older name too.
    let full = if name.ends_with("_CHACHA20_POLY1305") { "_SHA256" } else { "" };
    let full = format!("{name}{full}");
    tls::cipher_suites().find(|(known, _)| *known == full).map(|(_, suite)| suite).ok_or_else(
        || {
            let known: Vec<String> = tls::cipher_suites().map(|(name, _)| name).collect();
            ConfigError(format!(
                "--tls-cipher-suites: {name:?} is not supported; supported are: {}",
                known.join(", ")
            ))
        },
    )
}
