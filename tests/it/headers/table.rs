//! The attacks, as raw requests.

/// The permitted outcome of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The request is forwarded with the identity that the proxy sets, and no other.
    Stamped,
    /// The request is not forwarded, and the client gets a 4xx or a closed connection.
    Refused,
}

/// One attack.
pub struct Attack {
    pub name: &'static str,
    /// The bytes; `{target}` and `{token}` are filled in.
    pub request: &'static str,
    /// The required outcome; `None` if both are safe.
    pub expect: Option<Outcome>,
    /// Identity headers that are legitimate, and therefore forwarded as well.
    pub adds: &'static [(&'static str, &'static str)],
    /// Headers that must not be forwarded.
    pub removed: &'static [&'static str],
    /// Whether the request may contain a second, smuggled one.
    pub is_smuggling: bool,
    /// The only mode to which the attack applies.
    pub mode: Option<&'static str>,
}

impl Attack {
    /// Returns whether the attack applies to a mode.
    pub fn applies_to(&self, identity: &str) -> bool {
        self.mode.is_none_or(|mode| mode == identity)
    }

    const fn new(name: &'static str, request: &'static str) -> Self {
        let (adds, removed): (&[_], &[_]) = (&[], &[]);
        Self { name, request, expect: None, adds, removed, is_smuggling: false, mode: None }
    }

    const fn stamped(mut self) -> Self {
        self.expect = Some(Outcome::Stamped);
        self
    }

    const fn refused(mut self) -> Self {
        self.expect = Some(Outcome::Refused);
        self
    }

    const fn without(mut self, removed: &'static [&'static str]) -> Self {
        self.removed = removed;
        self
    }

    const fn with(mut self, adds: &'static [(&'static str, &'static str)]) -> Self {
        self.adds = adds;
        self
    }

    const fn smuggling(mut self) -> Self {
        self.is_smuggling = true;
        self
    }

    const fn only(mut self, mode: &'static str) -> Self {
        self.mode = Some(mode);
        self
    }
}

/// A GET of the target with these header lines.
macro_rules! get {
    ($($line:literal),*) => {
        concat!("GET {target} HTTP/1.1\r\nHost: k\r\n{token}", $($line, "\r\n",)* "\r\n")
    };
}

/// A POST of the target with these header lines and what follows them.
macro_rules! post {
    ([$($line:literal),*], $rest:literal) => {
        concat!("POST {target} HTTP/1.1\r\nHost: k\r\n{token}", $($line, "\r\n",)* "\r\n", $rest)
    };
}

pub const ATTACKS: &[Attack] = &[
    // Identity headers of a front proxy, in all spellings.
    Attack::new("X-Remote-User", get!("X-Remote-User: root")).stamped(),
    Attack::new("lower case", get!("x-remote-user: root")).stamped(),
    Attack::new("mixed case", get!("x-ReMoTe-UsEr: root")).stamped(),
    Attack::new("upper case", get!("X-REMOTE-GROUP: system:masters")).stamped(),
    Attack::new("twice", get!("X-Remote-User: root", "X-Remote-User: alice")).stamped(),
    Attack::new("two groups", get!("X-Remote-Group: a", "X-Remote-Group: system:masters"))
        .stamped(),
    Attack::new("uid", get!("X-Remote-Uid: 0")).stamped(),
    Attack::new("extra", get!("X-Remote-Extra-Scopes: all")).stamped(),
    Attack::new("extra without a key", get!("X-Remote-Extra-: all")).stamped(),
    Attack::new("extra, percent", get!("X-Remote-Extra-Acme.com%2fProject: p")).stamped(),
    Attack::new(
        "extra of the stamped name",
        get!("X-Remote-Extra-authentication.kubernetes.io%2fcredential-id: X509SHA256=00"),
    )
    .stamped(),
    Attack::new("empty value", get!("X-Remote-User:")).stamped(),
    Attack::new("spaces around the value", get!("X-Remote-User:  \t root \t")).stamped(),
    Attack::new("a list in one value", get!("X-Remote-Group: a, system:masters")).stamped(),
    Attack::new("non-ASCII value", get!("X-Remote-User: r\u{f6}\u{f6}t")).stamped(),
    Attack::new("underscores", get!("X_Remote_User: root")).refused(),
    Attack::new("one underscore", get!("X-Remote_User: root")).refused(),
    Attack::new("the other underscore", get!("X_Remote-Group: system:masters")).refused(),
    Attack::new("underscore in extra", get!("X-Remote_Extra_Scopes: all")).refused(),
    Attack::new("percent-encoded hyphen", get!("X%2dRemote%2dUser: root")),
    Attack::new("percent-encoded letter", get!("X-%52emote-User: root")),
    Attack::new("space before the colon", get!("X-Remote-User : root")).refused(),
    Attack::new("tab before the colon", get!("X-Remote-User\t: root")).refused(),
    Attack::new("space before the name", get!("X-Other: 1", " X-Remote-User: root")),
    Attack::new("obs-fold of the value", get!("X-Remote-User: ro", "\tot")),
    Attack::new("fold into the user agent", get!("User-Agent: a", "  X-Remote-User: root")),
    Attack::new(
        "first line folded",
        "GET {target} HTTP/1.1\r\n X-Remote-User: root\r\nHost: k\r\n{token}\r\n",
    ),
    Attack::new("NUL in the name", get!("X-Remote-User\0: root")).refused(),
    Attack::new("NUL in the value", get!("X-Remote-User: a\0root")).refused(),
    Attack::new("bare CR in a value", get!("X-Other: a\rX-Remote-User: root")).refused(),
    Attack::new("bare LF as line end", get!("X-Other: a\nX-Remote-User: root")),
    Attack::new("only bare LF", "GET {target} HTTP/1.1\nHost: k\nX-Remote-User: root\n{token}\n"),
    // Names that the next hop would remove.
    Attack::new("Connection names the user", get!("Connection: X-Remote-User")).stamped(),
    Attack::new("Connection names groups", get!("Connection: close, X-Remote-Group")).stamped(),
    Attack::new(
        "Connection names the extra",
        get!("Connection: x-remote-extra-authentication.kubernetes.io%2fcredential-id"),
    )
    .stamped(),
    Attack::new(
        "Connection names all, twice",
        get!("Connection: Impersonate-User", "Connection: Impersonate-Group, X-Remote-Uid"),
    )
    .stamped(),
    Attack::new("Connection names Authorization", get!("Connection: Authorization")),
    Attack::new("Connection names Host", get!("Connection: Host, Audit-ID")),
    Attack::new("Connection names another", get!("Connection: X-Secret", "X-Secret: 1"))
        .stamped()
        .without(&["x-secret"]),
    // Hop-by-hop headers.
    Attack::new("Keep-Alive", get!("Connection: keep-alive", "Keep-Alive: timeout=9"))
        .stamped()
        .without(&["keep-alive"]),
    Attack::new("TE", get!("TE: gzip, trailers", "Connection: TE")),
    Attack::new("Proxy-Authorization", get!("Proxy-Authorization: Basic cm9vdDo="))
        .stamped()
        .without(&["proxy-authorization"]),
    Attack::new("Proxy-Connection", get!("Proxy-Connection: keep-alive"))
        .stamped()
        .without(&["proxy-connection"]),
    Attack::new("Upgrade without Connection", get!("Upgrade: websocket")).without(&["upgrade"]),
    Attack::new(
        "h2c upgrade",
        get!(
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
        ),
    )
    .without(&["http2-settings"]),
    Attack::new(
        "Trailer",
        post!(
            ["Trailer: X-Remote-User", "Transfer-Encoding: chunked"],
            "2\r\n{}\r\n0\r\nX-Remote-User: root\r\n\r\n"
        ),
    )
    .smuggling(),
    // Credentials must not be forwarded.
    Attack::new("basic credentials", get!("Authorization: Basic cm9vdDpyb290"))
        .only("request-header"),
    Attack::new("a good token beside the certificate", get!("Authorization: Bearer carol-token"))
        .stamped()
        .only("request-header"),
    Attack::new("a bad token beside the certificate", get!("Authorization: Bearer wrong"))
        .stamped()
        .only("request-header"),
    Attack::new(
        "two Authorization lines",
        get!("Authorization: Bearer wrong", "Authorization: Bearer admin-token"),
    )
    .stamped()
    .only("impersonate"),
    // Headers that only look like impersonation.
    Attack::new("unknown form", get!("Impersonate-Everything: 1")),
    Attack::new("underscores in Impersonate", get!("Impersonate_User: root")).refused(),
    Attack::new(
        "underscore in the group",
        get!("Impersonate-User: bob", "Impersonate_Group: system:masters"),
    )
    .refused(),
    Attack::new("only a group", get!("Impersonate-Group: system:masters")).refused(),
    Attack::new("only an extra", get!("Impersonate-Extra-Scopes: all")).refused(),
    Attack::new("only a uid", get!("Impersonate-Uid: 0")).refused(),
    Attack::new("impersonation that is legitimate", get!("Impersonate-User: bob"))
        .stamped()
        .with(&[("impersonate-user", "bob")])
        .only("request-header"),
    Attack::new(
        "Connection removes the impersonation",
        get!("Impersonate-User: bob", "Connection: Impersonate-User"),
    )
    .with(&[("impersonate-user", "bob")])
    .only("request-header"),
    // Ambiguous request boundaries.
    Attack::new(
        "length and chunks",
        post!(
            ["Content-Length: 5", "Transfer-Encoding: chunked"],
            "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: k\r\nX-Remote-User: root\r\n\r\n"
        ),
    )
    .smuggling(),
    Attack::new(
        "chunks and length",
        post!(
            ["Transfer-Encoding: chunked", "Content-Length: 60"],
            "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: k\r\nX-Remote-User: root\r\n\r\n"
        ),
    )
    .smuggling(),
    Attack::new(
        "two lengths",
        post!(
            ["Content-Length: 2", "Content-Length: 40"],
            "{}GET /smuggled HTTP/1.1\r\nHost: k\r\n\r\n"
        ),
    )
    .refused()
    .smuggling(),
    Attack::new(
        "a list of lengths",
        post!(["Content-Length: 2, 40"], "{}GET /smuggled HTTP/1.1\r\nHost: k\r\n\r\n"),
    )
    .refused()
    .smuggling(),
    Attack::new(
        "signed length",
        post!(["Content-Length: +2"], "{}GET /smuggled HTTP/1.1\r\nHost: k\r\n\r\n"),
    )
    .refused()
    .smuggling(),
    Attack::new(
        "hidden chunked",
        post!(
            ["Transfer-Encoding: xchunked"],
            "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: k\r\n\r\n"
        ),
    )
    .refused()
    .smuggling(),
    Attack::new(
        "chunked not last",
        post!(
            ["Transfer-Encoding: chunked, identity"],
            "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: k\r\n\r\n"
        ),
    )
    .refused()
    .smuggling(),
    Attack::new(
        "chunks in HTTP/1.0",
        "POST {target} HTTP/1.0\r\nHost: k\r\n{token}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: k\r\n\r\n",
    )
    .smuggling(),
    Attack::new(
        "a body of an upgrade",
        post!(["Connection: Upgrade", "Upgrade: websocket", "Content-Length: 38"], "GET /smuggled HTTP/1.1\r\nHost: kkkkk\r\n\r\n"),
    )
    .smuggling(),
    Attack::new(
        "chunks of an upgrade",
        post!(["Connection: Upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked"], "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: k\r\n\r\n"),
    )
    .smuggling(),
    Attack::new("underscored length", post!(["Content-Length: 2", "Content_Length: 60"], "{}")),
    // Ambiguous target servers.
    Attack::new(
        "absolute form",
        "GET https://other/{target} HTTP/1.1\r\nHost: k\r\n{token}X-Remote-User: root\r\n\r\n",
    ),
    Attack::new("two hosts", get!("Host: other", "X-Remote-User: root")),
    Attack::new("no host", "GET {target} HTTP/1.1\r\n{token}X-Remote-User: root\r\n\r\n"),
    Attack::new(
        "forwarded host",
        get!("X-Forwarded-Host: other", "X-Forwarded-User: other", "X-Original-URL: /smuggled"),
    )
    .stamped(),
    Attack::new("CONNECT", "CONNECT smuggled:443 HTTP/1.1\r\nHost: smuggled:443\r\n{token}\r\n")
        .refused(),
    Attack::new(
        "expectation",
        post!(["Expect: 100-continue", "X-Remote-User: root", "Content-Length: 2"], "{}"),
    )
    .stamped(),
    Attack::new(
        "HTTP/1.0",
        "GET {target} HTTP/1.0\r\nHost: k\r\n{token}X-Remote-User: root\r\n\r\n",
    ),
];

/// Attacks over HTTP/2, where names are in lower case and lines are not folded.
pub const HTTP2_ATTACKS: &[(&str, &[(&str, &str)])] = &[
    ("user", &[("x-remote-user", "root")]),
    ("user twice", &[("x-remote-user", "root"), ("x-remote-user", "alice")]),
    ("group", &[("x-remote-group", "system:masters")]),
    ("uid", &[("x-remote-uid", "0")]),
    ("extra", &[("x-remote-extra-scopes", "all")]),
    ("underscores", &[("x_remote_user", "root")]),
    ("underscore in extra", &[("x-remote_extra-scopes", "all")]),
    ("percent", &[("x%2dremote%2duser", "root")]),
    ("te", &[("te", "trailers"), ("x-remote-user", "root")]),
    ("proxy credentials", &[("proxy-authorization", "Basic cm9vdDo=")]),
    ("token beside the certificate", &[("authorization", "Bearer carol-token")]),
    ("unknown impersonation", &[("impersonate-everything", "1")]),
    ("underscored impersonation", &[("impersonate_user", "root")]),
    ("group alone", &[("impersonate-group", "system:masters")]),
    ("two hosts", &[("host", "other"), ("x-remote-user", "root")]),
];
