//! Kubeconfigs: loaded and merged like kubectl does, and turned into the settings of a connection.

mod exec;
mod schema;
mod source;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use self::schema::{Cluster, File, NamedCluster, NamedContext, NamedUser, User, given};
pub use self::source::KubeconfigSource;
use crate::config::{ClientCertificate, ClientConfig, Peer, Pem, Trust, parse_server_name};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::ConfigError;
use crate::exec::{ExecCredentials, ExecPlugin};
use crate::tunnel::ProxyUrl;

/// One kubeconfig, or several merged into one. If several files define the same context, cluster or
/// user, the first one wins as a whole; so does the first `current-context`.
#[derive(Default)]
pub struct Kubeconfig {
    /// The files that were read.
    files: Vec<PathBuf>,
    current_context: String,
    contexts: Vec<Entry<NamedContext>>,
    clusters: Vec<Entry<NamedCluster>>,
    users: Vec<Entry<NamedUser>>,
}

/// An entry, and the file that defines it.
struct Entry<T> {
    file: Arc<Path>,
    value: T,
}

/// Which parts of a kubeconfig to use.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// The context; the current one if `None`.
    pub context: Option<&'a str>,
    /// The server that it describes.
    pub peer: Peer,
    /// How long a credential plugin may run.
    pub plugin_timeout: Duration,
}

impl Selection<'static> {
    /// Returns the current context for `peer`.
    pub fn current(peer: Peer) -> Selection<'static> {
        Selection { context: None, peer, plugin_timeout: ExecPlugin::TIMEOUT }
    }
}

/// The names that a context connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedContext {
    /// The context.
    pub context: String,
    /// The cluster; the file that defines it is the base of its relative paths.
    pub cluster: (String, PathBuf),
    /// The user, if the context names one.
    pub user: Option<(String, PathBuf)>,
    /// The file that defines the context.
    pub file: PathBuf,
}

impl Kubeconfig {
    /// Parses one file; `path` is named by errors and is the base of relative paths.
    ///
    /// # Errors
    /// If it is not YAML or not a kubeconfig.
    pub fn parse(text: &str, path: &Path) -> Result<Kubeconfig, ConfigError> {
        let mut kubeconfig = Kubeconfig::default();
        kubeconfig.merge(text, path)?;
        Ok(kubeconfig)
    }

    /// Adds a further file, whose entries apply where no earlier file has any of that name.
    fn merge(&mut self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let file: File = match text.trim().is_empty() {
            true => File::default(),
            false => serde_yaml::from_str(text).map_err(|error| yaml_error(path, &error))?,
        };
        let origin: Arc<Path> = path.into();
        if self.current_context.is_empty() {
            self.current_context = file.current_context;
        }
        let known =
            |all: &[Entry<NamedContext>], name: &str| all.iter().any(|e| e.value.name == name);
        for value in file.contexts {
            if !known(&self.contexts, &value.name) {
                self.contexts.push(Entry { file: Arc::clone(&origin), value });
            }
        }
        for value in file.clusters {
            if !self.clusters.iter().any(|e| e.value.name == value.name) {
                self.clusters.push(Entry { file: Arc::clone(&origin), value });
            }
        }
        for value in file.users {
            if !self.users.iter().any(|e| e.value.name == value.name) {
                self.users.push(Entry { file: Arc::clone(&origin), value });
            }
        }
        self.files.push(path.to_owned());
        Ok(())
    }

    /// Returns whether there is nothing in it; kubectl uses the in-cluster configuration then.
    pub fn is_empty(&self) -> bool {
        self.current_context.is_empty()
            && self.contexts.is_empty()
            && self.clusters.is_empty()
            && self.users.is_empty()
    }

    /// Returns the settings for the server of the selected context.
    ///
    /// # Errors
    /// Returns what is missing or invalid, with file, field and remedy.
    pub fn client_config(&self, selection: Selection<'_>) -> Result<ClientConfig, ConfigError> {
        let (context, cluster, user) = self.select(selection)?;
        let _ = context;
        Reader { selection }.client_config(cluster, user)
    }

    /// Returns the names that the selected context connects.
    ///
    /// # Errors
    /// Like [`Kubeconfig::client_config`].
    pub fn selected(&self, selection: Selection<'_>) -> Result<SelectedContext, ConfigError> {
        let (context, cluster, user) = self.select(selection)?;
        let named = |file: &Arc<Path>, name: &str| (name.to_owned(), file.to_path_buf());
        Ok(SelectedContext {
            context: context.value.name.clone(),
            cluster: named(&cluster.file, &cluster.value.name),
            user: user.map(|user| named(&user.file, &user.value.name)),
            file: context.file.to_path_buf(),
        })
    }

    #[expect(clippy::type_complexity, reason = "three entries that belong together")]
    fn select(
        &self,
        selection: Selection<'_>,
    ) -> Result<(&Entry<NamedContext>, &Entry<NamedCluster>, Option<&Entry<NamedUser>>), ConfigError>
    {
        let peer = selection.peer;
        let known = || names(self.contexts.iter().map(|context| context.value.name.as_str()));
        let name = match selection.context {
            Some(name) => name,
            None if self.current_context.is_empty() => {
                let how = match peer {
                    Peer::ApiServer => ", or choose with --context",
                    Peer::Webhook => " to",
                };
                let reason = format!("is not set; set it{how} one of {}", known());
                return Err(self.wrong("current-context", &reason));
            }
            None => &self.current_context,
        };
        let context = self.contexts.iter().find(|context| context.value.name == name);
        let context = context.ok_or_else(|| {
            let how = match peer {
                Peer::ApiServer => "choose with --context",
                Peer::Webhook => "set current-context to",
            };
            self.wrong("contexts", &format!("has no {name:?}; {how} one of {}", known()))
        })?;
        let field =
            |member: &str| field(&context.file, &format!("contexts[{name}].context.{member}"));
        let cluster_name = &context.value.context.cluster;
        let cluster = self.clusters.iter().find(|cluster| cluster.value.name == *cluster_name);
        let cluster = cluster.ok_or_else(|| {
            let known = names(self.clusters.iter().map(|cluster| cluster.value.name.as_str()));
            let reason = format!("{cluster_name:?} is not in clusters; there are {known}");
            ConfigError::field(field("cluster"), reason)
        })?;
        let user_name = &context.value.context.user;
        let user = match self.users.iter().find(|user| user.value.name == *user_name) {
            Some(user) => Some(user),
            None if user_name.is_empty() => None,
            None => {
                let known = names(self.users.iter().map(|user| user.value.name.as_str()));
                let reason = format!("{user_name:?} is not in users; there are {known}");
                return Err(ConfigError::field(field("user"), reason));
            }
        };
        Ok((context, cluster, user))
    }

    /// Returns an error about all files together.
    fn wrong(&self, name: &str, reason: &str) -> ConfigError {
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        ConfigError::field(format!("{}: {name}", files.join(", ")), reason)
    }
}

/// Turns the entries of one context into settings.
struct Reader<'a> {
    selection: Selection<'a>,
}

/// A mapping in a file, for error messages and relative paths.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a Path,
    field: &'a str,
}

impl Place<'_> {
    fn member(&self, name: &str) -> String {
        field(self.file, &format!("{}.{name}", self.field))
    }

    fn wrong(&self, name: &str, reason: &str) -> ConfigError {
        ConfigError::field(self.member(name), reason)
    }

    /// Returns a path in the file; relative ones begin at its directory.
    fn path(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// `<name>` or `<name>-data`; the latter wins, like in client-go.
    fn pem(
        &self,
        name: &str,
        path: &Option<String>,
        data: &Option<String>,
    ) -> Result<Option<Pem>, ConfigError> {
        if let Some(data) = given(data) {
            let field = self.member(&format!("{name}-data"));
            let packed: String = data.split_ascii_whitespace().collect();
            let bytes =
                STANDARD.decode(packed).map_err(|_| ConfigError::field(&field, "is not base64"))?;
            return Ok(Some(Pem::Data { field, bytes }));
        }
        Ok(given(path).map(|path| Pem::file(self.member(name), self.path(path))))
    }
}

impl Reader<'_> {
    fn client_config(
        &self,
        cluster: &Entry<NamedCluster>,
        user: Option<&Entry<NamedUser>>,
    ) -> Result<ClientConfig, ConfigError> {
        let field = format!("clusters[{}].cluster", cluster.value.name);
        let place = Place { file: &cluster.file, field: &field };
        let mut config = self.cluster(&cluster.value.cluster, place)?;
        let Some(user) = user else { return Ok(config) };
        let field = format!("users[{}].user", user.value.name);
        let place = Place { file: &user.file, field: &field };
        let user = &user.value.user;
        config.client_certificate = client_certificate(user, place)?;
        config.credentials = self.credentials(user, place)?;
        if let Some(exec) = &user.exec {
            if config.client_certificate.is_some() || config.credentials.is_some() {
                // client-go's rule.
                tracing::warn!(
                    field = place.member("exec"),
                    "the credential plugin is not used, because the user has a token, a password \
                     or a client certificate"
                );
            } else {
                let plugin = self.plugin(exec, place, &config, &cluster.value.cluster)?;
                let plugin = ExecCredentials::new(plugin);
                let certificate = ClientCertificate::Plugin(Arc::clone(&plugin));
                config.client_certificate = Some(certificate);
                config.credentials = Some(Credentials::Exec(plugin));
            }
        }
        Ok(config)
    }

    fn cluster(&self, cluster: &Cluster, place: Place<'_>) -> Result<ClientConfig, ConfigError> {
        if cluster.server.is_empty() {
            return Err(place.wrong(
                "server",
                match self.selection.peer {
                    Peer::ApiServer => "is missing; give a URL like https://10.0.0.1:6443",
                    Peer::Webhook => "is missing; give a URL like https://audit.example.com/events",
                },
            ));
        }
        let mut config =
            ClientConfig::new(Endpoint::parse(&cluster.server, &place.member("server"))?);
        config.proxy = match given(&cluster.proxy_url) {
            Some(url) => Some(ProxyUrl::parse(url, &place.member("proxy-url"))?),
            None => None,
        };
        let ca = place.pem(
            "certificate-authority",
            &cluster.certificate_authority,
            &cluster.certificate_authority_data,
        )?;
        config.trust = match (ca, cluster.insecure_skip_tls_verify) {
            (Some(_), true) => {
                return Err(place.wrong(
                    "insecure-skip-tls-verify",
                    "cannot be combined with certificate-authority; remove one of them",
                ));
            }
            (Some(pem), false) => Trust::Ca(pem),
            (None, true) => Trust::Insecure,
            // client-go's rule.
            (None, false) => Trust::System,
        };
        config.tls_server_name = match given(&cluster.tls_server_name) {
            Some(name) => Some(parse_server_name(name, &place.member("tls-server-name"))?),
            None => None,
        };
        Ok(config)
    }

    fn credentials(
        &self,
        user: &User,
        place: Place<'_>,
    ) -> Result<Option<Credentials>, ConfigError> {
        if let Some(provider) = &user.auth_provider {
            return Err(place.wrong("auth-provider", &exec::replacement(&provider.name)));
        }
        if given(&user.impersonate).is_some() {
            return Err(place.wrong(
                "as",
                match self.selection.peer {
                    Peer::ApiServer => {
                        "is not supported; the proxy acts for its clients, so give it a user \
                         without impersonation"
                    }
                    Peer::Webhook => "is not supported; give a user without impersonation",
                },
            ));
        }
        // client-go: tokenFile wins over token; either of them and a password is an error.
        let token = match (given(&user.token_file), given(&user.token)) {
            (Some(path), _) => {
                Some(Credentials::token_file(&place.path(path), &place.member("tokenFile"))?)
            }
            (None, Some(token)) => Some(Credentials::token(token, &place.member("token"))?),
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
            (Some(_), Some(_)) => {
                Err(place.wrong("username", "cannot be combined with a token; remove one of them"))
            }
            (token, password) => Ok(token.or(password)),
        }
    }
}

fn client_certificate(
    user: &User,
    place: Place<'_>,
) -> Result<Option<ClientCertificate>, ConfigError> {
    let certificate =
        place.pem("client-certificate", &user.client_certificate, &user.client_certificate_data)?;
    let key = place.pem("client-key", &user.client_key, &user.client_key_data)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(ClientCertificate::Pem { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err(place.wrong("client-certificate", "needs client-key or client-key-data"))
        }
        (None, Some(_)) => {
            Err(place.wrong("client-key", "needs client-certificate or client-certificate-data"))
        }
    }
}

fn field(file: &Path, field: &str) -> String {
    format!("{}: {field}", file.display())
}

fn yaml_error(path: &Path, error: &serde_yaml::Error) -> ConfigError {
    let location = error.location();
    // Without the snippet: the lines around an error in a kubeconfig are mostly credentials.
    let reason = error.without_snippet().to_string();
    // `ConfigError` names the location already.
    let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
    ConfigError::Yaml {
        path: path.to_owned(),
        line: location.as_ref().map_or(1, |l| l.line()),
        column: location.as_ref().map_or(1, |l| l.column()),
        reason,
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
