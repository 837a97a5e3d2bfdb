//! The flags that choose events, the same for `query`, `report`, and `follow`.

/// Which events.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Filters (repeat a flag for or, !VALUE for not, * matches anything)")]
pub struct FilterArgs {
    /// Events from this time on: RFC 3339, -2h, today, 'yesterday 14:00', 14:00
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Events before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<String>,
    /// User name, as authenticated
    #[arg(short, long, value_name = "USER")]
    pub user: Vec<String>,
    /// A group of the user
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// User that is this service account
    #[arg(long, value_name = "NAMESPACE:NAME")]
    pub service_account: Vec<String>,
    /// Requests executed as another user, or as USER
    #[arg(long, value_name = "USER", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    pub impersonated: Vec<String>,
    /// Requests by system:anonymous
    #[arg(long)]
    pub anonymous: bool,
    /// Requests by users other than system:*
    #[arg(long)]
    pub human: bool,
    /// Kubernetes verb, such as delete
    #[arg(long, value_name = "VERB")]
    pub verb: Vec<String>,
    /// Resource, such as secrets, deployments.apps, or pods/exec; pods/ is pods without
    /// subresources
    #[arg(long, value_name = "RESOURCE[.GROUP][/SUBRESOURCE]")]
    pub resource: Vec<String>,
    /// Namespace of the object
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Vec<String>,
    /// Name of the object
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,
    /// Request URI, with its query
    #[arg(long, value_name = "URI")]
    pub uri: Vec<String>,
    /// Status codes, comma-separated: 403, 4xx, '>=500', 400-404
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    pub code: Vec<String>,
    /// Failed requests: code 400 and above
    #[arg(long)]
    pub failed: bool,
    /// Requests that were not allowed: code 403
    #[arg(long)]
    pub forbidden: bool,
    /// Audit ID
    #[arg(long, value_name = "ID")]
    pub audit_id: Vec<String>,
    /// A source address: an IP address or a CIDR block
    #[arg(long, value_name = "CIDR")]
    pub source_ip: Vec<String>,
    /// User agent, such as 'kubectl/*'
    #[arg(long, value_name = "AGENT")]
    pub user_agent: Vec<String>,
    /// Audit level: Metadata, Request, or RequestResponse
    #[arg(long, value_name = "LEVEL", ignore_case = true)]
    pub level: Vec<String>,
    /// The fieldManager parameter of the request
    #[arg(long, value_name = "MANAGER")]
    pub field_manager: Vec<String>,
    /// Requests that took at least this long, such as 1s or 250ms
    #[arg(long, value_name = "DURATION")]
    pub min_latency: Option<String>,
    /// An annotation, or an annotation with this value
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub annotation: Vec<String>,
    /// A CEL expression over the event: 'verb == "get" && objectRef.name.startsWith("db-")'
    #[arg(long = "where", value_name = "CEL")]
    pub condition: Vec<String>,
}
