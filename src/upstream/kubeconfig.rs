//! The upstream from a kubeconfig.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::config::{ClientCertificate, Peer, Pem, Trust, UpstreamConfig, parse_server_name};
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::error::ConfigError;
use super::tunnel::ProxyUrl;

/// The parts of a kubeconfig that matter here. Unknown fields are left alone, as kubectl does.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default, deserialize_with = "null_is_default")]
    contexts: Vec<NamedContext>,
    #[serde(default, deserialize_with = "null_is_default")]
    clusters: Vec<NamedCluster>,
    #[serde(default, deserialize_with = "null_is_default")]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default)]
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    user: User,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    username: Option<String>,
    password: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
}

/// Tools write empty lists as `null`.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl UpstreamConfig {
    /// As [`UpstreamConfig::from_kubeconfig`], before flags are applied and the whole is checked.
    pub(super) fn read_kubeconfig(
        path: &Path,
        context: Option<&str>,
        peer: Peer,
    ) -> Result<UpstreamConfig, ConfigError> {
        let field = match peer {
            Peer::ApiServer => "--kubeconfig",
            Peer::Receiver => "the webhook's kubeconfig",
        };
        let text = crate::regular_file::read_to_string(path).map_err(|source| {
            ConfigError::Read { field: field.to_owned(), path: path.to_owned(), source }
        })?;
        Reader { path, folder: path.parent().unwrap_or(Path::new("")), peer }.read(&text, context)
    }
}

struct Reader<'a> {
    path: &'a Path,
    /// Relative paths in the file begin here.
    folder: &'a Path,
    peer: Peer,
}

impl Reader<'_> {
    fn read(&self, text: &str, context: Option<&str>) -> Result<UpstreamConfig, ConfigError> {
        let file: Kubeconfig = serde_yaml::from_str(text).map_err(|error| self.yaml(&error))?;
        let name = match context {
            Some(name) => name,
            None if file.current_context.is_empty() => {
                return Err(self.wrong(
                    "current-context",
                    &format!("is not set; set it{} one of {}", self.by_flag(), {
                        names(file.contexts.iter().map(|c| c.name.as_str()))
                    }),
                ));
            }
            None => &file.current_context,
        };
        let context = file.contexts.iter().find(|c| c.name == name).ok_or_else(|| {
            let known = names(file.contexts.iter().map(|c| c.name.as_str()));
            self.wrong(
                "contexts",
                &match self.peer {
                    Peer::ApiServer => {
                        format!("has no {name:?}; choose with --context one of {known}")
                    }
                    Peer::Receiver => {
                        format!("has no {name:?}; set current-context to one of {known}")
                    }
                },
            )
        })?;
        let context_field = format!("contexts[{name}].context");
        let cluster_name = &context.context.cluster;
        let cluster = file.clusters.iter().find(|c| c.name == *cluster_name).ok_or_else(|| {
            let known = names(file.clusters.iter().map(|c| c.name.as_str()));
            let reason = format!("{cluster_name:?} is not in clusters; there are {known}");
            self.wrong(&format!("{context_field}.cluster"), &reason)
        })?;
        let user_name = &context.context.user;
        let user = match file.users.iter().find(|u| u.name == *user_name) {
            Some(user) => &user.user,
            None if user_name.is_empty() => &User::default(),
            None => {
                let known = names(file.users.iter().map(|u| u.name.as_str()));
                let reason = format!("{user_name:?} is not in users; there are {known}");
                return Err(self.wrong(&format!("{context_field}.user"), &reason));
            }
        };
        let cluster_field = format!("clusters[{cluster_name}].cluster");
        let user_field = format!("users[{user_name}].user");
        self.upstream(&cluster.cluster, &cluster_field, user, &user_field)
    }

    fn upstream(
        &self,
        cluster: &Cluster,
        cluster_field: &str,
        user: &User,
        user_field: &str,
    ) -> Result<UpstreamConfig, ConfigError> {
        let proxy_field = format!("{cluster_field}.proxy-url");
        let proxy = match (given(&cluster.proxy_url), self.peer) {
            (None, _) => None,
            (Some(url), Peer::Receiver) => Some(ProxyUrl::parse(url, &self.field(&proxy_field))?),
            (Some(_), Peer::ApiServer) => {
                return Err(self.wrong(
                    &proxy_field,
                    "is not supported; put the proxy where it reaches the API server directly",
                ));
            }
        };
        if cluster.server.is_empty() {
            return Err(self.wrong(
                &format!("{cluster_field}.server"),
                match self.peer {
                    Peer::ApiServer => "is missing; give a URL like https://10.0.0.1:6443",
                    Peer::Receiver => {
                        "is missing; give a URL like https://audit.example.com/events"
                    }
                },
            ));
        }
        let server =
            Endpoint::parse(&cluster.server, &self.field(&format!("{cluster_field}.server")))?;
        let ca = self.pem(
            (cluster_field, "certificate-authority"),
            &cluster.certificate_authority,
            &cluster.certificate_authority_data,
        )?;
        let trust = match (ca, cluster.insecure_skip_tls_verify) {
            (Some(_), true) => {
                return Err(self.wrong(
                    &format!("{cluster_field}.insecure-skip-tls-verify"),
                    "cannot stand beside certificate-authority; remove one of them",
                ));
            }
            (Some(pem), false) => Trust::Ca(pem),
            (None, true) => Trust::Insecure,
            (None, false) => Trust::Unset,
        };
        let tls_server_name = match given(&cluster.tls_server_name) {
            Some(name) => Some(parse_server_name(
                name,
                &self.field(&format!("{cluster_field}.tls-server-name")),
            )?),
            None => None,
        };
        Ok(UpstreamConfig {
            server,
            trust,
            tls_server_name,
            client_certificate: self.client_certificate(user, user_field)?,
            credentials: self.credentials(user, user_field)?,
            proxy,
        })
    }

    fn client_certificate(
        &self,
        user: &User,
        field: &str,
    ) -> Result<Option<ClientCertificate>, ConfigError> {
        let certificate = self.pem(
            (field, "client-certificate"),
            &user.client_certificate,
            &user.client_certificate_data,
        )?;
        let key = self.pem((field, "client-key"), &user.client_key, &user.client_key_data)?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(ClientCertificate { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(self.wrong(
                &format!("{field}.client-certificate"),
                "needs client-key or client-key-data",
            )),
            (None, Some(_)) => Err(self.wrong(
                &format!("{field}.client-key"),
                "needs client-certificate or client-certificate-data",
            )),
        }
    }

    fn credentials(&self, user: &User, field: &str) -> Result<Option<Credentials>, ConfigError> {
        for (name, set) in
            [("exec", user.exec.is_some()), ("auth-provider", user.auth_provider.is_some())]
        {
            if set {
                let advice = match self.peer {
                    Peer::ApiServer => {
                        "is not supported; give the proxy credentials of its own: a service \
                         account token (tokenFile, or --upstream-token-file) or a client \
                         certificate"
                    }
                    Peer::Receiver => {
                        "is not supported; give the proxy credentials of its own: a token \
                         (tokenFile), a password or a client certificate"
                    }
                };
                return Err(self.wrong(&format!("{field}.{name}"), advice));
            }
        }
        if given(&user.impersonate).is_some() {
            return Err(self.wrong(
                &format!("{field}.as"),
                match self.peer {
                    Peer::ApiServer => {
                        "is not supported; the proxy speaks for its clients, so give it a user \
                         without impersonation"
                    }
                    Peer::Receiver => "is not supported; give a user without impersonation",
                },
            ));
        }
        // client-go: tokenFile wins over token; either of them and a password is an error.
        let token = match (given(&user.token_file), given(&user.token)) {
            (Some(path), _) => Some(Credentials::token_file(
                &self.folder.join(path),
                &self.field(&format!("{field}.tokenFile")),
            )?),
            (None, Some(token)) => {
                Some(Credentials::token(token, &self.field(&format!("{field}.token")))?)
            }
            (None, None) => None,
        };
        let password =
            (given(&user.username).is_some() || given(&user.password).is_some()).then(|| {
                Credentials::basic(
                    user.username.as_deref().unwrap_or_default(),
                    user.password.as_deref().unwrap_or_default(),
                )
            });
        match (token, password) {
            (Some(_), Some(_)) => Err(self.wrong(
                &format!("{field}.username"),
                "cannot stand beside a token; remove one of them",
            )),
            (token, password) => Ok(token.or(password)),
        }
    }

    /// `<name>` or `<name>-data`; the latter wins, as in client-go.
    fn pem(
        &self,
        (field, name): (&str, &str),
        path: &Option<String>,
        data: &Option<String>,
    ) -> Result<Option<Pem>, ConfigError> {
        if let Some(data) = given(data) {
            let field = self.field(&format!("{field}.{name}-data"));
            let packed: String = data.split_ascii_whitespace().collect();
            let bytes =
                STANDARD.decode(packed).map_err(|_| ConfigError::field(&field, "is not base64"))?;
            return Ok(Some(Pem::Data { field, bytes }));
        }
        Ok(given(path).map(|path| {
            Pem::file(self.field(&format!("{field}.{name}")), self.folder.join(PathBuf::from(path)))
        }))
    }

    /// How else a context can be chosen.
    fn by_flag(&self) -> &'static str {
        match self.peer {
            Peer::ApiServer => ", or choose with --context",
            Peer::Receiver => " to",
        }
    }

    fn field(&self, field: &str) -> String {
        format!("{}: {field}", self.path.display())
    }

    fn wrong(&self, field: &str, reason: &str) -> ConfigError {
        ConfigError::field(self.field(field), reason)
    }

    fn yaml(&self, error: &serde_yaml::Error) -> ConfigError {
        let location = error.location();
        // Without the snippet: the lines around an error in a kubeconfig are mostly credentials.
        let reason = error.without_snippet().to_string();
        // The place is said by `ConfigError` already.
        let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
        ConfigError::Yaml {
            path: self.path.to_owned(),
            line: location.as_ref().map_or(1, |l| l.line()),
            column: location.as_ref().map_or(1, |l| l.column()),
            reason,
        }
    }
}

/// A value that is there and not empty; client-go knows no other difference.
fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
