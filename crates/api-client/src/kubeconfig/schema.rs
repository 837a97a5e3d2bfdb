//! The structure of a kubeconfig. Unknown fields are ignored, like kubectl does.

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(super) struct File {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) current_context: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) contexts: Vec<NamedContext>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) clusters: Vec<NamedCluster>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) users: Vec<NamedUser>,
}

#[derive(Deserialize, Default)]
pub(super) struct NamedContext {
    pub(super) name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) context: Context,
}

#[derive(Deserialize, Default)]
pub(super) struct Context {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) cluster: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) user: String,
}

#[derive(Deserialize, Default)]
pub(super) struct NamedCluster {
    pub(super) name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) cluster: Cluster,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Cluster {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) server: String,
    pub(super) certificate_authority: Option<String>,
    pub(super) certificate_authority_data: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) insecure_skip_tls_verify: bool,
    pub(super) tls_server_name: Option<String>,
    pub(super) proxy_url: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) disable_compression: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) extensions: Vec<NamedExtension>,
}

#[derive(Deserialize)]
pub(super) struct NamedExtension {
    pub(super) name: String,
    #[serde(default)]
    pub(super) extension: Value,
}

#[derive(Deserialize, Default)]
pub(super) struct NamedUser {
    pub(super) name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) user: User,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(super) struct User {
    pub(super) client_certificate: Option<String>,
    pub(super) client_certificate_data: Option<String>,
    pub(super) client_key: Option<String>,
    pub(super) client_key_data: Option<String>,
    pub(super) token: Option<String>,
    #[serde(rename = "tokenFile")]
    pub(super) token_file: Option<String>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) exec: Option<Exec>,
    pub(super) auth_provider: Option<AuthProvider>,
    #[serde(rename = "as")]
    pub(super) impersonate: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Exec {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) command: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) args: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) env: Vec<Variable>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) api_version: String,
    pub(super) install_hint: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) provide_cluster_info: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) interactive_mode: String,
}

#[derive(Deserialize, Default)]
pub(super) struct Variable {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) value: String,
}

#[derive(Deserialize, Default)]
pub(super) struct AuthProvider {
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) name: String,
}

/// Tools write `null` for empty lists and for fields that are not set; Go reads it as not set.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Returns a value that is set and not empty; client-go makes no other difference.
pub(super) fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}
