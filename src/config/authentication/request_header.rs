//! Front proxies: flags and their validation.

use std::path::PathBuf;

use clap::Args;
use http::HeaderName;

use super::super::{ConfigError, fail};
use kube_authn::RequestHeaderNames;

/// Flags of front proxies.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = super::HEADING)]
pub(crate) struct RequestHeaderFlags {
    /// CAs of front proxies, PEM; identity headers of a client with such a certificate are trusted.
    /// Reloaded when it changes
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that a front proxy's certificate may have, comma-separated; any by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers with the user name, comma-separated; the first one that is present is used
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[arg(default_value = "X-Remote-User")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers with the UID, comma-separated, such as X-Remote-Uid; none by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers with the groups, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[arg(default_value = "X-Remote-Group")]
    pub requestheader_group_headers: Vec<String>,
    /// Prefixes of headers with extra fields of the user, comma-separated
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',')]
    #[arg(default_value = "X-Remote-Extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

/// The CA of front proxies, and the headers with which they identify the user.
#[derive(Debug, Clone)]
pub(crate) struct RequestHeaderAuthentication {
    /// `--requestheader-client-ca-file`
    pub client_ca_file: PathBuf,
    /// `--requestheader-allowed-names`; an empty list allows any name
    pub allowed_names: Vec<String>,
    /// The other `--requestheader-*` flags.
    pub names: RequestHeaderNames,
}

impl RequestHeaderFlags {
    /// Validates the flags. Returns `None` if no front proxy is configured.
    pub(super) fn validate(
        &self,
        client_ca_file: Option<&PathBuf>,
    ) -> Result<Option<RequestHeaderAuthentication>, ConfigError> {
        let same = client_ca_file;
        let Some(client_ca_file) = self.requestheader_client_ca_file.clone() else {
            return Ok(None);
        };
        if same == Some(&client_ca_file) && self.requestheader_allowed_names.is_empty() {
            return fail(
                "--requestheader-client-ca-file and --client-ca-file are the same file: every client \
             could pose as a front proxy; give the proxies' common names in \
             --requestheader-allowed-names, or their CA a file of its own",
            );
        }
        Ok(Some(RequestHeaderAuthentication {
            client_ca_file,
            allowed_names: self.requestheader_allowed_names.clone(),
            names: RequestHeaderNames {
                username: header_names(
                    "--requestheader-username-headers",
                    &self.requestheader_username_headers,
                )?,
                uid: header_names("--requestheader-uid-headers", &self.requestheader_uid_headers)?,
                group: header_names(
                    "--requestheader-group-headers",
                    &self.requestheader_group_headers,
                )?,
                extra_prefix: header_names(
                    "--requestheader-extra-headers-prefix",
                    &self.requestheader_extra_headers_prefix,
                )?,
            },
        }))
    }
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
