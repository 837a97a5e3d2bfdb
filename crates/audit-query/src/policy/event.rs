//! A recorded event as the request that a policy evaluates.

use std::borrow::Cow;

use crate::event::{Event, User};
use http::Method;
use http::uri::PathAndQuery;

use k8s_audit::RequestInfo;
use k8s_audit::policy::Attributes;

/// The request of a recorded event, with the attributes that it had when the policy was evaluated.
///
/// `objectRef` may differ from these: kube-apiserver adds a namespace and a name from the body if
/// the URL has none. So creates, writes whose URL has no namespace, and events without `objectRef`
/// are resolved from `requestURI`.
#[derive(Debug)]
pub struct EventRequest<'e> {
    user: Option<Cow<'e, [u8]>>,
    groups: User<'e>,
    verb: Cow<'e, [u8]>,
    target: Target<'e>,
}

#[derive(Debug)]
enum Target<'e> {
    Object([Cow<'e, [u8]>; 5]),
    Path(Cow<'e, [u8]>),
    Url(Box<RequestInfo>),
}

const NAMESPACE: usize = 0;
const GROUP: usize = 1;
const RESOURCE: usize = 2;
const SUBRESOURCE: usize = 3;
const NAME: usize = 4;

/// Why a policy cannot be evaluated for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    /// Neither `requestURI` nor `objectRef.resource`.
    #[error("the event has neither requestURI nor objectRef.resource")]
    NoTarget,
    /// No `verb`.
    #[error("the event has no verb")]
    NoVerb,
}

impl<'e> EventRequest<'e> {
    /// Returns the request of an event.
    ///
    /// # Errors
    /// The event does not contain what was requested.
    pub fn new(event: &Event<'e>) -> Result<EventRequest<'e>, Incomplete> {
        if !event.verb.is_present() && !event.request_uri.is_some() {
            return Err(Incomplete::NoVerb);
        }
        let has_object = event.object.resource.is_some();
        if !has_object && !event.request_uri.is_some() {
            return Err(Incomplete::NoTarget);
        }
        let is_known = event.user.name.is_present() || event.user.has_groups();
        let verb = event.verb.bytes();
        let target = match has_object && !may_be_completed(event, &verb) {
            true => object(event),
            false => match url(event, &verb) {
                // objectRef contains what kube-apiserver found in the URL; if the URL is resolved
                // differently here, other rules applied.
                Target::Url(info) if has_object && !event.object.resource.is(info.resource()) => {
                    object(event)
                }
                Target::Path(_) if has_object => object(event),
                target => target,
            },
        };
        let verb = match &target {
            Target::Url(info) if !event.verb.is_present() => {
                Cow::Owned(info.verb().as_bytes().to_vec())
            }
            _ => verb,
        };
        Ok(EventRequest {
            user: is_known.then(|| event.user.name.bytes()),
            groups: event.user,
            verb,
            target,
        })
    }

    /// Returns whether kube-apiserver has a `ResponseStarted` event for such requests.
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb(), b"watch" | b"proxy")
            || match self.is_resource() {
                true => matches!(
                    self.subresource(),
                    b"attach" | b"exec" | b"proxy" | b"log" | b"portforward"
                ),
                false => self.path().starts_with(b"/debug/pprof/"),
            }
    }

    fn part(&self, part: usize, of_url: impl Fn(&RequestInfo) -> &[u8]) -> &[u8] {
        match &self.target {
            Target::Object(parts) => &parts[part],
            Target::Url(info) => of_url(info),
            Target::Path(_) => b"",
        }
    }
}

/// Whether kube-apiserver may have completed `objectRef` from the body.
fn may_be_completed(event: &Event<'_>, verb: &[u8]) -> bool {
    match verb {
        b"get" | b"list" | b"watch" | b"delete" | b"deletecollection" => false,
        b"update" | b"patch" if !event.object.namespace.is_some() => false,
        b"update" | b"patch" => {
            memchr::memmem::find(event.request_uri.escaped(), b"/namespaces/").is_none()
        }
        _ => true,
    }
}

fn object<'e>(event: &Event<'e>) -> Target<'e> {
    let object = &event.object;
    let parts =
        [object.namespace, object.api_group, object.resource, object.subresource, object.name];
    Target::Object(parts.map(|text| text.bytes()))
}

/// Resolves `requestURI`.
fn url<'e>(event: &Event<'e>, verb: &[u8]) -> Target<'e> {
    let uri = event.request_uri.bytes();
    let path = || match &uri {
        Cow::Borrowed(uri) => Cow::Borrowed(before_query(uri)),
        Cow::Owned(uri) => Cow::Owned(before_query(uri).to_vec()),
    };
    let plain = path();
    if !plain.contains(&b'%')
        && !plain.trim_ascii_start().starts_with(b"/api")
        && !plain.starts_with(b"//")
    {
        return Target::Path(plain);
    }
    let resolved = PathAndQuery::try_from(&*uri)
        .ok()
        .and_then(|target| RequestInfo::new(&method_of(verb, &target), &target).ok().map(Box::new));
    match resolved {
        Some(info) => Target::Url(info),
        // If a request cannot be resolved, its path is compared as received.
        None => Target::Path(plain),
    }
}

fn before_query(uri: &[u8]) -> &[u8] {
    let end = uri.iter().position(|byte| *byte == b'?').unwrap_or(uri.len());
    &uri[..end]
}

/// Returns a method that results in this verb.
fn method_of(verb: &[u8], target: &PathAndQuery) -> Method {
    match verb {
        b"get" | b"list" | b"watch" => Method::GET,
        b"create" | b"post" => Method::POST,
        b"update" | b"put" => Method::PUT,
        b"patch" => Method::PATCH,
        b"delete" | b"deletecollection" => Method::DELETE,
        b"" if target.path().starts_with("/api") => Method::OPTIONS,
        other => Method::from_bytes(&other.to_ascii_uppercase()).unwrap_or(Method::GET),
    }
}

impl Attributes for EventRequest<'_> {
    #[inline]
    fn user(&self) -> Option<&[u8]> {
        self.user.as_deref()
    }

    fn any_group(&self, mut matches: impl FnMut(&[u8]) -> bool) -> bool {
        let mut found = false;
        self.groups.groups(|group| found = found || matches(&group.bytes()));
        found
    }

    #[inline]
    fn verb(&self) -> &[u8] {
        &self.verb
    }

    #[inline]
    fn is_resource(&self) -> bool {
        match &self.target {
            Target::Object(_) => true,
            Target::Url(info) => info.is_resource(),
            Target::Path(_) => false,
        }
    }

    #[inline]
    fn namespace(&self) -> &[u8] {
        self.part(NAMESPACE, RequestInfo::namespace)
    }

    #[inline]
    fn group(&self) -> &[u8] {
        self.part(GROUP, RequestInfo::group)
    }

    #[inline]
    fn resource(&self) -> &[u8] {
        self.part(RESOURCE, RequestInfo::resource)
    }

    #[inline]
    fn subresource(&self) -> &[u8] {
        self.part(SUBRESOURCE, RequestInfo::subresource)
    }

    #[inline]
    fn name(&self) -> &[u8] {
        self.part(NAME, RequestInfo::name)
    }

    fn path(&self) -> &[u8] {
        match &self.target {
            Target::Path(path) => path,
            Target::Url(info) => info.path(),
            Target::Object(_) => b"",
        }
    }
}
