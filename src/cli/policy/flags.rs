//! A request described by flags.

use super::request::RequestSpec;

/// Flags that describe a request.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct RequestFlags {
    /// The authenticated user; without --user and --group, the request is unauthenticated
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A group of the user; may be repeated. The user has exactly these groups
    ///
    /// Without this flag, the user has the groups that kube-apiserver adds to every user:
    /// system:authenticated (system:unauthenticated for system:anonymous), and for a ServiceAccount
    /// system:serviceaccounts and system:serviceaccounts:NAMESPACE.
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// The verb, such as get (the default), list, or create; for --url, the lower-case HTTP method
    #[arg(long, value_name = "VERB")]
    verb: Option<String>,
    /// The resource, such as pods, deployments.apps, or deployments.apps/scale
    #[arg(long, value_name = "RESOURCE[.GROUP][/SUBRESOURCE]")]
    resource: Option<String>,
    /// The namespace; without it, the object is cluster-scoped or the request is for all namespaces
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// The name of the object; a create has none when the policy is evaluated
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Path and query, instead of --resource
    #[arg(long, value_name = "PATH")]
    url: Option<String>,
}

impl RequestFlags {
    /// The request that the flags describe.
    pub(super) fn spec(&self) -> RequestSpec {
        RequestSpec {
            user: self.user.clone(),
            groups: (!self.group.is_empty()).then(|| self.group.clone()),
            verb: self.verb.clone(),
            resource: self.resource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            url: self.url.clone(),
        }
    }
}
