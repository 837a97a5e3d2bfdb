//! The entries of the new kubeconfig: cluster, user and context.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use api_client::kubeconfig::SelectedContext;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use watched_files::regular_file;

/// What was asked for.
pub(super) struct Request {
    pub(super) name: String,
    pub(super) server: String,
    pub(super) certificate_authority: Option<PathBuf>,
    pub(super) tls_server_name: Option<String>,
    pub(super) embed: bool,
}

/// Members of a cluster that describe the way to the API server, not to the proxy.
const NOT_KEPT: [&str; 6] = [
    "server",
    "certificate-authority",
    "certificate-authority-data",
    "insecure-skip-tls-verify",
    "tls-server-name",
    "proxy-url",
];

/// The entries of the new kubeconfig, each with its name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entries {
    name: String,
    cluster: Value,
    context: Map<String, Value>,
    /// `None` if the context has no user, or the user is in the file already.
    user: Option<(String, Value)>,
}

impl Entries {
    /// Reads the entries that `selected` names from their files.
    pub(super) fn read(request: &Request, selected: &SelectedContext) -> anyhow::Result<Entries> {
        let cluster = entry(&selected.cluster.1, "clusters", "cluster", &selected.cluster.0)?;
        let mut context = entry(&selected.file, "contexts", "context", &selected.context)?;
        context.insert("cluster".to_owned(), request.name.as_str().into());
        let user = match &selected.user {
            Some((name, file)) => {
                let mut user = entry(file, "users", "user", name)?;
                resolve_user(&mut user, file, name, request.embed)?;
                Some((name.clone(), Value::Object(user)))
            }
            None => None,
        };
        let cluster = new_cluster(request, cluster)?;
        Ok(Entries { name: request.name.clone(), cluster, context, user })
    }

    /// The name of the new context.
    pub(super) fn context_name(&self) -> &str {
        &self.name
    }

    /// Leaves out the user, whom the target file has already.
    pub(super) fn use_existing_user(&mut self) {
        self.user = None;
    }

    /// Gives the user another name if the target file has one of that name that is not the same.
    pub(super) fn rename_user_if_taken(&mut self, text: &str) -> anyhow::Result<()> {
        let Some((name, user)) = &mut self.user else { return Ok(()) };
        let document = parse(text)?;
        let taken = find(&document, "users", name);
        if taken.is_some_and(|taken| taken.get("user") != Some(user)) {
            name.clone_from(&self.name);
            self.context.insert("user".to_owned(), self.name.as_str().into());
        }
        Ok(())
    }

    /// The entries by the list that they belong to.
    pub(super) fn lists(&self) -> Vec<(&'static str, &str, Value)> {
        let mut lists = vec![
            ("clusters", self.name.as_str(), json!({"name": self.name, "cluster": self.cluster})),
            ("contexts", self.name.as_str(), json!({"name": self.name, "context": self.context})),
        ];
        if let Some((name, user)) = &self.user {
            lists.push(("users", name, json!({"name": name, "user": user})));
        }
        lists
    }

    /// A kubeconfig of its own.
    pub(super) fn document(&self) -> Value {
        let mut document = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": self.name,
            "clusters": [], "contexts": [], "users": [],
        });
        for (list, _, entry) in self.lists() {
            document[list] = Value::Array(vec![entry]);
        }
        document
    }
}

/// Parses a kubeconfig. An empty one is an empty mapping.
pub(super) fn parse(text: &str) -> anyhow::Result<Value> {
    if text.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let parsed: Result<Value, serde_yaml::Error> = serde_yaml::from_str(text);
    let document = parsed.map_err(|error| {
        let location = error.location();
        let (line, column) = location.map_or((1, 1), |at| (at.line(), at.column()));
        // Without the text around it, which may be a secret.
        let reason = error.without_snippet().to_string();
        let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
        anyhow!("line {line}, column {column}: {reason}")
    })?;
    match document {
        Value::Null => Ok(Value::Object(Map::new())),
        document @ Value::Object(_) => Ok(document),
        _ => Err(anyhow!(
            "is not a kubeconfig: a mapping with clusters, contexts and users is expected"
        )),
    }
}

/// Finds the entry of this name in a list.
pub(super) fn find<'a>(document: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    document.get(list)?.as_array()?.iter().find(|entry| entry["name"] == name)
}

fn entry(file: &Path, list: &str, member: &str, name: &str) -> anyhow::Result<Map<String, Value>> {
    let at = || format!("{}: {list}[{name}].{member}", file.display());
    let text = regular_file::read_to_string(file).with_context(at)?;
    let document = parse(&text).with_context(at)?;
    let entry = find(&document, list, name).and_then(|entry| entry.get(member));
    match entry {
        Some(Value::Object(members)) => Ok(members.clone()),
        None | Some(Value::Null) => Ok(Map::new()),
        Some(_) => Err(anyhow!("{}: a mapping is expected", at())),
    }
}

fn new_cluster(request: &Request, old: Map<String, Value>) -> anyhow::Result<Value> {
    let mut cluster = old;
    cluster.retain(|name, _| !NOT_KEPT.contains(&name.as_str()));
    cluster.insert("server".to_owned(), request.server.as_str().into());
    if let Some(name) = &request.tls_server_name {
        cluster.insert("tls-server-name".to_owned(), name.as_str().into());
    }
    if let Some(path) = &request.certificate_authority {
        let path = absolute(path);
        let pem = read(&path, "--certificate-authority")?;
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(anyhow!(
                "--certificate-authority: {}: has no certificate; PEM text is expected, such as \
                 that of the proxy's --tls-cert-file",
                path.display()
            ));
        }
        match request.embed {
            true => {
                cluster.insert("certificate-authority-data".to_owned(), STANDARD.encode(pem).into())
            }
            false => cluster.insert("certificate-authority".to_owned(), text(&path)?.into()),
        };
    }
    Ok(Value::Object(cluster))
}

/// Makes paths absolute, which are relative to the file, or puts what they name in their place.
fn resolve_user(
    user: &mut Map<String, Value>,
    file: &Path,
    name: &str,
    embed: bool,
) -> anyhow::Result<()> {
    let base = file.parent().unwrap_or(Path::new("")).to_owned();
    let at = |member: &str| format!("{}: users[{name}].user.{member}", file.display());
    for member in ["client-certificate", "client-key"] {
        let Some(path) = given(user, member) else { continue };
        let (path, data) = (absolute(&base.join(path)), format!("{member}-data"));
        if given(user, &data).is_some() {
            // It wins.
            user.remove(member);
        } else if embed {
            let pem = read(&path, &at(member))?;
            user.remove(member);
            user.insert(data, STANDARD.encode(pem).into());
        } else {
            user.insert(member.to_owned(), text(&path)?.into());
        }
    }
    if let Some(path) = given(user, "tokenFile") {
        // Not embedded: such tokens change.
        let path = absolute(&base.join(path));
        user.insert("tokenFile".to_owned(), text(&path)?.into());
    }
    if let Some(Value::Object(exec)) = user.get_mut("exec")
        && let Some(command) = given(exec, "command").filter(|command| command.contains('/'))
    {
        let path = absolute(&base.join(command));
        exec.insert("command".to_owned(), text(&path)?.into());
    }
    Ok(())
}

fn given(members: &Map<String, Value>, name: &str) -> Option<String> {
    members.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().ok_or_else(|| anyhow!("{}: the path is not UTF-8", path.display()))
}

fn read(path: &Path, field: &str) -> anyhow::Result<Vec<u8>> {
    regular_file::read(path).with_context(|| format!("{field}: cannot read {}", path.display()))
}
