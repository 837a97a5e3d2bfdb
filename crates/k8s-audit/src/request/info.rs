//! Resolves method and URL to verb, API group, resource, namespace and name, like kube-apiserver's
//! `RequestInfoFactory` with its prefixes `api` and `apis`.
//!
//! The result holds ranges of the path instead of copies, so a usual request needs no allocation.

use std::borrow::Cow;

use http::Method;
use http::uri::PathAndQuery;

use super::field_selector::name_demanded;
use super::label_selector;
use super::query::{self, Plus};

/// The attributes of a request: verb, API group, resource, namespace and name.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    path: DecodedPath,
    verb: Cow<'static, str>,
    is_resource: bool,
    verb_in_path: bool,
    group: Span,
    version: Span,
    namespace: Span,
    resource: Span,
    subresource: Span,
    name: Name,
}

/// Why a URL has no [`RequestInfo`]. kube-apiserver rejects such requests before auditing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InfoError {
    /// A `%` in the path is not followed by two hexadecimal digits.
    #[error("invalid URL escape in path")]
    BadEscape,
    /// Nothing follows a verb in the path, as in `/api/v1/watch`.
    #[error("unable to determine kind and namespace from url")]
    NothingAfterVerb,
}

#[derive(Debug, Clone)]
enum DecodedPath {
    /// The path contains no percent-encoding.
    Same(PathAndQuery),
    Decoded(Box<[u8]>),
}

/// A range of the decoded path; empty by default.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Debug, Clone)]
enum Name {
    InPath(Span),
    /// From `fieldSelector=metadata.name=…`.
    FromSelector(Box<[u8]>),
}

/// Maximum number of relevant path segments: prefix, group, version, verb, `namespaces`, namespace,
/// resource, name, subresource.
const SEGMENTS: usize = 9;

impl RequestInfo {
    /// Resolves a request's method and target.
    ///
    /// # Errors
    /// Returns an [`InfoError`]. Use [`RequestInfo::unresolved`] to record such a request.
    pub fn new(method: &Method, target: &PathAndQuery) -> Result<RequestInfo, InfoError> {
        let path = if target.path().contains('%') {
            let decoded = query::decode(target.path(), Plus::IsPlus).ok_or(InfoError::BadEscape)?;
            DecodedPath::Decoded(decoded.into_owned().into())
        } else {
            DecodedPath::Same(target.clone())
        };
        let mut info = RequestInfo::non_resource(method, path);
        info.resolve(method, target.query().unwrap_or(""))?;
        Ok(info)
    }

    /// Returns a non-resource request with the undecoded path, for a URL that could not be
    /// resolved.
    pub fn unresolved(method: &Method, target: &PathAndQuery) -> RequestInfo {
        RequestInfo::non_resource(method, DecodedPath::Same(target.clone()))
    }

    fn non_resource(method: &Method, path: DecodedPath) -> RequestInfo {
        RequestInfo {
            path,
            verb: lower_case(method),
            is_resource: false,
            verb_in_path: false,
            group: Span::default(),
            version: Span::default(),
            namespace: Span::default(),
            resource: Span::default(),
            subresource: Span::default(),
            name: Name::InPath(Span::default()),
        }
    }

    fn resolve(&mut self, method: &Method, query: &str) -> Result<(), InfoError> {
        let path = self.path.as_bytes();
        let mut spans = [Span::default(); SEGMENTS];
        let mut segments = split(path, &mut spans);
        if segments.len() < 3 {
            return Ok(());
        }
        let grouped = match segments[0].of(path) {
            b"api" => false,
            b"apis" => true,
            _ => return Ok(()),
        };
        segments = &segments[1..];
        if grouped {
            if segments.len() < 3 {
                return Ok(());
            }
            self.group = segments[0];
            segments = &segments[1..];
        }
        self.is_resource = true;
        self.version = segments[0];
        segments = &segments[1..];

        let verb_in_path = match segments[0].of(path) {
            b"proxy" => Some("proxy"),
            b"watch" => Some("watch"),
            _ => None,
        };
        self.verb_in_path = verb_in_path.is_some();
        if self.verb_in_path {
            segments = &segments[1..];
            if segments.is_empty() {
                return Err(InfoError::NothingAfterVerb);
            }
        }
        let mut verb = verb_in_path.unwrap_or_else(|| verb_of(method));

        if segments[0].of(path) == b"namespaces" && segments.len() > 1 {
            self.namespace = segments[1];
            let of_namespace = |s: &Span| s.of(path) == b"status" || s.of(path) == b"finalize";
            if segments.get(2).is_some_and(|third| !of_namespace(third)) {
                segments = &segments[2..];
            }
        }
        self.resource = segments[0];
        let name = segments.get(1).copied().unwrap_or_default();
        self.name = Name::InPath(name);
        if verb != "proxy" {
            self.subresource = segments.get(2).copied().unwrap_or_default();
        }

        if name.is_empty() && verb == "get" {
            let options = ListOptions::parse(query);
            verb = if options.watch { "watch" } else { "list" };
            if let Some(name) = options.name {
                self.name = Name::FromSelector(name);
            }
        } else if name.is_empty() && verb == "delete" {
            verb = "deletecollection";
        }
        self.verb = Cow::Borrowed(verb);
        Ok(())
    }

    /// Returns the decoded path without the query. `.`, `..` and empty segments are kept.
    pub fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    /// Returns the Kubernetes verb; for non-resource requests the method in lower case. Empty for
    /// methods without a Kubernetes verb.
    pub fn verb(&self) -> &str {
        &self.verb
    }

    /// Returns whether the URL names an API resource.
    pub fn is_resource(&self) -> bool {
        self.is_resource
    }

    /// Returns the API group; empty for the core group.
    pub fn group(&self) -> &[u8] {
        self.group.of(self.path())
    }

    /// Returns the API version.
    pub fn version(&self) -> &[u8] {
        self.version.of(self.path())
    }

    /// Returns the namespace; empty for cluster-scoped objects and requests over all namespaces.
    pub fn namespace(&self) -> &[u8] {
        self.namespace.of(self.path())
    }

    /// Returns the resource, in the plural.
    pub fn resource(&self) -> &[u8] {
        self.resource.of(self.path())
    }

    /// Returns the subresource; empty if there is none.
    pub fn subresource(&self) -> &[u8] {
        self.subresource.of(self.path())
    }

    /// Returns the object's name; empty for collections.
    pub fn name(&self) -> &[u8] {
        match &self.name {
            Name::InPath(span) => span.of(self.path()),
            Name::FromSelector(name) => name,
        }
    }

    /// Returns whether authorization considers the query's selectors: for collections, unless the
    /// verb is part of the path.
    pub fn has_selectors(&self) -> bool {
        !self.verb_in_path && matches!(self.verb(), "list" | "watch" | "deletecollection")
    }

    /// Returns whether kube-apiserver treats the request as long-running: it has a
    /// `ResponseStarted` event and no deadline.
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb(), "watch" | "proxy")
            || if self.is_resource {
                matches!(
                    self.subresource(),
                    b"attach" | b"exec" | b"proxy" | b"log" | b"portforward"
                )
            } else {
                self.path().starts_with(b"/debug/pprof/")
            }
    }
}

impl DecodedPath {
    fn as_bytes(&self) -> &[u8] {
        match self {
            DecodedPath::Same(target) => target.path().as_bytes(),
            DecodedPath::Decoded(bytes) => bytes,
        }
    }
}

impl Span {
    fn of(self, path: &[u8]) -> &[u8] {
        &path[self.start as usize..self.end as usize]
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Splits the path into its first segments, without leading and trailing slashes.
fn split<'s>(path: &[u8], spans: &'s mut [Span; SEGMENTS]) -> &'s [Span] {
    let Some(first) = path.iter().position(|b| *b != b'/') else { return &[] };
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1);
    let mut start = first;
    let mut count = 0;
    for segment in path[first..end].split(|b| *b == b'/').take(SEGMENTS) {
        let stop = start + segment.len();
        // A request head is at most 1 MiB, so offsets fit.
        spans[count] = Span { start: start as u32, end: stop as u32 };
        count += 1;
        start = stop + 1;
    }
    &spans[..count]
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn lower_case(method: &Method) -> Cow<'static, str> {
    Cow::Borrowed(match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => return Cow::Owned(method.as_str().to_ascii_lowercase()),
    })
}

/// The options in the query of a collection request that affect verb and name.
struct ListOptions {
    watch: bool,
    name: Option<Box<[u8]>>,
}

impl ListOptions {
    fn parse(query: &str) -> ListOptions {
        if query.is_empty() {
            return ListOptions { watch: false, name: None };
        }
        ListOptions::parse_valid(query).unwrap_or_else(|| ListOptions {
            // If the options are invalid they are ignored, except for `watch`.
            watch: query::first(query, "watch").is_some_and(|value| is_true(&value)),
            name: None,
        })
    }

    fn parse_valid(query: &str) -> Option<ListOptions> {
        let [watch, timeout, limit, labels, fields] = query::firsts(
            query,
            ["watch", "timeoutSeconds", "limit", "labelSelector", "fieldSelector"],
        );
        for text in [timeout, limit].into_iter().flatten() {
            std::str::from_utf8(&text).ok()?.parse::<i64>().ok()?;
        }
        if let Some(text) = labels {
            label_selector::is_valid(std::str::from_utf8(&text).ok()?).then_some(())?;
        }
        let name = match fields {
            Some(text) => name_demanded(&text)?,
            None => None,
        };
        Some(ListOptions {
            watch: watch.is_some_and(|value| is_true(&value)),
            name: name.filter(|name| is_path_segment(name)),
        })
    }
}

/// Evaluates a boolean query parameter like Kubernetes: anything but `0` and `false` is true.
fn is_true(value: &[u8]) -> bool {
    value != b"0" && !value.eq_ignore_ascii_case(b"false")
}

fn is_path_segment(name: &[u8]) -> bool {
    name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&b'%')
}

#[cfg(test)]
mod tests;
